"""The words of the vectors, by file. A field that a run leaves unread and that is none of these fails its case.

A field may stay unread where the run does not get that far (what a policy emits that is never asked), or because it
describes a part of the reference that Holdfast does not have, whatever its value: those are named apart.
"""

from __future__ import annotations

from collections.abc import Mapping

MAPS = frozenset({"actual", "outcomes", "results", "when_actual", "preferences", "reports", "policies", "graphs"})
"""Objects whose keys are names of the vector's own."""

_GRAPH = frozenset({"nodes", "edges", "id", "type", "spec", "gating", "spec_gating"})
_CYCLE = _GRAPH | {
    "actual", "edge", "emit", "graph", "kind", "name", "node", "on", "outcomes", "reason", "set_desired", "throw",
    "throws", "when_actual",
}  # fmt: skip

NOT_REACHED: Mapping[str, frozenset[str]] = {
    "approval": frozenset({"provisioner", "human_handler", "plan", "by", "at", "reason"}),
    "fault_engine": _CYCLE,
    "graph": _GRAPH | {"other"},
    "lifecycle": _GRAPH | {"actual", "complete_when", "during_read", "graph", "outcomes", "phases", "reason", "single"},
    "mutations": _CYCLE,
    "pipeline": frozenset({"agent_reply"}),
    "planner": frozenset({"kind", "reason", "results"}),
    "resync": _CYCLE | {"interval"},
    "routing": frozenset({"desired", "result", "returns"}),
    "threshold": frozenset(
        {"action", "fault_types", "ignore_types", "namespace", "node_types", "review_type", "store", "threshold"}
    ),
}

WITHOUT_MEANING: Mapping[str, frozenset[str]] = {
    # The planner asks for approval by itself: nobody could be missing.
    "approval": frozenset({"approval_handler"}),
    # A question is about one graph of one tenant: its subject says whose, the rules of routing do not.
    "routing": frozenset({"tenant"}),
    # By themselves, thresholds are not told of recovery, whoever it is that recovers.
    "threshold": frozenset({"node", "tenant"}),
    # Reviews and stages are known by their id.
    "pipeline": frozenset({"target", "type"}),
}


def may_stay_unread(file: str, place: str) -> bool:
    """Whether a field may stay unread; ``place`` is its path."""
    above, _, name = place.rpartition(".")
    return (
        bool(MAPS.intersection(above.split(".")))
        or name in NOT_REACHED.get(file, frozenset())
        or name in WITHOUT_MEANING.get(file, frozenset())
    )
