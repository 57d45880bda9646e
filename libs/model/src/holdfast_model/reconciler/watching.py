"""Nodes that their blueprint only observes: what is found out is told, nothing is done about it.

The mode belongs to the declaration that decides a node, not to the graph: blueprints of several owners build one
graph, and one may still be trying out what another one keeps in force. No step is sent for such a node, no gate opened,
no fault raised (a fault would set policies to work); ``drifted`` and ``recovered`` say how it is. What an observer says
is there as declared counts as that, whatever was provisioned before.
"""

from __future__ import annotations

from holdfast_model.events import Family, NodeEvent
from holdfast_model.messages import Observation, Status
from holdfast_model.reasons import Reason

from .core import Core
from .facts import parent_of
from .records import DRIFT, Unit, reported


def tell_difference(core: Core, unit: Unit, seen: Observation) -> None:
    """Tell once that a node is not as declared, and again when it differs in another way."""
    rec = unit.rec
    reason = seen.reason or (Reason.ABSENT if seen.status is Status.ABSENT else Reason.DRIFTED)
    kind = f"{DRIFT}{reason}"
    if kind in rec.raised:
        return
    episode = rec.episode or f"e{core.next_number()}"
    core.change(unit, episode=episode, about=unit.form.digest, raised=(*reported(rec.raised), kind), watched=True,
                trouble=f"drifted ({reason})", recovered=0.0)  # fmt: skip
    data: dict[str, object] = {
        "node": unit.id,
        "nodeType": unit.type,
        "reason": reason,
        "detail": seen.detail,
        "hold": False,
        "observeOnly": True,
        "parentNodeId": parent_of(unit),
    }
    core.emit(Family.NODE, NodeEvent.DRIFTED, data, unit.id)
