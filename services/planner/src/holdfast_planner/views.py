"""What people get to see of a loaded graph: rows, the explanation of a node, the preview of a blueprint. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import Change, DesiredGraph
from holdfast_model.errors import NotFound
from holdfast_model.messages import Action
from holdfast_model.reconciler import Phase, Reconciler
from holdfast_model.reconciler.records import GateState, Unit
from holdfast_model.rows import Node, Tombstone

_SETTLED = frozenset({Phase.PRESENT})


def graph_row(reconciler: Reconciler, status: str, version: int) -> dict[str, Any]:
    """One graph in numbers."""
    core = reconciler.core
    return {
        "tenant": core.ref.tenant,
        "graph": core.ref.graph,
        "status": status,
        "version": version,
        "incarnation": core.incarnation,
        "nodes": len(core.units),
        "removing": len(core.graves),
        "in_flight": len(core.flights),
        "paused": core.paused,
        "phases": {str(p): n for p, n in core.phases.items() if n > 0},
    }


def units_of(reconciler: Reconciler) -> Iterable[Unit]:
    # Copied, because a large change is entered by a thread meanwhile.
    yield from list(reconciler.core.units.values())
    yield from list(reconciler.core.graves.values())


def node_row(reconciler: Reconciler, unit: Unit) -> dict[str, Any]:
    """One node in one line."""
    rec = unit.rec
    phase = str(unit.phase or Phase.OBSERVING)
    if unit.tomb is not None:
        phase = "removing" if unit.phase in (Phase.READY, Phase.RUNNING, Phase.FORGET) else f"removing: {phase}"
    return {
        "id": unit.id,
        "type": unit.type,
        "phase": phase,
        "status": rec.status.value if rec.status else None,
        "reason": rec.reason,
        "detail": rec.detail or rec.error,
        "digest": unit.form.digest,
        "current": unit.current,
        "attempt": rec.failures,
        "depends_on": list(unit.form.depends_on),
        "blocked_by": unit.blocker,
        "info": rec.info,
        "outputs": rec.outputs,
        "removed": unit.tomb is not None,
    }


def explain(reconciler: Reconciler, node: str, catalog_domains: dict[str, str]) -> dict[str, Any]:
    """Why a node is as it is, in one piece. Raises NotFound."""
    core = reconciler.core
    unit = core.units.get(node) or next((core.graves[(node, t)] for t in core.grave_types.get(node, ())), None)
    if unit is None:
        raise NotFound(f"node {node!r} is not in graph {core.ref}", hint=f"holdfast get nodes {core.ref.graph}")
    waits, row = _waits(reconciler, unit), node_row(reconciler, unit)
    rec = unit.rec
    desired: dict[str, Any] | None = None
    if isinstance(unit.form, Node):
        form = unit.form
        desired = {"type": form.type, "digest": form.digest, "depends_on": list(form.depends_on), "owner": form.owner,
                   "gating": str(form.gating), "spec": msgspec.json.decode(form.spec)}  # fmt: skip
    last: dict[str, Any] = {"operation": rec.operation, "attempt": rec.attempt, "failures": rec.failures}
    if rec.error:
        last |= {"error": rec.error, "reason": rec.error_reason}
    return {
        "node": node,
        "type": unit.type,
        "domain": catalog_domains.get(unit.type, ""),
        "desired": desired,
        "observed": {
            "status": rec.status.value if rec.status else None,
            "reason": rec.reason,
            "detail": rec.detail,
            "token": rec.token,
            "digest": rec.digest,
            "info": rec.info,
            "outputs": rec.outputs,
        },
        "state": row,
        "summary": f"{node} is {node_row(reconciler, unit)['phase']}: "
        + ("; ".join(w["text"] for w in waits) or "as declared"),
        "waits": waits,
        "episode": rec.episode or None,
        "decision": msgspec.to_builtins(rec.decision) if rec.decision else None,
        "last_outcomes": [last] if rec.operation else [],
        "next": _next(unit),
    }


def _waits(reconciler: Reconciler, unit: Unit) -> list[dict[str, Any]]:
    core, rec = reconciler.core, unit.rec
    out: list[dict[str, Any]] = []

    def add(kind: str, text: str, **more: Any) -> None:
        out.append({"kind": kind, "text": text, **more})

    match unit.phase:
        case Phase.BLOCKED:
            other = core.units.get(unit.blocker)
            because = f" ({other.phase})" if other is not None else ""
            add("blocked", f"blocked by {unit.blocker}{because}", by=unit.blocker)
        case Phase.BACKOFF:
            add(
                "backoff",
                f"backing off, attempt {rec.failures + 1} follows; last error: {rec.error}",
                until=rec.next_try,
            )
        case Phase.FAILED:
            add("failed", f"failed for good: {rec.error}; it is tried again when its spec or the world changes, "
                "a decision comes, or by unblock")  # fmt: skip
        case Phase.HELD:
            add("held", f"held because of {rec.reason}: {rec.detail}", reason=rec.reason)
        case Phase.WAITING | Phase.REFUSED:
            _gates(unit, add)
        case Phase.QUARANTINED:
            add("quarantined", "quarantined", until=rec.quarantined_until)
        case Phase.PAUSED:
            add("paused", "the graph is paused" if core.paused else "the node is paused")
        case Phase.NO_PROVISIONER:
            add("no_provisioner", f"no provisioner for type {unit.type!r} is running")
        case Phase.OBSERVING:
            add("observing", "waits to be observed" + (f" ({rec.detail})" if rec.detail else ""))
        case Phase.READY:
            add("ready", "ready; waits for a free provisioner")
        case Phase.RUNNING:
            flight = core.flights[unit.id][1]
            what = f"{flight.action.value.lower()}, operation {flight.operation}, attempt {flight.attempt}"
            add("running", f"one step ({what}) is in flight", since=flight.since, deadline=flight.deadline)
        case Phase.FORGET:
            add("forget", "it is gone and about to be forgotten")
    if rec.hold and unit.phase is not Phase.HELD:
        add("hold", f"drifted: {rec.reason}")
    return out


def _gates(unit: Unit, add: Any) -> None:
    rec = unit.rec
    for gate, what in ((rec.gate, "a person"), (rec.approval, "approval")):
        if gate is None or gate.state is GateState.PASSED:
            continue
        item = gate.workitem or f"(being opened, request {gate.id})"
        if gate.state is GateState.OPEN:
            add("workitem", f"waits for {what}: WorkItem {item}", workitem=gate.workitem, request=gate.id)
        else:
            add("refused", f"refused by {gate.by or 'a person'}: WorkItem {item}", workitem=gate.workitem)
    if rec.refused:
        add("refused", "a person chose to give up; a new digest or unblock ends that")


def _next(unit: Unit) -> str:
    match unit.phase:
        case Phase.PRESENT:
            return "nothing; it is observed again by its interval"
        case Phase.BLOCKED:
            return f"a step once {unit.blocker} is ready"
        case Phase.WAITING | Phase.HELD | Phase.REFUSED:
            return "a person decides"
        case Phase.FORGET:
            return "it is forgotten"
        case Phase.OBSERVING:
            return "an observation"
        case _:
            return "a step that removes it" if unit.tomb is not None else "a step that provisions it"


def preview(graph: DesiredGraph, before: dict[str, Node], change: Change) -> dict[str, Any]:
    """What a blueprint would do: ``graph`` has it applied, ``before`` holds the changed nodes as they were.

    Additions and updates come after what they depend on, removals after those that depend on them.
    """
    steps: list[dict[str, Any]] = []
    gates: list[str] = []
    for kind, ids in (("add", change.added), ("update", change.updated)):
        for id in ids:
            node = graph.nodes[id]
            old = before.get(id)
            reason = "new" if old is None else _difference(old, node)
            steps.append(_line(kind, node, reason, graph.order_of(id)))
            if node.needs_human(Action.PROVISION):
                gates.append(id)
    removals = [before[id] for id in change.removed]
    for node in removals:
        steps.append(_line("remove", node, "no longer declared", -graph.order_of(node.id)))
        if node.needs_human(Action.DEPROVISION):
            gates.append(node.id)
    steps.sort(key=lambda s: (s["action"] == "remove", s.pop("_order")))
    counts = {"add": len(change.added), "update": len(change.updated), "remove": len(change.removed)}
    counts["unchanged"] = len(graph.nodes) - counts["add"] - counts["update"]
    return {"steps": steps, "counts": counts, "gates": sorted(gates)}


def _line(action: str, node: Node | Tombstone, reason: str, order: int) -> dict[str, Any]:
    gate = Action.DEPROVISION if action == "remove" else Action.PROVISION
    return {
        "action": action,
        "node": node.id,
        "type": node.type,
        "reason": reason,
        "after": list(node.depends_on) if action != "remove" else [],
        "gate": "human" if node.needs_human(gate) else "",
        "_order": order,
    }


def _difference(old: Node, new: Node) -> str:
    if old.type != new.type:
        return f"type {old.type} -> {new.type}"
    changed = []
    if old.digest != new.digest:
        a, b = msgspec.json.decode(old.spec), msgspec.json.decode(new.spec)
        if isinstance(a, dict) and isinstance(b, dict):
            changed.append("spec: " + ", ".join(sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))))
        else:
            changed.append("spec")
    if set(old.depends_on) != set(new.depends_on):
        changed.append("dependencies")
    if (old.gating, old.spec_gating) != (new.gating, new.spec_gating):
        changed.append("gating")
    return "; ".join(changed) or "owner"


def page(rows: Sequence[dict[str, Any]], after: str, limit: int) -> tuple[list[dict[str, Any]], str]:
    """Rows after the id ``after`` in order of id, and where the next page starts ("" = no more)."""
    ordered = sorted((r for r in rows if r["id"] > after), key=lambda r: r["id"])
    cut = ordered[:limit]
    return cut, cut[-1]["id"] if len(ordered) > limit else ""
