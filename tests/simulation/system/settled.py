"""The end of a run: everything is as declared, or somebody says why it is not; and the store is of one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_model.messages import Action
from holdfast_model.names import BUILT_IN_TYPES, GraphRef
from holdfast_model.reconciler import Record
from holdfast_model.references import filled_in, parse
from holdfast_model.rows import Declaration, Row, Tombstone, digest_of, gone_field
from holdfast_planner.pending import decode_waiting
from holdfast_planner.planning import Place
from holdfast_store import keys
from holdfast_store.log import entry_of

from .keyed import KEY, key_in
from .published import Published
from .things import Key

if TYPE_CHECKING:
    from .world import World

STEP = 15.0
PATIENCE = 16
"""Looks, each STEP seconds after the one before, until the system must have come to rest."""
_place = msgspec.json.Decoder(Place)
_row = msgspec.json.Decoder(Row).decode
_record = msgspec.json.Decoder(Record).decode
_tomb = msgspec.json.Decoder(Tombstone).decode


class Settled:
    """See the module."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept_back: dict[GraphRef, set[str]] = {}
        """Owners for whom somebody says why their next phase cannot begin."""

    def check(self) -> None:
        world = self._world
        for _ in range(4):  # whoever is away comes back
            world.loop.play(world.loop.now + STEP)
        self._asked_for_a_reason()
        self._explained()
        for ref in self._refs():
            self._do(self._resume(ref))
        for n in range(PATIENCE):
            if n % 4 == 0:
                for ref in self._refs():
                    self._do(self._unblock(ref))
            for ref in self._refs():
                self._made_by_others(ref)
            self._do(world.people.decide_all())
            world.loop.play(world.loop.now + STEP)
            if n >= 2 and not any(self._unfinished(ref) for ref in self._refs()):
                break
        published = Published(world)
        for ref in self._refs():
            found = self._unfinished(ref)
            if found:
                world.fail(f"{ref} does not come to rest: {found}")
            self._replayed(ref)
            published.check(ref, self._kept_back.get(ref, set()))
        published.check_told()
        self._nothing_left()

    def _refs(self) -> list[GraphRef]:
        return sorted(self._world.watcher.graphs)

    def _do(self, work: Any) -> None:
        self._world.people.bus.spawn(work)

    def _execute(self, *cmd: Any) -> Any:
        return self._world.store.execute(cmd)

    async def _resume(self, ref: GraphRef) -> None:
        people = self._world.people
        await people.ask("resume", ref)
        reply = await people.ask("get", ref)
        for node in sorted({row["id"] for row in (reply or {}).get("nodes", [])}):  # also what is to be removed
            await people.ask("resume", ref, node)

    async def _unblock(self, ref: GraphRef) -> None:
        people = self._world.people
        reply = await people.ask("get", ref)
        if reply is not None:
            self._kept_back[ref] = {stage["name"] for stage in reply["graph"]["stages"] if stage["problem"]}
        for row in (reply or {}).get("nodes", []):
            if not row["current"]:
                await people.ask("unblock", ref, row["id"])

    # ---- why not?

    def _asked_for_a_reason(self) -> None:
        """Nobody is asked about what nothing waits for any more."""
        for ref in self._refs():
            waits: set[str] = set()
            for raw in self._execute("HVALS", keys.state(ref)):
                record = _record(raw)
                waits |= {gate.id for gate in (record.gate, record.approval) if gate is not None}
            waits |= {decode_waiting(raw).request for raw in self._execute("HVALS", keys.pending(ref))}
            asked = (i for i in self._world.watcher.items.values() if i.status.active)
            idle = [f"{i.id} {i.caller_ref}" for i in asked if GraphRef(i.tenancy_id, i.graph) == ref
                    and i.request not in waits]  # fmt: skip
            if idle:
                self._world.fail(f"{ref}: nothing waits for the answers to {idle}")
            self._asked_once(ref)

    def _asked_once(self, ref: GraphRef) -> None:
        """Nobody is asked twice about one thing, under two names."""
        asked: dict[tuple[str, ...], str] = {}
        for item in self._world.watcher.items.values():
            if not item.status.active or GraphRef(item.tenancy_id, item.graph) != ref:
                continue
            about = msgspec.json.decode(item.payload)
            if "spec" in about and KEY in about["spec"]:
                what = (item.caller_ref.split(":")[0], about["spec"][KEY], about["action"])
                if asked.setdefault(what, item.id) != item.id:
                    self._world.fail(f"{ref}: {asked[what]} and {item.id} ask the same: {what}")

    def _explained(self) -> None:
        """While people still owe answers, every node that is not as declared says what it waits for."""
        for ref in self._refs():
            self._do(self._ask_why(ref))
        self._world.loop.play(self._world.loop.now + STEP)

    async def _ask_why(self, ref: GraphRef) -> None:
        people = self._world.people
        reply = await people.ask("get", ref, patience=5)
        if reply is None:
            return
        for row in reply["nodes"]:
            if row["current"]:
                continue
            told = await people.ask("explain", ref, row["id"])
            if told is not None and not told["waits"] and told["state"]["phase"] != "present":
                self._world.fail(f"{ref}: nobody says why {row['id']} is {told['state']['phase']}: {told}")

    # ---- as declared

    def _desired(self, ref: GraphRef) -> dict[str, Declaration]:
        """What decides about every node, from the rows alone."""
        rows = {n.decode(): _row(raw) for n, raw in self._execute("HGETALL", keys.node(ref)).items()}
        return {node: winner[1] for node, row in rows.items() if (winner := row.winner()) is not None}

    def _wanted(self, ref: GraphRef) -> dict[Key, str]:
        """The digest of every thing as it should be, made from what others really publish."""
        desired, there = self._desired(ref), self._world.things.there

        def published(node: str) -> object:
            thing = there.get((ref, key_in(desired[node].spec, node), desired[node].type))
            return thing.published if thing is not None else None

        def made_from(d: Declaration) -> str:
            return digest_of(d.type, filled_in(d.spec, {t: published(parse(t)[0]) for t in d.refs}))

        return {
            (ref, key_in(d.spec, n), d.type): made_from(d) if d.refs else d.digest
            for n, d in desired.items()
            if d.type not in BUILT_IN_TYPES
        }

    def _made_by_others(self, ref: GraphRef) -> None:
        """What is only observed is made by somebody else."""
        wanted, things = self._wanted(ref), self._world.things
        for node, d in self._desired(ref).items():
            key = (ref, key_in(d.spec, node), d.type)
            thing = things.there.get(key)
            if d.observe and (thing is None or thing.digest != wanted[key] or thing.broken):
                things.by_hand(key, Action.PROVISION, wanted[key])

    def _unfinished(self, ref: GraphRef) -> str:
        """What is not as it must be in the end; "" when nothing is."""
        wanted, released = self._wanted(ref), self._world.watcher.graphs[ref].owners.released
        # What a person made by hand just when its node was removed is known to nobody.
        things = {
            k: t for k, t in self._world.things.there.items()
            if k[0] == ref and (k in wanted or not (t.by_hand or k in released))
        }  # fmt: skip
        there = {k: t.digest for k, t in things.items()}
        broken = sorted(k[1:] for k, t in things.items() if t.broken)
        wrong = sorted(k[1:] for k in {**wanted, **there} if wanted.get(k) != there.get(k))
        if wrong or broken:
            nodes = {n for key in [*wrong, *broken] for n in self._world.watcher.called((ref, *key))}
            states = {n: self._execute("HGET", keys.state(ref), n) for n in sorted(nodes)}
            return f"{wrong} differ, {broken} are broken: {states}"
        left = {
            "gone": self._execute("HKEYS", keys.gone(ref)),
            "todo": self._execute("HKEYS", keys.todo(ref)),
            "inbox": self._execute("XRANGE", keys.inbox(ref), "-", "+"),
            "outbox": [e[0] for e in self._execute("XRANGE", keys.out(ref), "-", "+")],
            "faults": self._execute("SMEMBERS", keys.faults(ref)),
            "pending": self._execute("HKEYS", keys.pending(ref)),
        }
        if any(left.values()):
            return f"left over: { {k: v for k, v in left.items() if v} }"
        meta = self._execute("HGETALL", keys.meta(ref))
        status = meta.get(b"status")
        if wanted and status != b"converged" and not self._kept_back.get(ref):
            return f"the graph is {status!r}"
        floors = {owner: _place.decode(at) for owner, at in meta.items() if owner.startswith(b"floor:")}
        if floors and max(floors, key=lambda owner: floors[owner]) == b"floor:*" and status != b"deleted":
            return f"the graph was deleted, and is {status!r}"
        return ""

    def _nothing_left(self) -> None:
        active = sorted(f"{i.id} {i.caller_ref}" for i in self._world.watcher.items.values() if i.status.active)
        if active:
            self._world.fail(f"WorkItems are left open: {active}")

    # ---- the log is all there is

    def _replayed(self, ref: GraphRef) -> None:
        """The log, played from its beginning, leads to exactly the nodes and tombstones that are there."""
        rows: dict[str, Row] = {}
        gone: dict[str, Tombstone] = {}
        version = 0
        for id, fields in self._execute("XRANGE", keys.log(ref), "-", "+"):
            entry = entry_of(id, fields)
            version += 1
            if entry.version != version:
                self._world.fail(f"{ref}: version {entry.version} follows {version - 1} in the log")
            for node, row in entry.delta.rows.items():
                _enter(rows, node, row)
            for field, tomb in entry.delta.gone.items():
                _enter(gone, field, tomb)
        there = {n.decode(): _row(raw) for n, raw in self._execute("HGETALL", keys.node(ref)).items()}
        left = {f.decode(): _tomb(raw) for f, raw in self._execute("HGETALL", keys.gone(ref)).items()}
        if rows != there or gone != left or int(self._execute("GET", keys.ver(ref)) or 0) != version:
            self._world.fail(f"{ref}: the log leads to version {version}, {sorted(rows)}, not to {sorted(there)}")
        assert all(gone_field(t.key) == f for f, t in left.items())


def _enter(found: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        found.pop(key, None)
    else:
        found[key] = value
