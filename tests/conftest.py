"""Fixtures shared by all tests."""

import hypothesis

pytest_plugins = ["holdfast_testkit.plugin"]

# No example is judged by a clock: machines differ, and several tests share one.
hypothesis.settings.register_profile("holdfast", deadline=None)
hypothesis.settings.load_profile("holdfast")
