"""What a test gets to see of nodes and WorkItems."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast_model.messages import Status
from holdfast_model.reconciler import ItemIntent
from holdfast_model.reconciler.core import Core
from holdfast_model.reconciler.records import Unit
from holdfast_model.reconciler.referring import why_missing


class NodeView(msgspec.Struct, frozen=True):
    """A desired node now. ``phase`` is where it stands (``present``, ``backoff``, ``waiting``, ``held`` ...).

    ``status``, ``reason``, ``detail``, ``token``, ``outputs`` and ``info`` come from the last observation;
    ``failures`` counts failed attempts since the last success, ``error`` is the newest failure's text.
    """

    id: str
    type: str
    spec: Any
    status: Status | None
    phase: str
    reason: str
    detail: str
    token: str
    outputs: dict[str, object] | None
    info: dict[str, object] | None
    failures: int
    error: str
    blocked_by: str
    next_try: float


class WorkItemView(msgspec.Struct):
    """A question to a person. ``status`` is PENDING until it is decided or obsolete; ``outcomes`` are the choices."""

    id: str
    node: str
    kind: str
    title: str
    description: str
    payload: dict[str, object]
    outcomes: list[str]
    request: str
    status: str = "PENDING"
    expires_at: float | None = None

    @property
    def open(self) -> bool:
        return self.status == "PENDING"


def node_view(unit: Unit) -> NodeView:
    """A unit of the reconciler as tests see it."""
    rec = unit.rec
    return NodeView(
        unit.id, unit.type, msgspec.json.decode(unit.form.spec), rec.status, str(unit.phase), rec.reason, rec.detail,
        rec.token, rec.outputs, rec.info, rec.failures, rec.error, unit.blocker, rec.next_try,
    )  # fmt: skip


def workitem_view(id: str, intent: ItemIntent) -> WorkItemView:
    """The item that an intent opens."""
    return WorkItemView(
        id, intent.node, intent.kind, intent.title, intent.description, intent.payload, intent.outcomes, intent.request,
        expires_at=intent.expires_at,
    )  # fmt: skip


def unsettled(core: Core) -> str:
    """Why the graph has not converged, one line per node."""
    lines = []
    for unit in (*core.units.values(), *core.graves.values()):
        if unit.current:
            continue
        rec = unit.rec
        what = unit.id if unit.tomb is None else f"{unit.id} (removed)"
        why = [f"behind {unit.blocker}"] if unit.blocker else []
        why += [f"{rec.failures} failures, the last: {rec.error}"] if rec.failures else []
        why += [f"next try in {rec.next_try - core.now:.1f} s"] if rec.next_try > core.now else []
        why += [text for text in (rec.reason, rec.detail, why_missing(core, unit)) if text]
        lines.append(f"  {what}: {unit.phase}" + (f" ({'; '.join(why)})" if why else ""))
    return "\n".join(lines) or "  nothing is desired and nothing is left"
