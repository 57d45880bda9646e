"""The planner: admits blueprints, observes, plans, dispatches and records.

Role: hosts the reconciler of each graph whose partition it owns, and takes in blueprints, decisions and reports for
every graph. Ban: it provisions nothing, decides no ladder and owns no WorkItem; the rules it follows are the model's.
"""
