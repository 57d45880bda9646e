"""Keeps data pipelines correct over Delta Lake tables."""
