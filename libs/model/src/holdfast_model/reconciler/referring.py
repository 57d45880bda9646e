"""References to what other nodes publish: which values they have now, and what follows when one has another value.

A value counts while its node is as declared; while that is not so, the last one holds, so that a node which is being
made anew, or cannot be seen, disturbs nobody who was made with it. Only users of what was published are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from holdfast_model.references import nodes_in, parse, value_at
from holdfast_model.rows import Node, Tombstone

from .facts import discard
from .records import Record, Unit, resolved

if TYPE_CHECKING:
    from .core import Core

_encode = msgspec.json.Encoder(order="sorted").encode


def index_refs(core: Core, unit: Unit, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """The references in the spec of a desired unit are others than before."""
    for target in nodes_in(old):
        discard(core.referrers, target, unit)
    for target in nodes_in(new):
        core.referrers.setdefault(target, {})[unit] = None
    if new:
        core.to_resolve[unit] = None
    else:
        core.to_resolve.pop(unit, None)


def values_of(core: Core, declared: Node | Tombstone, last: dict[str, object] | None) -> dict[str, object] | None:
    """The values of a node's references now, ``last`` being those it had; the very same object if nothing changed."""
    found: dict[str, object] = {}
    for text in declared.refs:
        node, pointer = parse(text)
        target = core.units.get(node)
        if target is not None and target.current:
            try:
                found[text] = value_at(target.rec.outputs, pointer)
            except LookupError:
                continue
        elif last is not None and text in last:
            found[text] = last[text]
    return last if _same(found, last or {}) else found or None


def _same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    # In JSON, unlike in Python, neither 1 and true nor 1 and 1.0 are the same.
    return one == other and (not one or _encode(one) == _encode(other))


def known_before(unit: Unit, missing: str) -> str:
    """What to remember of a unit's spec while a reference in it has no value (any more)."""
    if not missing:
        return ""
    return unit.rec.known if unit.missing else bytes(unit.form.spec).decode()


def remembering(declared: Node | Tombstone, rec: Record, before: Unit | None) -> Record:
    """A record that passes to another form of its node: if that form's references have no values, what there was
    ``before`` must not be forgotten."""
    if not declared.refs or before is None:
        return rec
    missing = resolved(declared, rec.refs, "")[1]
    return msgspec.structs.replace(rec, known=known_before(before, missing))


def why_missing(core: Core, unit: Unit) -> str:
    """Why a node's reference has no value, for people; "" if all have one."""
    if not unit.missing:
        return ""
    node, pointer = parse(unit.missing)
    target = core.units.get(node)
    if target is None:
        return f"its spec refers to {unit.missing}, but {node} is not in the graph"
    if not target.current:
        return f"its spec refers to {unit.missing}, which is known once {node} is as declared"
    there = ", ".join(f"/{name}" for name in sorted(target.rec.outputs or {})) or "nothing"
    return f"its spec refers to {unit.missing}, but {node} publishes nothing at {pointer or '/'} (it publishes {there})"
