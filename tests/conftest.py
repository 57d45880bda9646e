"""Fixtures shared by all tests."""

pytest_plugins = ["holdfast_testkit.plugin"]
