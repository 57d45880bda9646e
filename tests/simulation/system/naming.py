"""What people call things: names come and go by ``moved``, while the key in a spec says which thing is meant.

A person renames with care: only what is in force under a name that is known, and so that whatever becomes of versions
that are not decided yet, no two nodes mean one thing. A thing that was left out keeps its name until it is gone.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_model.names import GraphRef

from .keyed import key_in, lane
from .published import Published

if TYPE_CHECKING:
    from .owners import Owners
    from .world import World

SHARED = "n0"
"""Several owners declare it, so nobody renames it."""
RATHER = 0.8
RENAMED, CAME_BACK, TAKEN_OVER = 0.25, 0.4, 0.3


@dataclass
class Called:
    """One thing that somebody declares. ``names``: those that it may have in force; ``keys``: by name and type."""

    id: str
    name: str
    kind: str = ""
    names: set[str] = field(default_factory=set)
    former: list[str] = field(default_factory=list)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    fixed: bool = False
    """A version has left it out: what is to be removed, and what is wanted, must have one name."""
    hidden: bool = False
    """Nobody can say by which name it would have to be declared."""

    def key(self) -> str:
        """The key that its spec says under its name of today; "" for one that is called as it is."""
        if self.id == self.name:
            return ""
        found = self.keys.get((self.name, self.kind))
        if found is None:
            found = self.keys[self.name, self.kind] = f"{self.id}.{len(self.keys)}{self.name}"
        return found

    def rename(self, name: str) -> None:
        key = self.key()
        self.keys = {at: k for at, k in self.keys.items() if at[0] != name} | {(name, self.kind): key}
        self.former = [*(n for n in self.former if n != self.name), self.name]
        self.names = {self.name, name}
        self.name = name


class Names:
    """The names of all things of one graph and owner, as far as somebody who looks at the graph can know."""

    def __init__(self, world: World, dice: random.Random, ref: GraphRef, owner: str, ids: list[str]) -> None:
        self._world = world
        self._dice = dice
        self._ref = ref
        self._owner = owner
        self._count = 0
        self.things = [Called(id if id == SHARED else f"{owner[0]}{id}", id, names={id}) for id in ids]

    def look(self) -> None:
        """See what became of earlier versions."""
        graph = self._world.watcher.graphs.get(self._ref)
        if graph is None or not Published(self._world).decided(self._ref, self._owner):
            return
        for thing in self.things:
            self._find(thing, graph.owners)
        self._take_over(graph.owners)

    def _find(self, thing: Called, owners: Owners) -> None:
        """Believe what is in force."""
        said = owners.said.get(self._owner, {})
        known = {*thing.names, *thing.former}
        mine = [n for n in said if n in known and lane(key_in(owners.spec(n, self._owner), n)) == thing.id]
        graves = {n for n, kind in owners.gone if n in thing.names}
        if mine:
            name = mine[0]
            if name != thing.name:
                thing.former = [*(n for n in thing.former if n != name), thing.name]
            thing.name, thing.kind = name, said[name][0]
            thing.keys[name, thing.kind] = key_in(owners.spec(name, self._owner), name)
            thing.fixed = not owners.stays(self._owner, name)
        else:
            thing.fixed = bool(graves)
            if len(graves) == 1:
                (thing.name,) = graves
        thing.hidden = not mine and len(graves) > 1
        thing.names = {thing.name}

    def _take_over(self, owners: Owners) -> None:
        """A name that one thing has left may be used for another one."""
        thing = self._dice.choice(self.things)
        left = [n for other in self.things if other is not thing for n in other.former if self._free(n, owners)]
        if not left or not self._may_move(thing) or self._dice.random() >= TAKEN_OVER:
            return
        name = self._dice.choice(left)
        for other in self.things:
            if other is not thing:
                other.former = [n for n in other.former if n != name]
                other.keys = {at: key for at, key in other.keys.items() if at[0] != name}
        thing.rename(name)
        self._world.happened["name taken over"] += 1

    def _free(self, name: str, owners: Owners) -> bool:
        buried = any(node == name for node, _ in owners.gone)
        return not (buried or name in owners.rows or any(name in t.names for t in self.things))

    def _may_move(self, thing: Called) -> bool:
        return bool(thing.kind) and not (thing.fixed or thing.hidden or len(thing.names) > 1 or thing.id == SHARED)

    def rename(self, rather: Collection[str] = ()) -> None:
        """Call some things otherwise from now on, ``rather`` those with these names."""
        dice = self._dice
        for thing in self.things:
            if dice.random() >= (RATHER if thing.name in rather else RENAMED):
                continue
            if len(thing.names) == 2 and not thing.fixed:
                (other,) = thing.names - {thing.name}
                if dice.random() < CAME_BACK:
                    thing.rename(other)
            elif self._may_move(thing):
                back = [n for n in thing.former if not any(n in t.names for t in self.things)]
                if back and dice.random() < CAME_BACK:
                    thing.rename(dice.choice(back))
                    self._world.happened["name came back"] += 1
                else:
                    self._count += 1
                    thing.rename(f"{thing.id[-2:]}m{self._count}")

    def moved(self, declared: set[str]) -> list[dict[str, str]]:
        """What a version has to say about names, if it declares these."""
        return [
            {"from": other, "to": thing.name} for thing in self.things for other in sorted(thing.names - {thing.name})
            if thing.name in declared
        ]  # fmt: skip

    def left_out(self, declared: set[str]) -> None:
        """A version does not declare all of them all the time."""
        for thing in self.things:
            if thing.name not in declared:
                thing.fixed = True
                thing.hidden = thing.hidden or len(thing.names) > 1
