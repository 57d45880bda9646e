"""Why a node is as it is, in one piece: its condition in a sentence, what it waits for, and what comes next. Pure.

What only others know (WorkItems, blueprints that wait, phases to come) is passed in by :mod:`.gathering`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from holdfast_model.phases import Standing
from holdfast_model.reasons import Reason
from holdfast_model.reconciler import Reconciler
from holdfast_model.reconciler.conditions import Condition, Remark, condition_of
from holdfast_model.reconciler.records import Unit
from holdfast_model.rows import Declaration, Node

from .pending import Pending
from .planning import phase_rows
from .sentences import (
    Known,
    Wait,
    as_declared,
    because,
    instant,
    next_of,
    not_running,
    open_gate,
    reviews_of,
    wait,
    waiting_blueprint,
)
from .views import node_row, stage_of

CONTENT = frozenset({Condition.PRESENT, Condition.RECOVERED, Condition.ATTESTED, Condition.ANSWERED})
"""Conditions of nodes that wait for nothing."""


def find(reconciler: Reconciler, node: str) -> Unit | None:
    """The desired node of that id, or else a form of it that is being removed."""
    core = reconciler.core
    return core.units.get(node) or next(iter(core.forms_removed(node)), None)


def items_of(reconciler: Reconciler, unit: Unit) -> list[str]:
    """Ids of the WorkItems that the explanation speaks of: of open questions about it, and of those of its reviews."""
    gates = [open_gate(u) for u in (unit, *reviews_of(reconciler.core, unit))]
    return [gate.workitem for gate in gates if gate is not None and gate.workitem]


def explain(reconciler: Reconciler, unit: Unit, known: Known) -> dict[str, Any]:
    """Why a node is as it is."""
    core, rec = reconciler.core, unit.rec
    condition, row, info = condition_of(core, unit), node_row(reconciler, unit), core.info(unit)
    content = condition in CONTENT
    main = as_declared(unit, condition) if content else because(core, unit, condition, known)
    remarks = list(_remarks(reconciler, unit, condition, known))
    return {
        "node": unit.id,
        "type": unit.type,
        "domain": info.domain if info is not None else "",
        "condition": condition.value,
        "because": main,
        "summary": f"{unit.id} is {row['phase']}: " + "; ".join(w["text"] for w in (main, *remarks)),
        "desired": _desired(unit),
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
        "waits": remarks if content else [main, *remarks],
        "stages": stage_of(reconciler, unit),
        "episode": rec.episode or None,
        "decision": msgspec.to_builtins(rec.decision) if rec.decision else None,
        "last_outcomes": [_last(unit)] if rec.operation else [],
        "next": next_of(core, unit, condition, main),
    }


def _desired(unit: Unit) -> dict[str, Any] | None:
    form = unit.form
    if not isinstance(form, Node):
        return None
    desired = {
        **_declared(form, form.owner),
        "mode": "observe" if form.observe else "enforce",
    }
    if form.refs:
        desired |= {"references": list(form.refs), "declared": msgspec.json.decode(unit.declared.spec)}
    return desired


def _declared(form: Node | Declaration, owner: str) -> dict[str, Any]:
    return {
        "type": form.type,
        "digest": form.digest,
        "depends_on": list(form.depends_on),
        "owner": owner,
        "gating": str(form.gating),
        "spec": msgspec.json.decode(form.spec),
    }


def _last(unit: Unit) -> dict[str, Any]:
    rec = unit.rec
    last: dict[str, Any] = {
        "outcome": _outcome(unit), "operation": rec.operation, "attempt": rec.attempt, "failures": rec.failures,
    }  # fmt: skip
    return last | ({"reason": rec.error_reason, "error": rec.error} if rec.error or rec.error_reason else {})


def _outcome(unit: Unit) -> str:
    """How the last step that ended did so."""
    rec = unit.rec
    if rec.unanswered or rec.reason == Reason.NO_ANSWER:
        return "not answered"
    if not rec.intent:
        return "succeeded"
    if rec.approval is not None:
        return "asked for approval"
    if rec.failures:
        return "failed"
    return "rejected" if rec.refused and not rec.given_up else "put off"


def _remarks(reconciler: Reconciler, unit: Unit, condition: Condition, known: Known) -> Iterator[Wait]:
    core, rec = reconciler.core, unit.rec
    if condition not in CONTENT and unit.tomb is None:
        for row in stage_of(reconciler, unit):
            what = f"phase {row['phase']!r}" if row["phase"] else f"blueprint {row['name']!r}"
            if row["timed_out"]:
                text = f"{what} is out of time; work goes on, and a new version ends that"
                yield wait(Remark.TIMED_OUT, text, of=row["name"])
            elif row["deadline"] is not None:
                text = f"{what} is to be complete by {instant(row['deadline'])}"
                yield wait(Remark.DEADLINE, text, of=row["name"], until=row["deadline"])
    if rec.hold and condition is not Condition.HELD:
        yield wait(Remark.DRIFTED, f"drifted: {rec.reason}", reason=rec.reason)
    if rec.decision is not None:
        said = f"{rec.decision.outcome or 'done'} of {rec.decision.by or 'a person'}"
        yield wait(Remark.DECIDED, f"the decision {said} goes along with its next step", outcome=rec.decision.outcome)
    info = core.info(unit)
    if condition is not Condition.DOMAIN_DOWN and info is not None and info.domain and not info.live:
        text = f"{not_running(info.domain, known)}, so that nobody looks at it"
        yield wait(Remark.UNATTENDED, text, domain=info.domain, since=known.gone.get(info.domain))
    for former in (form for form in core.forms_removed(unit.id) if form is not unit):
        why = condition_of(core, former)
        whose = "its former" if unit.tomb is None else "another"
        said = because(core, former, why, known)["text"]
        text = f"{whose} form (type {former.type!r}) is to be removed: {said}"
        yield wait(Remark.FORMER_FORM, text, type=former.type, condition=why.value)
    if (core.paused or rec.paused) and condition not in (Condition.GRAPH_PAUSED, Condition.NODE_PAUSED):
        what = "the graph" if core.paused else "the node"
        yield wait(Remark.PAUSED, f"{what} is paused, so that no step is sent")
    if unit.node is not None and (pending := known.pending.get(unit.node.owner)) is not None:
        yield from _newer(unit, pending)


def _newer(unit: Unit, pending: Pending) -> Iterator[Wait]:
    assert unit.node is not None
    text = waiting_blueprint(unit.node.owner, pending)
    if not pending.request:
        yield wait(Remark.NEWER_VERSION, text, of=unit.node.owner, domains=list(pending.domains or (pending.domain,)))
    elif unit.id in pending.removes:
        yield wait(Remark.REMOVAL_CONSENT, f"{text}, this one among them", of=unit.node.owner, request=pending.request)


# ---- what is not in the graph


def later(
    graph: str, node: str, declaration: Declaration, owner: str, standing: Standing, phase: str, missing: Sequence[str]
) -> dict[str, Any]:
    """A node that is declared for a ``phase`` to come. ``missing``: what is not as declared of the phase in force."""
    now = standing.term.id
    text = f"it belongs to phase {phase!r} of blueprint {owner!r}; in force is {now!r}"
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        text += f", which waits for {len(missing)} of its nodes: {shown}"
    elif standing.term.complete_when == "never":
        text += ", which is never complete"
    why = wait(Condition.LATER_PHASE, text, phase=phase, after=now, missing=list(missing[:100]))
    return {
        "node": node,
        "type": declaration.type,
        "domain": "",
        "condition": Condition.LATER_PHASE.value,
        "because": why,
        "summary": f"{node} is not in the graph yet: {text}",
        "desired": _declared(declaration, owner),
        "observed": None,
        "state": None,
        "waits": [why],
        "stages": phase_rows({owner: standing}),
        "episode": None,
        "decision": None,
        "last_outcomes": [],
        "next": f"the node is declared when phase {phase!r} begins"
        + (f"; see: holdfast explain {graph} {missing[0]}" if missing else ""),
    }


def leftover(node: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is there of a name that this graph does not know; ``rows``: as :func:`leftover_rows` has it."""
    types = ", ".join(row["type"] for row in rows)
    text = f"it is there, and nobody desires it; {rows[0]['detail']}"
    return {
        "node": node,
        "type": rows[0]["type"],
        "domain": "",
        "condition": Condition.LEFTOVER.value,
        "because": wait(Condition.LEFTOVER, text, since=rows[0]["since"], types=[row["type"] for row in rows]),
        "summary": f"{node} is a leftover ({types}): {text}",
        "desired": None,
        "observed": {"status": "PRESENT", "since": rows[0]["since"], "spec": rows[0]["spec"]},
        "leftovers": list(rows),
        "state": {},
        "waits": [],
        "stages": [],
        "episode": None,
        "decision": None,
        "last_outcomes": [],
        "next": "declare it to keep it (`holdfast import`), or remove it where it is",
    }


def nowhere(what: str, pending: Mapping[str, Pending]) -> str:
    """Why something is not there at all, as far as blueprints that wait may be the reason."""
    return "; ".join([what, *(waiting_blueprint(owner, waiting) for owner, waiting in sorted(pending.items()))])
