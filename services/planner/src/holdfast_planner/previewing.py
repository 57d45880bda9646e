"""What a blueprint would do, told before it is done: steps in order, gates, values of references. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from holdfast_model.desired import Change, DesiredGraph
from holdfast_model.messages import Action
from holdfast_model.references import find, parse, value_at
from holdfast_model.rows import Node, Tombstone

SAME = "owner"
"""The difference of nodes that are declared by somebody else now, and otherwise as before."""

Published = Callable[[str], Mapping[str, object] | None]
"""What a node that is as declared publishes; None for any other."""


def preview(graph: DesiredGraph, before: dict[str, Node], change: Change, published: Published) -> dict[str, Any]:
    """What a blueprint would do: ``graph`` has it applied, ``before`` holds the changed nodes as they were.

    Additions and updates come after what they depend on, removals after those that depend on them. A step names the
    references in its node's spec, with the values that are known now; ``may_follow`` are nodes that stay as they are
    declared, and are made anew if what they refer to comes to have another value.
    """
    values = _Values(change, published)
    steps: list[dict[str, Any]] = []
    gates: list[str] = []
    for kind, ids in (("add", change.added), ("update", change.updated)):
        for id in ids:
            node = graph.nodes[id]
            old = before.get(id)
            reason = "new" if old is None else _difference(old, node)
            steps.append({**_line(kind, node, reason, graph.order_of(id)), **values.of(node)})
            if node.needs_human(Action.PROVISION):
                gates.append(id)
    for source, id in change.moved:
        node, old = graph.nodes[id], before[source]
        reason = f"was {source}" + (f"; {text}" if (text := _difference(old, node)) != SAME else "")
        steps.append({**_line("move", node, reason, graph.order_of(id)), "from": source, **values.of(node)})
    removals = [before[id] for id in change.removed]
    for node in removals:
        steps.append(_line("remove", node, "no longer declared", -graph.order_of(node.id)))
        if node.needs_human(Action.DEPROVISION):
            gates.append(node.id)
    steps.sort(key=lambda s: (s["action"] == "remove", s.pop("_order")))
    counts = {"add": len(change.added), "update": len(change.updated), "remove": len(change.removed)}
    counts["unchanged"] = len(graph.nodes) - counts["add"] - counts["update"] - len(change.moved)
    if change.moved:
        counts["move"] = len(change.moved)
    told = {"steps": steps, "counts": counts, "gates": sorted(gates)}
    if follow := values.followers(graph):
        told["may_follow"] = follow
    return told


class _Values:
    """Which references have a value now, and which will have one only once the node that they name has been made."""

    def __init__(self, change: Change, published: Published) -> None:
        self._published = published
        self._changed = frozenset((*change.added, *change.updated))
        self._was = {target: source for source, target in change.moved}
        self._touched = self._changed | self._was.keys()

    def of(self, node: Node) -> dict[str, Any]:
        """``references`` of a step: each with its place in the spec, and either its value, or after which node it will
        be known, or what is wrong with it."""
        if not node.refs:
            return {}
        places = find(msgspec.json.decode(node.spec))
        return {"references": [{"at": place, "ref": text, **self._value(text)} for place, text in places]}

    def _value(self, text: str) -> dict[str, Any]:
        node, pointer = parse(text)
        outputs = self._published(self._was.get(node, node)) if node not in self._changed else None
        if outputs is None:
            return {"known_after": node}
        try:
            return {"value": value_at(outputs, pointer)}
        except LookupError:
            there = ", ".join(f"/{name}" for name in sorted(outputs)) or "nothing"
            problem = f"{node} publishes nothing at {pointer or '/'} (it publishes {there})"
            return {"known_after": node, "problem": problem}

    def followers(self, graph: DesiredGraph) -> list[dict[str, Any]]:
        out = []
        for name in sorted({user for id in self._changed for user in graph.dependents(id)} - self._touched):
            refs = [text for text in graph.nodes[name].refs if parse(text)[0] in self._changed]
            if refs:
                out.append({"node": name, "references": refs})
        return out


def _line(action: str, node: Node | Tombstone, reason: str, order: int) -> dict[str, Any]:
    gate = Action.DEPROVISION if action == "remove" else Action.PROVISION
    return {
        "action": action,
        "node": node.id,
        "type": node.type,
        "reason": reason,
        "after": list(node.depends_on) if action != "remove" else [],
        "gate": "human" if action != "move" and node.needs_human(gate) else "",
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
    if old.observe is not new.observe:
        changed.append("mode: observe" if new.observe else "mode: enforce")
    return "; ".join(changed) or SAME
