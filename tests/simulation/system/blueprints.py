"""Blueprints that somebody might publish: nodes that need and refer to each other, phases, parts of a new version."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from holdfast_model.names import GraphRef
from holdfast_model.references import MARK, parse

from .keyed import KEY
from .naming import SHARED, Called, Names
from .things import KINDS, PERSONAL

if TYPE_CHECKING:
    from .world import World

Document = dict[str, Any]
OWNERS = ("main", "extra")
ONLY_RENAMED = 0.3
RENAMING = 0.6
"""Of so many people some rename things."""
DELETE, DELETE_OWNER, PHASES, OBSERVE, SELECT = 0.06, 0.1, 0.2, 0.3, 0.4
"""What a blueprint is, by the roll of one die: below the first a deletion, and so on."""


class Blueprints:
    """See the module. Nodes mostly keep the type they had, and often their name."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        self._size = world.size
        self.renames = dice.random() < RENAMING
        self._kinds: dict[GraphRef, str] = {}
        """Types of the node that several owners declare."""
        self._names: dict[tuple[GraphRef, str], Names] = {}
        self._last: dict[tuple[GraphRef, str], Document] = {}

    def next(self, ref: GraphRef) -> Document:
        """The next version of somebody's blueprint."""
        dice = self._dice
        owner = dice.choice(("main", "main", "main", "extra"))
        if self.renames and dice.random() < ONLY_RENAMED and (same := self.renamed(ref, owner)) is not None:
            return same
        roll = dice.random()
        if roll < DELETE_OWNER:
            for of in OWNERS if roll < DELETE else (owner,):
                self._of(ref, of).left_out(set())
            return {"delete": True} if roll < DELETE else {"delete": True, "name": owner}
        names = self._of(ref, owner)
        names.look()
        if self.renames:
            names.rename()
        document: Document = {"name": owner, "allow_removals": dice.random() < 0.4}
        if roll < PHASES and owner == "main":
            document |= self._phases(ref, owner)
            declared = set.intersection(*({n["id"] for n in p["graph"]["nodes"]} for p in document["phases"]))
        else:
            nodes = self._nodes(ref, owner)
            document |= {"domain": "sim", "spec": nodes} if dice.random() < 0.3 else {"nodes": nodes}
            if PHASES <= roll < OBSERVE:
                document["mode"] = "observe"
            elif OBSERVE <= roll < SELECT:
                document |= self._selection(nodes)
            declared = {n["id"] for n in nodes}
        names.left_out(declared)
        if moved := names.moved(declared):
            document["moved"] = moved
        self._last[ref, owner] = document
        return document

    def renamed(self, ref: GraphRef, owner: str, rather: Collection[str] = ()) -> Document | None:
        """The version before once more, with other names, ``rather`` for these; None where nobody knows what became of
        that.
        """
        names, last = self._of(ref, owner), self._last.get((ref, owner), {})
        names.look()
        old = last.get("nodes", last.get("spec"))
        if old is None or not self._as_called(ref, owner, {"phases": [{"graph": {"nodes": old}}]}):
            return None
        before = {thing.id: thing.name for thing in names.things}
        names.rename(rather)
        now = {before[thing.id]: thing.name for thing in names.things}
        nodes: list[Document] = []
        for node in old:
            spec = {
                k: {MARK: now[(at := parse(v[MARK]))[0]] + "#" + at[1]} if isinstance(v, dict) else v
                for k, v in node["spec"].items()
            }
            below = [now[n] for n in node["depends_on"]]
            nodes.append({**node, "id": now[node["id"]], "spec": spec, "depends_on": below})
        declared = {n["id"] for n in nodes}
        names.left_out(declared)
        document = {k: v for k, v in last.items() if k not in ("moved", "only", "except")}
        document["nodes" if "nodes" in last else "spec"] = nodes
        if moved := names.moved(declared):
            document["moved"] = moved
        self._last[ref, owner] = document
        return document

    def _of(self, ref: GraphRef, owner: str) -> Names:
        ids = ["n0", "x1"] if owner == "extra" else [f"n{i}" for i in range(self._size)]
        return self._names.setdefault((ref, owner), Names(self._world, self._dice, ref, owner, ids))

    def _phases(self, ref: GraphRef, owner: str) -> Document:
        """Two or three phases; at times the same as before once more."""
        dice, last = self._dice, self._last.get((ref, owner), {})
        if "phases" in last and dice.random() < 0.3 and self._as_called(ref, owner, last):
            return {"allow_removals": True, **{k: last[k] for k in ("phases", "mode") if k in last}}
        phases = []
        always = {t.id for t in self._of(ref, owner).things if len(t.names) > 1 or dice.random() < 0.4}
        for i in range(dice.choice((2, 2, 3))):
            phase: Document = {"id": f"p{i}", "graph": {"nodes": self._nodes(ref, owner, always)}}
            if dice.random() < 0.2:
                phase["complete_when"] = "never"
            if dice.random() < 0.2:
                phase["deadline"] = f"{dice.randint(5, 60)}s"
            phases.append(phase)
        return {"phases": phases} | ({"mode": "observe"} if dice.random() < 0.15 else {})

    def _as_called(self, ref: GraphRef, owner: str, document: Document) -> bool:
        """Whether the things of a blueprint in phases are still called so, and nobody may take them for others."""
        known = {(t.name, t.keys.get((t.name, t.kind), "")): t for t in self._of(ref, owner).things if not t.hidden}
        nodes = [n for p in document["phases"] for n in p["graph"]["nodes"]]
        always = set.intersection(*({n["id"] for n in p["graph"]["nodes"]} for p in document["phases"]))
        unsure = {t.name for t in known.values() if len(t.names) > 1}
        return unsure <= always and all((n["id"], n["spec"].get(KEY, "")) in known for n in nodes)

    def _selection(self, nodes: list[Document]) -> Document:
        """Some nodes of a version: those that it has, and one that it may have left out."""
        dice = self._dice
        known = [n["id"] for n in nodes] + [f"n{dice.randrange(self._size)}"]
        patterns = [dice.choice(known) for _ in range(dice.randint(1, 2))]
        if dice.random() < 0.3:
            patterns.append(f"type:{dice.choice(KINDS)}")
        return {dice.choice(("only", "except")): patterns}

    def _nodes(self, ref: GraphRef, owner: str, always: Collection[str] = ()) -> list[Document]:
        """``always``: things that are not left out."""
        dice = self._dice
        there = [t for t in self._of(ref, owner).things if not t.hidden]
        chosen = [t for t in there if dice.random() < 0.75 or t.id in always]
        if dice.random() < 0.3:
            dice.shuffle(chosen)
        nodes = []
        for at, thing in enumerate(chosen):
            kind = self._kind(ref, thing)
            gating = dice.choice(["NONE"] * 12 + ["ALL", "PROVISION_ONLY", "DEPROVISION_ONLY"])
            below = [other for other in chosen[:at] if dice.random() < 0.35]
            spec: Document = {"v": dice.randint(0, 2)}
            if key := thing.key():
                spec[KEY] = key
            for other in list(below):
                if dice.random() < 0.35:
                    spec[f"of-{other.id}"] = {"$ref": f"{other.name}#/v"}
                    if dice.random() < 0.5:
                        below.remove(other)  # the reference alone says that it needs it
            nodes.append({
                "id": thing.name, "type": kind, "spec": spec, "depends_on": [other.name for other in below],
                "gating": "ALL" if kind == PERSONAL else gating,
            })  # fmt: skip
        return nodes

    def _kind(self, ref: GraphRef, thing: Called) -> str:
        """The type of a thing. What may be in force under another name keeps the one that it has there."""
        dice = self._dice
        if thing.id == SHARED:
            thing.kind = self._kinds.get(ref, "")
        if not thing.kind or (dice.random() < 0.1 and len(thing.names) == 1):
            thing.kind = dice.choice(KINDS)
        if thing.id == SHARED:
            self._kinds[ref] = thing.kind
        return thing.kind
