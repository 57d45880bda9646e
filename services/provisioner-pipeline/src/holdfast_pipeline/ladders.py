"""The three fault policies of pipelines, as data that the fault-policy service carries out.

Escalation: failures 1 to 3 are retried by themselves; the fourth (or a permanent one) asks a reviewer,
and an unresolved review asks a person. Quarantined rows and schema drift ask a person at once. Nobody
removes a node.
"""

from __future__ import annotations

from holdfast_model.events import FaultType
from holdfast_model.manifest import AddNode, Ladder, Rung
from holdfast_model.names import AI_REVIEW, HUMAN_REVIEW

from . import specs
from .reasons import PipelineReason

RETRIES = 3
"""Failures in an episode that are answered by trying again, before a reviewer is asked."""

QUARANTINED, SCHEMA_DRIFT = PipelineReason.QUARANTINED, PipelineReason.SCHEMA_DRIFT

_ASK_REVIEWER = (
    f"(count > {RETRIES} || fault.permanent)"
    " && review('ai-review-' + node) == '' && review('human-review-' + node) == ''"
)
# The policy engine calls a resolved review UNRESOLVED once as many failures followed as had led to it.
_ASK_PERSON = "review('ai-review-' + node) == 'UNRESOLVED'"


def _person(reason: str) -> AddNode:
    return AddNode("human-review-{node}", HUMAN_REVIEW, "ALL", {"reason": reason})


ESCALATION = Ladder(
    "pipeline-escalation",
    [FaultType.PROVISION_FAILED.value],
    [
        Rung(_ASK_REVIEWER, AddNode("ai-review-{node}", AI_REVIEW)),
        Rung(_ASK_PERSON, _person("unresolved by review")),
    ],
    node_types=sorted(specs.SPEC_OF_TYPE),
    skip_types=[AI_REVIEW, HUMAN_REVIEW],
)

QUARANTINE = Ladder(
    "pipeline-quarantine",
    [FaultType.NODE_DEGRADED.value],
    [Rung(f"fault.reason == '{QUARANTINED}'", _person(QUARANTINED))],
    node_types=[specs.VALIDATOR],
)

DRIFT = Ladder(
    "pipeline-schema-drift",
    [FaultType.NODE_DEGRADED.value],
    [Rung("true", _person(SCHEMA_DRIFT))],
    node_types=[specs.SCHEMA],
)

LADDERS = (ESCALATION, QUARANTINE, DRIFT)

RETRY_OR_NOT = ["retry", "give-up"]
OUTCOMES: dict[str, dict[str, list[str]]] = {node_type: {"*": RETRY_OR_NOT} for node_type in specs.SPEC_OF_TYPE} | {
    specs.VALIDATOR: {QUARANTINED: ["accept-rows", "drop-rows", "retry"], "*": RETRY_OR_NOT},
    specs.SCHEMA: {SCHEMA_DRIFT: ["accept", "reject"], "*": RETRY_OR_NOT},
}
"""Node type -> reason of a hold or failure -> what a person may choose; ``*`` is any other reason."""
