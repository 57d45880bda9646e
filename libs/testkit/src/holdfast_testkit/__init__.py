"""Real servers, service processes and fault injection for the tests.

Nothing outside ``tests/`` imports this package.
"""
