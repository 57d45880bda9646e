"""What people get to see of a loaded graph, in rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast_model.reconciler import Phase, Reconciler
from holdfast_model.reconciler.records import Unit
from holdfast_model.reconciler.referring import why_missing
from holdfast_model.reconciler.searching import what_becomes

from .planning import phase_rows, phase_text


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
        "leftovers": len(core.search.found) + sum(core.search.more.values()),
        "in_flight": len(core.flights),
        "paused": core.paused,
        "phases": {str(p): n for p, n in core.phases.items() if n > 0},
        **_stages(reconciler),
    }


def _stages(reconciler: Reconciler) -> dict[str, Any]:
    """How far the blueprints are, what they still miss, and what keeps the next phase from beginning."""
    stages = reconciler.core.stages.by_owner
    standings = {owner: stage.standing for owner, stage in stages.items()}
    rows = phase_rows(standings)
    for row in rows:
        stage = stages[row["name"]]
        row |= {"missing": len(stage.missing), "problem": stage.refused}
    return {"phase": phase_text(standings), "stages": rows}


def stage_of(reconciler: Reconciler, unit: Unit) -> list[dict[str, Any]]:
    """The phases and deadlines that a node is part of."""
    stages = reconciler.core.stages
    mine = [owner for owner, stage in stages.by_owner.items() if stage in stages.of.get(unit.id, ())]
    return phase_rows({owner: stages.by_owner[owner].standing for owner in mine})


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
        "detail": why_missing(reconciler.core, unit) or rec.detail or rec.error,
        "digest": unit.form.digest,
        "current": unit.current,
        "attempt": rec.failures,
        "depends_on": list(unit.form.depends_on),
        "blocked_by": unit.blocker,
        "info": rec.info,
        "outputs": rec.outputs,
        "removed": unit.tomb is not None,
    }


def leftover_rows(reconciler: Reconciler) -> list[dict[str, Any]]:
    """What is there though nobody desires it, by type and id."""
    core = reconciler.core
    return [
        {
            "id": one.id,
            "type": one.type,
            "since": one.since,
            "spec": msgspec.json.decode(one.spec) if one.spec else None,
            "detail": what_becomes(core, info) if (info := core.catalog.get(one.type)) is not None else "",
        }
        for one in sorted(core.search.found.values(), key=lambda one: (one.type, one.id))
    ]


def page(rows: Sequence[dict[str, Any]], after: str, limit: int) -> tuple[list[dict[str, Any]], str]:
    """Rows after the id ``after`` in order of id, and where the next page starts ("" = no more)."""
    ordered = sorted((r for r in rows if r["id"] > after), key=lambda r: r["id"])
    cut = ordered[:limit]
    return cut, cut[-1]["id"] if len(ordered) > limit else ""
