"""The three ladders of a data pipeline, as data: escalation, quarantine and schema drift."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast_model.events import Fault, FaultType
from holdfast_model.ladders import CompiledLadder, Review
from holdfast_model.manifest import Ladder
from holdfast_model.mutations import AddNode, Mutation
from holdfast_model.thresholds import Admission, NodeCounts

STAGES = ["data-source", "ingestion", "cleanser", "enricher", "validator", "transformer", "sink"]

_NO_REVIEW = "review('ai-review-' + node) == '' && review('human-review-' + node) == ''"

LADDERS = msgspec.convert(
    [
        {
            "name": "pipeline-escalation",
            "faults": ["PROVISION_FAILED"],
            "node_types": STAGES,
            "skip_types": ["ai-review", "human-review"],
            "reset": "on_recovery",
            "rungs": [
                {
                    "when": f"(count >= 4 || fault.permanent) && {_NO_REVIEW}",
                    "add": {"id": "ai-review-{node}", "type": "ai-review"},
                },
                {
                    "when": "review('ai-review-' + node) == 'UNRESOLVED'",
                    "add": {"id": "human-review-{node}", "type": "human-review", "gating": "ALL"},
                },
            ],
        },
        {
            "name": "pipeline-quarantine",
            "faults": ["NODE_DEGRADED"],
            "node_types": ["validator"],
            "rungs": [
                {
                    "when": "fault.reason == 'quarantined'",
                    "add": {"id": "human-review-{node}", "type": "human-review", "gating": "ALL"},
                }
            ],
        },
        {
            "name": "pipeline-schema-drift",
            "faults": ["NODE_DEGRADED"],
            "node_types": ["schema"],
            "rungs": [
                {
                    "when": "true",
                    "add": {
                        "id": "human-review-{node}",
                        "type": "human-review",
                        "gating": "ALL",
                        "spec": {"reason": "schema_drift"},
                    },
                }
            ],
        },
    ],
    list[Ladder],
)

ESCALATION, QUARANTINE, SCHEMA_DRIFT = LADDERS


def fault(node: str = "ingest", type: str = "PROVISION_FAILED", **more: Any) -> Fault:
    """A fault of episode ``e1`` unless told otherwise."""
    given = {"id": "f1", "incarnation": "i1", "tenant": "t1", "graph": "main", "time": 0.0, "detail": "down"}
    given |= {"node_type": "ingestion", "episode": "e1", "digest": "d1"}
    return Fault(node=node, type=FaultType(type), **(given | more))


class Climber:
    """One ladder over the life of one graph: counts and reviews that persist from fault to fault."""

    def __init__(self, ladder: Ladder) -> None:
        self.compiled = CompiledLadder(ladder)
        self.counts: dict[str, NodeCounts] = {}
        self.reviews: dict[str, Review] = {}
        self.present: set[str] = set()

    def fail(
        self, node: str = "ingest", *, node_type: str | None = "ingestion", times: int = 1, **more: Any
    ) -> list[Mutation]:
        """Let the node fail; returns what the last failure asks for. Nothing is applied."""
        asked: list[Mutation] = []
        for _ in range(times):
            one = fault(node, **more)
            self.counts[node] = self.compiled.count(one, node_type, self.counts.get(node, {}), self.reviews)
            asked = []
            if self.compiled.admission(one, node_type) is Admission.COUNT:
                asked, self.counts[node] = self.compiled.climb(one, self.counts[node], self.reviews, self.present)
        return asked

    def apply(self, mutations: list[Mutation], episode: str = "e1") -> None:
        """What the planner does with added reviews: they are there, and pending."""
        for mutation in mutations:
            assert isinstance(mutation, AddNode)
            self.present.add(mutation.node.id)
            self.reviews[mutation.node.id] = Review(episode=episode)

    def count_of(self, node: str = "ingest") -> int:
        tally = self.counts.get(node, {}).get(self.compiled.name)
        return tally.count if tally else 0
