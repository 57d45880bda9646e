"""Keeps data pipelines correct over Delta Lake tables: compiles blueprints, observes and provisions stages.

The data is the only store of what is there: this package keeps no state of its own and never talks to the planner's
store. What stages do lives below :mod:`.engine` and knows no bus and no event loop; what admits and runs them lives
beside it and touches no table.
"""
