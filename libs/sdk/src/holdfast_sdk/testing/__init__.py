"""Tests of a domain without servers: the planner's own reconciler, in virtual time, around real handlers.

Nothing in here decides anything: what happens in a test is what would happen in production.
"""

from .harness import Harness, harness
from .views import NodeView, WorkItemView

__all__ = ["Harness", "NodeView", "WorkItemView", "harness"]
