"""The world on Redis (or its in-memory twin): every change is one transaction with the key that it happens under.

====================================  ===========  ================================================================
key                                   type         content
====================================  ===========  ================================================================
dungeon:{t/g}:thing:<node>            string       :class:`~.things.Thing` (JSON)
dungeon:{t/g}:things                  set          node ids of what stands
dungeon:{t/g}:built                   hash         node id -> how often it was built, until it is removed
dungeon:{t/g}:deed:<idempotency key>  string (EX)  :class:`~.things.Deed`: this intention had its effect
dungeon:{t/g}:raid:<id>               string (EX)  :class:`~.raiding.Raid` that happened under this id
====================================  ===========  ================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast_model.errors import Conflict, NotFound, Unavailable
from holdfast_model.names import GraphRef
from holdfast_store.kv import Changed, Cmd, Kv

from . import building, raiding
from .raiding import Kind, Raid
from .things import Deed, Thing

REMEMBERED = 86_400
"""Seconds for which deeds and raids are known, so that the same one again has no second effect."""
TRIES = 20

_thing = msgspec.json.Decoder(Thing).decode
_raid = msgspec.json.Decoder(Raid).decode


class World:
    """What really stands, by graph. Raises Unavailable when the store does not answer."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv

    async def look(self, ref: GraphRef, ids: Sequence[str]) -> list[Thing | None]:
        """The things of some nodes, in this order."""
        if not ids:
            return []
        (raws,) = await self._kv.run(("MGET", *(_thing_key(ref, id) for id in ids)))
        return [None if raw is None else _thing(raw) for raw in raws]

    async def things(self, ref: GraphRef, most: int = 0) -> dict[str, Thing]:
        """Everything that stands in a graph. Raises Unavailable when that is more than ``most`` (0: no matter)."""
        if most:
            (count,) = await self._kv.run(("SCARD", _names_key(ref)))
            if count > most:
                raise Unavailable(f"more than {most} things stand in graph {ref}")
        (names,) = await self._kv.run(("SMEMBERS", _names_key(ref)))
        ids = sorted(name.decode() for name in names)
        found = await self.look(ref, ids)
        return {id: thing for id, thing in zip(ids, found, strict=True) if thing is not None}

    async def build(
        self, ref: GraphRef, id: str, type: str, form: str, places: tuple[str, ...], key: str
    ) -> Thing | None:
        """Build a thing once per ``key``. If that has happened already: what stands now, if anything does.

        Raises Temporary when its place is missing, Conflict when others changed the same things all the time.
        """
        keys = [_thing_key(ref, id), _deed_key(ref, key), *(_thing_key(ref, place) for place in places)]
        for _ in range(TRIES):
            async with self._kv.watching(*keys) as watch:
                now, done, *rooms, times = await watch.read(*(("GET", k) for k in keys), ("HGET", _built_key(ref), id))
                if done is not None:
                    return None if now is None else _thing(now)
                standing = {p: None if raw is None else _thing(raw) for p, raw in zip(places, rooms, strict=True)}
                thing = building.build(id, type, form, places, int(times or 0), standing)
                try:
                    await watch.commit(
                        _put(ref, thing),
                        ("SADD", _names_key(ref), id),
                        ("HSET", _built_key(ref), id, thing.built),
                        _remember(_deed_key(ref, key), Deed(thing.built)),
                    )
                except Changed:
                    continue
                return thing
        raise Conflict(f"{id!r} changes all the time")

    async def remove(self, ref: GraphRef, id: str, key: str) -> None:
        """Take a thing away, once per ``key``."""
        keys = (_thing_key(ref, id), _deed_key(ref, key))
        for _ in range(TRIES):
            async with self._kv.watching(*keys) as watch:
                _, done = await watch.read(*(("GET", k) for k in keys))
                if done is not None:
                    return
                try:
                    await watch.commit(*_drop(ref, id), ("HDEL", _built_key(ref), id), _remember(keys[1], Deed()))
                except Changed:
                    continue
                return
        raise Conflict(f"{id!r} changes all the time")

    async def raid(self, ref: GraphRef, id: str, kind: Kind, seed: int, target: str = "") -> Raid:
        """Raid once per ``id``: the same id again returns what happened then. Without a target ``seed`` chooses.

        Raises NotFound or IllegalState when the target cannot suffer this, Conflict as :meth:`build`.
        """
        for _ in range(TRIES):
            things = await self.things(ref)
            # Everything is watched, and everything was read before: what the raid is decided on is what it hits.
            keys = [_raid_key(ref, id), _names_key(ref), *(_thing_key(ref, name) for name in things)]
            async with self._kv.watching(*keys) as watch:
                known, names, *raws = await watch.read(
                    ("GET", keys[0]), ("SMEMBERS", keys[1]), *(("GET", k) for k in keys[2:])
                )
                if known is not None:
                    return _raid(known)
                if {name.decode() for name in names} != set(things):
                    continue
                things = {thing.id: thing for thing in map(_thing, raws)}
                chosen = target or raiding.choose(things, kind, seed)
                raid = raiding.plan(id, kind, seed, chosen, things)
                try:
                    await watch.commit(*_effects(ref, raid, things), _remember(keys[0], raid))
                except Changed:
                    continue
                return raid
        raise Conflict("the dungeon changes all the time")

    async def times_built(self, ref: GraphRef, id: str) -> int:
        """How often a node was built. Raises NotFound if never."""
        (times,) = await self._kv.run(("HGET", _built_key(ref), id))
        if times is None:
            raise NotFound(f"{id!r} was never built")
        return int(times)


def _effects(ref: GraphRef, raid: Raid, things: dict[str, Thing]) -> list[Cmd]:
    cmds: list[Cmd] = []
    for victim in raid.victims:
        left = raiding.after(victim, things[victim.node])
        cmds += _drop(ref, victim.node) if left is None else [_put(ref, left)]
    return cmds


def _put(ref: GraphRef, thing: Thing) -> Cmd:
    return ("SET", _thing_key(ref, thing.id), msgspec.json.encode(thing))


def _drop(ref: GraphRef, id: str) -> list[Cmd]:
    return [("DEL", _thing_key(ref, id)), ("SREM", _names_key(ref), id)]


def _remember(key: str, content: Deed | Raid) -> Cmd:
    return ("SET", key, msgspec.json.encode(content), "EX", REMEMBERED)


def _key(ref: GraphRef, name: str) -> str:
    return f"dungeon:{{{ref.tenant}/{ref.graph}}}:{name}"


def _thing_key(ref: GraphRef, id: str) -> str:
    return _key(ref, f"thing:{id}")


def _names_key(ref: GraphRef) -> str:
    return _key(ref, "things")


def _built_key(ref: GraphRef) -> str:
    return _key(ref, "built")


def _deed_key(ref: GraphRef, key: str) -> str:
    return _key(ref, f"deed:{key}")


def _raid_key(ref: GraphRef, id: str) -> str:
    return _key(ref, f"raid:{id}")
