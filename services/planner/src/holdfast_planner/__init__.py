"""Admits blueprints, observes, plans, dispatches and records."""
