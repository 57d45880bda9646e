"""Blueprints that somebody might publish: nodes that need and refer to each other, phases, parts of a new version."""

from __future__ import annotations

import random
from typing import Any

from holdfast_model.names import GraphRef

from .things import KINDS, PERSONAL

Document = dict[str, Any]
DELETE, DELETE_OWNER, PHASES, OBSERVE, SELECT = 0.06, 0.1, 0.2, 0.3, 0.4
"""What a blueprint is, by the roll of one die: below the first a deletion, and so on."""


class Blueprints:
    """See the module. Nodes mostly keep the type they had."""

    def __init__(self, dice: random.Random, size: int) -> None:
        self._dice = dice
        self._size = size
        self._kinds: dict[tuple[GraphRef, str], str] = {}
        self._last: dict[tuple[GraphRef, str], Document] = {}

    def next(self, ref: GraphRef) -> Document:
        """The next version of somebody's blueprint."""
        dice = self._dice
        owner = dice.choice(("main", "main", "main", "extra"))
        roll = dice.random()
        if roll < DELETE:
            return {"delete": True}
        if roll < DELETE_OWNER:
            return {"delete": True, "name": owner}
        document: Document = {"name": owner, "allow_removals": dice.random() < 0.4}
        if roll < PHASES and owner == "main":
            document |= self._phases(ref, owner)
        else:
            nodes = self._nodes(ref, owner)
            document |= {"domain": "sim", "spec": nodes} if dice.random() < 0.3 else {"nodes": nodes}
            if PHASES <= roll < OBSERVE:
                document["mode"] = "observe"
            elif OBSERVE <= roll < SELECT:
                document |= self._selection(nodes)
        self._last[ref, owner] = document
        return document

    def _phases(self, ref: GraphRef, owner: str) -> Document:
        """Two or three phases; at times the same as before once more."""
        dice, last = self._dice, self._last.get((ref, owner), {})
        if "phases" in last and dice.random() < 0.3:
            return {"allow_removals": True, **{k: last[k] for k in ("phases", "mode") if k in last}}
        phases = []
        for i in range(dice.choice((2, 2, 3))):
            phase: Document = {"id": f"p{i}", "graph": {"nodes": self._nodes(ref, owner)}}
            if dice.random() < 0.2:
                phase["complete_when"] = "never"
            if dice.random() < 0.2:
                phase["deadline"] = f"{dice.randint(5, 60)}s"
            phases.append(phase)
        return {"phases": phases} | ({"mode": "observe"} if dice.random() < 0.15 else {})

    def _selection(self, nodes: list[Document]) -> Document:
        """Some nodes of a version: those that it has, and one that it may have left out."""
        dice = self._dice
        known = [n["id"] for n in nodes] + [f"n{dice.randrange(self._size)}"]
        patterns = [dice.choice(known) for _ in range(dice.randint(1, 2))]
        if dice.random() < 0.3:
            patterns.append(f"type:{dice.choice(KINDS)}")
        return {dice.choice(("only", "except")): patterns}

    def _nodes(self, ref: GraphRef, owner: str) -> list[Document]:
        dice = self._dice
        ids = [f"n{i}" for i in range(self._size)] if owner == "main" else ["n0", "x1"]
        chosen = [i for i in ids if dice.random() < 0.75]
        if dice.random() < 0.3:
            dice.shuffle(chosen)
        nodes = []
        for at, id in enumerate(chosen):
            kind = self._kinds.get((ref, id))
            if kind is None or dice.random() < 0.1:
                kind = self._kinds[(ref, id)] = dice.choice(KINDS)
            gating = dice.choice(["NONE"] * 12 + ["ALL", "PROVISION_ONLY", "DEPROVISION_ONLY"])
            below = [other for other in chosen[:at] if dice.random() < 0.35]
            spec: Document = {"v": dice.randint(0, 2)}
            for other in list(below):
                if dice.random() < 0.35:
                    spec[f"of-{other}"] = {"$ref": f"{other}#/v"}
                    if dice.random() < 0.5:
                        below.remove(other)  # the reference alone says that it needs it
            nodes.append({
                "id": id, "type": kind, "spec": spec, "depends_on": below,
                "gating": "ALL" if kind == PERSONAL else gating,
            })  # fmt: skip
        return nodes
