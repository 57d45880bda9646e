"""What must hold of the store after every transaction, recomputed from the commands of the transaction alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_bus.streams import STREAM_OF_FAMILY
from holdfast_model.events import Event, Fault
from holdfast_model.manifest import Ladder
from holdfast_model.messages import Action, Status
from holdfast_model.names import BUILT_IN_TYPES, GraphRef
from holdfast_model.reconciler import Record, StepIntent
from holdfast_model.reconciler.records import GateState, grave_field
from holdfast_model.rows import Gating, Row, Tombstone, gone_field
from holdfast_model.thresholds import NodeCounts, Tally, decode_counts
from holdfast_model.work_items import WorkItem, WorkItemStatus
from holdfast_store import keys
from holdfast_store.kv import Cmd

from .allowed import in_the_way
from .keyed import key_in
from .loop import Life
from .owners import Owners
from .things import LADDERS, LADDERS_REFRESH, Key

if TYPE_CHECKING:
    from .world import World

Named = dict[str, list[Cmd]]
"""The commands of a transaction by the name of the key in its graph."""
_KEY = re.compile(r"hf:\{([^}/]+)/([^}]+)\}:(.+)")
_ITEM = re.compile(r"hf:wi:\{([^}]+)\}:([A-Za-z0-9]+)\Z")
_NO_ITEMS = {"all", "open", "due", "audit", "out", "relay"}
_row = msgspec.json.Decoder(Row).decode
_tomb = msgspec.json.Decoder(Tombstone).decode
_record = msgspec.json.Decoder(Record).decode
_intent = msgspec.json.Decoder(StepIntent).decode
_fault = msgspec.json.Decoder(Fault).decode
_event = msgspec.json.Decoder(Event).decode
_item = msgspec.json.Decoder(WorkItem).decode


class Graph:
    """The shadow of one graph."""

    def __init__(self, owners: Owners) -> None:
        self.owners = owners
        self.version = 0
        self.owner: Life | None = None
        self.epoch = 0
        self.ops: dict[str, int] = {}
        self.batches: dict[str, StepIntent] = {}
        self.sent: dict[tuple[int, int], str] = {}
        self.meant: dict[int, tuple[str, str, str]] = {}
        self.faults: dict[str, Fault] = {}
        self.raised: dict[str, float] = {}
        self.handled: set[str] = set()
        self.counts: dict[str, NodeCounts] = {}
        self.events: list[tuple[str, str]] = []
        """What was put into the outbox: ids, and the streams they belong to."""
        self.records: dict[str, list[tuple[int, Record | None]]] = defaultdict(list)
        """What was written of each node, and with which transaction."""


class Watcher:
    """Told of every transaction right after it happened."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._parsed: dict[str, tuple[GraphRef, str] | None] = {}
        self.graphs: dict[GraphRef, Graph] = {}
        self.items: dict[str, WorkItem] = {}
        self.transactions = 0
        self._read_at: dict[tuple[Life, str], int] = {}
        self._announced: float | None = None
        self._too_early = False
        """A fault was raised before any domain had announced itself."""

    def _fail(self, text: str) -> None:
        self._world.fail(text)

    def _execute(self, *cmd: Any) -> Any:
        return self._world.store.execute(cmd)

    def reading(self, life: Life, cmds: Sequence[Cmd]) -> None:
        """Somebody is about to read, under a watch; what is read of records is not watched itself."""
        for cmd in cmds:
            if cmd[0] == "HMGET":
                self._read_at[(life, str(cmd[1]))] = self.transactions

    def committed(self, life: Life, cmds: Sequence[Cmd]) -> None:
        self.transactions += 1
        ref: GraphRef | None = None
        named: Named = {}
        for cmd in cmds:
            key = str(cmd[1])
            found = self._parsed.get(key, ())
            if found == ():
                match = _KEY.match(key)
                found = self._parsed[key] = (GraphRef(match[1], match[2]), match[3]) if match else None
            if found is None:
                if key.startswith("hf:wi:") and cmd[0] == "HSET":
                    self._work_item(key, cmd)
                if key == keys.DOMAINS and self._announced is None:
                    self._announced = self._world.loop.now
                continue
            ref = found[0]
            named.setdefault(found[1], []).append(cmd)
        if ref is not None:
            self._of_graph(life, ref, named)

    # ---- graphs

    def _of_graph(self, life: Life, ref: GraphRef, named: Named) -> None:
        graph = self.graphs.get(ref)
        if graph is None:
            graph = self.graphs[ref] = Graph(Owners(self._world, self, ref))
        for cmd in named.get("epoch", ()):
            epoch = int(cmd[2])
            if epoch <= graph.epoch:
                self._fail(f"{ref}: the fence went from {graph.epoch} to {epoch}")
            taken = graph.owner is not None and graph.owner.alive and graph.owner is not life
            self._world.happened["taken from a living owner"] += taken
            graph.epoch, graph.owner = epoch, life
        if any(name in named for name in ("turn", "state", "todo")) and graph.owner is not life:
            owner = graph.owner.name if graph.owner else "nobody"
            self._fail(f"{ref}: {life.name} writes {sorted(named)}, but the fence is {owner}'s")
        ops = self._log(ref, graph, named)
        for cmd in named.get("out", ()):
            if cmd[0] == "XADD":
                event = _event(_bytes(cmd[-1]))
                graph.events.append((event.id, STREAM_OF_FAMILY[event.family]))
        self._renamed(ref, graph, named)
        for cmd in named.get("state", ()):
            for node in map(_text, cmd[2:] if cmd[0] == "HDEL" else cmd[2::2]):
                record = self.record(ref, node)
                self._asked(ref, node, graph.records[node], record)
                graph.records[node].append((self.transactions, record))
        if ops or "gone" in named or "meta" in named:
            graph.owners.committed(named, ops)
        for name in named:
            if name.startswith("fault:"):
                self._faults(graph, name.removeprefix("fault:"), named[name])
        if "counts" in named or any(name.startswith("fault:") for name in named):
            self._counts(ref, graph, named, self._read_at.get((life, keys.state(ref)), self.transactions))
        for cmd in sorted(
            named.get("todo", ()), key=lambda cmd: cmd[0] != "HDEL"
        ):  # what ends, ends before what begins
            self._todo(ref, graph, cmd)

    def _log(self, ref: GraphRef, graph: Graph, named: Named) -> list[dict[str, Any]]:
        """Every change of the graph is one entry of the log, and every operation is in it once. Returns those."""
        versions = [int(cmd[2]) for cmd in named.get("ver", ()) if cmd[0] == "SET"]
        entries = [cmd for cmd in named.get("log", ()) if cmd[0] == "XADD"]
        if ("node" in named or "gone" in named) and not entries:
            self._fail(f"{ref}: nodes change without an entry in the log")
        if not versions and not entries:
            return []
        if versions != [graph.version + 1] or len(entries) != 1:
            self._fail(f"{ref}: version {graph.version} is followed by {versions} with {len(entries)} entries")
        graph.version += 1
        words = list(entries[0])[list(entries[0]).index("*") + 1 :]
        fields = dict(zip(map(_text, words[::2]), words[1::2], strict=True))
        if int(_text(fields["v"])) != graph.version:
            self._fail(f"{ref}: the log says {fields['v']!r} of version {graph.version}")
        ops: list[dict[str, Any]] = msgspec.json.decode(fields["ops"])
        for op in ops:
            if graph.ops.setdefault(op["id"], graph.version) != graph.version:
                self._fail(f"{ref}: {op['id']} is in the log as {graph.ops[op['id']]} and as {graph.version}")
        return ops

    def _asked(self, ref: GraphRef, node: str, before: list[tuple[int, Record | None]], record: Record | None) -> None:
        """Nobody is asked about what is only observed."""
        if record is None or record.gate is None or record.gate.state is not GateState.OPEN:
            return
        last, row = before[-1][1] if before else None, self._row(ref, node)
        winner = row.winner() if row is not None else None
        new = last is None or last.gate is None or last.gate.id != record.gate.id
        if new and winner is not None and winner[1].observe:
            self._fail(f"{ref}: somebody is asked about {node}, but {winner[0]} only observes it")

    # ---- steps

    def _todo(self, ref: GraphRef, graph: Graph, cmd: Cmd) -> None:
        words = [_text(w) if n % 2 == 0 else w for n, w in enumerate(cmd[2:])]
        if cmd[0] == "HDEL":
            for field in map(_text, cmd[2:]):
                graph.batches.pop(field, None)
            return
        for field, raw in zip(words[::2], words[1::2], strict=True):
            if not str(field).startswith("b:"):
                continue
            intent = _intent(_bytes(raw))
            known = graph.batches.get(str(field))
            graph.batches[str(field)] = intent
            if known is None:
                for step in intent.steps:
                    self._step(ref, graph, str(field), intent, step)

    def _step(self, ref: GraphRef, graph: Graph, batch: str, intent: StepIntent, step: tuple[Any, ...]) -> None:
        node, action, operation, attempt, digest = step[:5]
        self._world.say(f"{ref}", f"sends {action} {node} op{operation}.{attempt} {digest[:4]} ({batch})")
        if graph.sent.setdefault((operation, attempt), batch) != batch:
            self._fail(f"{ref}: {node} op{operation}.{attempt} was sent before, as {graph.sent[operation, attempt]}")
        meant = (action, intent.type, digest)
        if graph.meant.setdefault(operation, meant) != meant:
            self._fail(f"{ref}: {node} op{operation} was for {graph.meant[operation]}, and is now for {meant}")
        for other, open_ in graph.batches.items():
            for theirs in open_.steps:
                if other != batch and theirs[0] == node and not self._ended(ref, open_.type, theirs):
                    self._fail(f"{ref}: {node} has a step in flight ({other}) when {batch} is sent")
        row = self._row(ref, node)
        winner = row.winner() if row is not None else None
        self._allowed(ref, node, intent.type, Action(action), digest)
        if action == Action.DEPROVISION.value:
            if winner is not None and winner[1].type == intent.type:
                self._fail(f"{ref}: {node} is removed although it is desired")
            if not self._execute("HEXISTS", keys.gone(ref), gone_field((node, intent.type))):
                self._fail(f"{ref}: {node} ({intent.type}) is removed, but has no tombstone")
            key = self._key_of_grave(ref, node, intent.type)
            if self.name_of((ref, key, intent.type)):
                self._fail(f"{ref}: {node} ({key}) is removed, but desired as {self.name_of((ref, key, intent.type))}")
            return
        if row is None or winner is None:
            self._fail(f"{ref}: {node} is provisioned after its removal")
            return
        if winner[1].observe:
            self._fail(f"{ref}: {node} is provisioned, but {winner[0]} only observes it")
        if winner[1].type != intent.type or not graph.owners.made_from_now(node, winner[1]).startswith(digest):
            as_desired = f"{winner[1].type} {winner[1].digest} with {winner[1].refs}"
            self._fail(f"{ref}: {node} is provisioned as {intent.type} {digest}, not as it is desired: {as_desired}")
        for target in row.edges():
            self._dependency(ref, graph, node, target)

    def _allowed(self, ref: GraphRef, node: str, kind: str, action: Action, digest: str) -> None:
        """Nothing that is known of a node forbids the step that is sent."""
        row, removed = self._row(ref, node), action is Action.DEPROVISION
        winner = row.winner() if row is not None else None
        form = self._tomb(ref, node, kind) if removed else winner[1] if winner is not None else None
        record = self.record(ref, grave_field(node, kind) if removed else node) or Record()
        paused = self._execute("HGET", keys.meta(ref), "paused") == b"1"
        gating = form.gating if form is not None else Gating.NONE
        found = in_the_way(record, action, digest, gating, self._world.loop.now, paused=paused)
        if found:
            self._fail(f"{ref}: {action} of {node} is sent, but {found}: {record}")

    def _tomb(self, ref: GraphRef, node: str, kind: str) -> Tombstone | None:
        raw = self._execute("HGET", keys.gone(ref), gone_field((node, kind)))
        return _tomb(raw) if raw is not None else None

    def _dependency(self, ref: GraphRef, graph: Graph, node: str, target: str) -> None:
        row = self._row(ref, target)
        winner = row.winner() if row is not None else None
        if winner is None:
            return  # the edge does not show
        record = self.record(ref, target)
        digest = graph.owners.form(target, winner[1])
        if record is None or record.status is not Status.PRESENT or record.digest != digest:
            self._fail(f"{ref}: {node} is sent before its dependency {target}: {record}")
        key = (ref, key_in(winner[1].spec, target), winner[1].type)
        thing = self._world.things.there.get(key)
        if winner[1].type in BUILT_IN_TYPES or key in self._world.things.disturbed:
            return
        if thing is None or thing.digest != digest:
            self._fail(f"{ref}: {node} is sent, but its dependency {target} is not there: {thing}")

    def _ended(self, ref: GraphRef, kind: str, step: tuple[Any, ...]) -> bool:
        """Whether the outcome of a step that was sent has been recorded."""
        node, _, operation, attempt = step[:4]
        rows = self._execute("HMGET", keys.state(ref), node, grave_field(node, kind))
        records = [_record(raw) for raw in rows if raw is not None]
        return any((r.operation, r.attempt) >= (operation, attempt) for r in records)

    # ---- names and things

    def wants(self, key: Key, action: Action) -> bool:
        """Whether a thing is desired, or (for its removal) has been removed and not forgotten."""
        if action is not Action.DEPROVISION:
            return bool(self.name_of(key))
        graves = self.graphs[key[0]].owners.gone
        return any(kind == key[2] and self._key_of_grave(key[0], node, kind) == key[1] for node, kind in graves)

    def name_of(self, key: Key) -> str:
        """The node that a thing is desired as; "" for none."""
        for node, row in self.graphs[key[0]].owners.rows.items():
            winner = row.winner()
            if winner is not None and winner[1].type == key[2] and key_in(winner[1].spec, node) == key[1]:
                return node
        return ""

    def busy(self, ref: GraphRef) -> set[str]:
        """Nodes of things that are there, for which a step may be under way."""
        graph = self.graphs.get(ref)
        steps = [(i.type, step) for i in graph.batches.values() for step in i.steps] if graph is not None else []
        there = {n for key in self._world.things.there if key[0] == ref for n in self.called(key)}
        return {step[0] for kind, step in steps if step[0] in there and not self._ended(ref, kind, step)}

    def in_trouble(self, ref: GraphRef) -> set[str]:
        """Nodes about which somebody is asked, or that are held or have failed."""
        nodes = list(self.graphs[ref].owners.rows) if ref in self.graphs else []
        found = {node: self.record(ref, node) for node in nodes}
        return {n for n, rec in found.items() if rec and (rec.gate or rec.approval or rec.hold or rec.failures)}

    def names(self, ref: GraphRef) -> list[str]:
        """All names that there ever were in a graph."""
        graph = self.graphs.get(ref)
        return sorted(graph.owners.keys) if graph is not None else []

    def called(self, key: Key) -> list[str]:
        """What nodes of a thing have been called."""
        return sorted(n for n, keys in self.graphs[key[0]].owners.keys.items() if key[1] in keys) or [key[1]]

    def keys(self, ref: GraphRef, name: str) -> set[str]:
        """The keys of all things that were ever called so."""
        return self.graphs[ref].owners.keys.get(name, {name})

    def _key_of_grave(self, ref: GraphRef, node: str, kind: str) -> str:
        return key_in(_tomb(self._execute("HGET", keys.gone(ref), gone_field((node, kind)))).spec, node)

    def _renamed(self, ref: GraphRef, graph: Graph, named: Named) -> None:
        """When the owner of a graph hears of a rename, all that it knows goes along."""
        pending = graph.owners.renamed
        fields = {_text(f) for cmd in named.get("state", ()) if cmd[0] == "HDEL" for f in cmd[2:]} & pending.keys()
        for old in sorted(fields):
            new = pending.pop(old)
            while new in pending and new not in fields:
                new = pending.pop(new)
            row, records = self._row(ref, new), graph.records[old]
            was, winner = records[-1][1] if records else None, row.winner() if row is not None else None
            if was is None or winner is None or winner[1].type != was.type:
                continue
            now = self.record(ref, new)
            self._world.happened["renamed in the state"] += 1
            asked = (was.gate, was.approval) != (None, None)
            same = now is not None and _history(now) == _history(was)
            lost = asked and same and now is not None and (now.gate, now.approval) == (None, None)
            if now is None or lost or now.operation < was.operation or now.request < was.request:
                self._fail(f"{ref}: {old} became {new}, but {was} became {now}")

    def _row(self, ref: GraphRef, node: str) -> Row | None:
        raw = self._execute("HGET", keys.node(ref), node)
        return _row(raw) if raw is not None else None

    def record(self, ref: GraphRef, field: str) -> Record | None:
        raw = self._execute("HGET", keys.state(ref), field)
        return _record(raw) if raw is not None else None

    # ---- faults

    def _faults(self, graph: Graph, id: str, cmds: list[Cmd]) -> None:
        for cmd in cmds:
            if cmd[0] == "SET":
                if id in graph.faults or id in graph.handled:
                    self._fail(f"fault {id} is raised twice")
                graph.faults[id] = _fault(_bytes(cmd[2]))
                graph.raised[id] = self._world.loop.now
                self._too_early = self._too_early or self._announced is None
                fault = graph.faults[id]
                self._world.say(
                    f"{fault.ref}", f"fault {fault.type} {fault.node} {fault.reason} {fault.episode} ({id})"
                )

    def _counts(self, ref: GraphRef, graph: Graph, named: dict[str, list[Cmd]], read_at: int) -> None:
        """What is counted changes by exactly the faults that are handled in the same transaction.

        Records are not watched, as every step changes one: what counts is how a node was at some moment of it.
        """
        expected: dict[str, list[NodeCounts]] = {node: [counts] for node, counts in graph.counts.items()}
        handled = [
            name.removeprefix("fault:") for name, cmds in named.items() if name.startswith("fault:")
            for cmd in cmds if cmd[0] == "DEL"
        ]  # fmt: skip
        about: set[str] = set()
        for id in handled:
            if id in graph.handled:
                self._fail(f"{ref}: fault {id} is handled twice")
            graph.handled.add(id)
            fault = graph.faults.pop(id)
            about.add(fault.node)
            records = _since(graph.records[fault.node], read_at)
            before = expected.get(fault.node, [{}])
            expected[fault.node] = [
                self._count(ref, fault, b, record, ladders)
                for b in before for record in records for ladders in self._in_force(graph.raised[id])
            ]  # fmt: skip
        for cmd in named.get("counts", ()):
            if cmd[0] == "HDEL":
                for node in map(_text, cmd[2:]):
                    graph.counts.pop(node, None)
            else:
                words = cmd[2:]
                for node, raw in zip(words[::2], words[1::2], strict=True):
                    graph.counts[_text(node)] = decode_counts(_bytes(raw))
        for node in {**expected, **graph.counts}:
            want, got = [_plain(c) for c in expected.get(node, [{}])], _plain(graph.counts.get(node, {}))
            if got not in want and (node in about or not got.items() <= want[0].items()):
                self._fail(f"{ref}: the counts of {node} are {got}, and must be one of {want} (handled {handled})")

    def _in_force(self, raised: float) -> list[list[Ladder]]:
        """The ladders that may count a fault. There are none before their domain has announced itself, and whoever has
        looked for them before that may look again later.
        """
        if self._announced is None:
            return [[]]
        known_late = self._too_early and raised < self._announced + LADDERS_REFRESH
        return [LADDERS, []] if known_late else [LADDERS]

    def _count(
        self, ref: GraphRef, fault: Fault, before: NodeCounts, record: Record | None, ladders: list[Ladder]
    ) -> NodeCounts:
        """The counts of a node after a fault, by the rules alone."""
        row = self._row(ref, fault.node)
        winner = row.winner() if row is not None else None
        if self._execute("HGET", keys.meta(ref), "incarnation") != fault.incarnation.encode():
            return before
        if winner is None:
            return {}
        if winner[1].type != fault.node_type or record is None or record.episode != fault.episode:
            return before
        after = dict(before)
        for ladder in ladders:
            covered = not ladder.node_types or fault.node_type in ladder.node_types
            if fault.type.value in ladder.faults and covered and fault.node_type not in BUILT_IN_TYPES:
                old = before.get(ladder.name, Tally(0))
                same = old.episode == fault.episode or ladder.reset == "never"
                after[ladder.name] = Tally((old.count if same else 0) + 1, fault.episode)
        return after

    # ---- WorkItems

    def _work_item(self, key: str, cmd: Cmd) -> None:
        match = _ITEM.match(key)
        if match is None or match[2] in _NO_ITEMS:
            return
        fields = dict(zip(map(_text, cmd[2::2]), cmd[3::2], strict=True))
        item = _item(_bytes(fields["item"]))
        before = self.items.get(item.id)
        self.items[item.id] = item
        if before is None or before.status is not item.status:
            self._world.say("items", f"{item.id} {item.status.value} {item.outcome} {item.caller_ref} {item.request}")
        if item.status is WorkItemStatus.COMPLETED:
            self._world.people.completed(item)
        if before is not None and before.status.terminal:
            self._fail(f"WorkItem {item.id} was {before.status} and became {item.status}")
        if (
            before is None
            and item.request
            and any(i.request == item.request for i in self.items.values() if i is not item)
        ):
            self._fail(f"request {item.request} made a second WorkItem: {item.id}")
        if item.status.active and item.caller_ref:
            same = [i.id for i in self.items.values() if i.status.active and i.caller_ref == item.caller_ref]
            if len(same) > 1:
                self._fail(f"{item.caller_ref} has several active WorkItems: {same}")


def _since(records: list[tuple[int, Record | None]], began: int) -> list[Record | None]:
    """What a record was when a transaction began, and everything that it became since."""
    before = [record for at, record in records if at <= began][-1:] or [None]
    return before + [record for at, record in records if at > began]


def _history(record: Record) -> tuple[object, ...]:
    """What changes with everything that happens to a node."""
    return record.operation, record.attempt, record.request, record.round, record.refused, record.status


def _plain(counts: NodeCounts) -> dict[str, tuple[int, str]]:
    return {name: (tally.count, tally.episode) for name, tally in counts.items()}


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
