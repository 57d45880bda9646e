"""What is kept beside the desired graph: read here, written by turns and commits with the commands made here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import msgspec

from holdfast_model.errors import Unavailable
from holdfast_model.events import Event, Fault
from holdfast_model.names import GraphRef
from holdfast_model.thresholds import NodeCounts, decode_counts

from . import keys
from .kv import Cmd, Kv, Word
from .log import LogEntry, encode, entry_of
from .replica import scan

INBOX_BOUND = 100_000
META_LADDERS = "ladders"
"""Field of ``meta`` that holds the ladders which blueprints brought along, as a JSON list; each names its ``owner``."""

_decode_event = msgspec.json.Decoder(Event).decode
_decode_fault = msgspec.json.Decoder(Fault).decode


class Entry(msgspec.Struct, frozen=True):
    """One entry of a stream."""

    id: str
    fields: dict[str, bytes]


# ---- commands for a turn or a commit


def outbox_cmd(ref: GraphRef, event: Event) -> Cmd:
    """Put an event into the outbox."""
    return ("XADD", keys.out(ref), "*", "e", encode(event))


def fault_cmds(ref: GraphRef, fault: Fault) -> list[Cmd]:
    """Keep a fault until it is handled. Its event goes into the outbox by :func:`outbox_cmd`."""
    return [("SET", keys.fault(ref, fault.id), encode(fault)), ("SADD", keys.faults(ref), fault.id)]


def fault_done_cmds(ref: GraphRef, fault_id: str) -> list[Cmd]:
    """The fault has been handled (or its episode is over)."""
    return [("DEL", keys.fault(ref, fault_id)), ("SREM", keys.faults(ref), fault_id)]


def inbox_cmd(ref: GraphRef, fields: Mapping[str, Word]) -> Cmd:
    """Append to the inbox within a transaction; outside of one use :meth:`GraphReader.inbox_append`."""
    return ("XADD", keys.inbox(ref), "*", *(w for pair in fields.items() for w in pair))


def inbox_done_cmd(ref: GraphRef, ids: Iterable[str]) -> Cmd:
    """Delete inbox entries, in the turn that takes in their meaning. ``ids`` must not be empty."""
    return ("XDEL", keys.inbox(ref), *ids)


def _text(fields: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {k.decode(): v for k, v in fields.items()}


class GraphReader:
    """Reads what is kept of graphs. Rows are bytes (JSON); whoever writes them knows their form."""

    def __init__(self, kv: Kv) -> None:
        self.kv = kv

    async def _one(self, *cmd: Word) -> object:
        (reply,) = await self.kv.run(cmd)
        return reply

    # ---- hashes

    async def _hash(self, key: str) -> dict[str, bytes]:
        (reply,) = await self.kv.run(("HGETALL", key))
        return _text(reply)

    async def meta(self, ref: GraphRef) -> dict[str, bytes]:
        """Every field of ``meta``; empty for a graph that never was."""
        return await self._hash(keys.meta(ref))

    async def todo(self, ref: GraphRef) -> dict[str, bytes]:
        """Open intents by id."""
        return await self._hash(keys.todo(ref))

    async def pending(self, ref: GraphRef) -> dict[str, bytes]:
        """Owner -> the blueprint of it that waits."""
        return await self._hash(keys.pending(ref))

    async def counts(self, ref: GraphRef) -> dict[str, NodeCounts]:
        """Node id -> what is counted of its faults, by namespace."""
        return {node: decode_counts(value) for node, value in (await self._hash(keys.counts(ref))).items()}

    async def state_pages(self, ref: GraphRef, count: int = 1000) -> AsyncIterator[dict[str, bytes]]:
        """Every state row by node id, in pages of about ``count``; a row may come twice."""
        async for page in scan(self.kv, keys.state(ref), count):
            yield _text(page)

    async def state(self, ref: GraphRef, nodes: Sequence[str]) -> dict[str, bytes]:
        """State rows of some nodes; those without one are left out."""
        if not nodes:
            return {}
        (rows,) = await self.kv.run(("HMGET", keys.state(ref), *nodes))
        return {node: row for node, row in zip(nodes, rows, strict=True) if row is not None}

    # ---- inbox

    async def inbox_append(self, ref: GraphRef, fields: Mapping[str, Word], bound: int = INBOX_BOUND) -> str:
        """Leave something for the owner. Raises Unavailable when ``bound`` entries wait already."""
        (waiting,) = await self.kv.run(("XLEN", keys.inbox(ref)))
        if waiting >= bound:
            raise Unavailable(f"{waiting} entries wait in the inbox of graph {ref}", retry_after=5.0)
        (entry,) = await self.kv.run(inbox_cmd(ref, fields))
        return str(entry.decode())

    async def inbox(self, ref: GraphRef, after: str = "", count: int = 500) -> list[Entry]:
        """Entries after ``after`` (an id; "" = from the first), oldest first."""
        (found,) = await self.kv.run(("XRANGE", keys.inbox(ref), f"({after}" if after else "-", "+", "COUNT", count))
        return [Entry(i.decode(), _text(f)) for i, f in found]

    # ---- outbox

    async def outbox(self, ref: GraphRef, after: str = "", count: int = 500) -> list[tuple[str, Event]]:
        """Events that are committed and not yet acknowledged as published, oldest first."""
        (found,) = await self.kv.run(("XRANGE", keys.out(ref), f"({after}" if after else "-", "+", "COUNT", count))
        return [(i.decode(), _decode_event(f[b"e"])) for i, f in found]

    async def outbox_ack(self, ref: GraphRef, ids: Sequence[str]) -> None:
        """The bus has these; safe to repeat."""
        if ids:
            await self.kv.run(("XDEL", keys.out(ref), *ids))

    # ---- log

    async def log(
        self, ref: GraphRef, after: str = "", count: int = 100, *, newest_first: bool = False
    ) -> list[LogEntry]:
        """A page of the log. ``after``: id of the last entry of the page before."""
        if newest_first:
            cmd: Cmd = ("XREVRANGE", keys.log(ref), f"({after}" if after else "+", "-", "COUNT", count)
        else:
            cmd = ("XRANGE", keys.log(ref), f"({after}" if after else "-", "+", "COUNT", count)
        (found,) = await self.kv.run(cmd)
        return [entry_of(i, f) for i, f in found]

    # ---- faults

    async def faults(self, ref: GraphRef) -> list[str]:
        """Ids of the faults that are not yet handled."""
        (ids,) = await self.kv.run(("SMEMBERS", keys.faults(ref)))
        return sorted(i.decode() for i in ids)

    async def fault(self, ref: GraphRef, fault_id: str) -> Fault | None:
        """None when it has been handled."""
        (found,) = await self.kv.run(("GET", keys.fault(ref, fault_id)))
        return None if found is None else _decode_fault(found)

    async def faults_known(self, ref: GraphRef, ids: Sequence[str]) -> set[str]:
        """Which of these were raised before: still to be handled, or handled within the last hour (``ops_kept``)."""
        if not ids:
            return set()
        # In this order: a fault is deleted in the transaction that enters its operation.
        (stored,) = await self.kv.run(("MGET", *(keys.fault(ref, i) for i in ids)))
        (handled,) = await self.kv.run(("ZMSCORE", keys.ops(ref), *(fault_op(i) for i in ids)))
        return {i for i, *found in zip(ids, stored, handled, strict=True) if found != [None, None]}

    # ---- which graphs there are

    async def register(self, ref: GraphRef) -> None:
        """Make the graph known to its partition. Before its first commit: it must never be there unknown."""
        await self.kv.run(("SADD", keys.graphs(ref.partition), str(ref)))

    async def unregister(self, ref: GraphRef) -> None:
        """The graph is gone for good."""
        await self.kv.run(("SREM", keys.graphs(ref.partition), str(ref)), ("ZREM", keys.due(ref.partition), str(ref)))

    async def graphs(self, partition: int) -> list[GraphRef]:
        """Every graph of a partition."""
        (found,) = await self.kv.run(("SMEMBERS", keys.graphs(partition)))
        return sorted(_ref(name) for name in found)

    async def at_rest(self, refs: Sequence[GraphRef], field: str) -> list[tuple[bytes | None, int, int]]:
        """Of each graph: a field of its ``meta``, its version, and how many entries its inbox and outbox hold."""
        if not refs:
            return []
        replies = await self.kv.run(
            *[
                cmd
                for ref in refs
                for cmd in (
                    ("HGET", keys.meta(ref), field),
                    ("GET", keys.ver(ref)),
                    ("XLEN", keys.inbox(ref)),
                    ("XLEN", keys.out(ref)),
                )
            ]
        )
        rows = [replies[i : i + 4] for i in range(0, len(replies), 4)]
        return [(value, int(version or 0), int(inbox) + int(out)) for value, version, inbox, out in rows]

    async def set_due(self, ref: GraphRef, at: float) -> None:
        """Wake an unloaded graph at ``at`` (s since the epoch)."""
        await self.kv.run(("ZADD", keys.due(ref.partition), at, str(ref)))

    async def clear_due(self, ref: GraphRef) -> None:
        await self.kv.run(("ZREM", keys.due(ref.partition), str(ref)))

    async def due(self, partition: int, until: float, count: int = 100) -> list[GraphRef]:
        """Graphs whose wake-up has come, earliest first. They stay until :meth:`clear_due`."""
        (found,) = await self.kv.run(("ZRANGEBYSCORE", keys.due(partition), "-inf", until, "LIMIT", 0, count))
        return [_ref(name) for name in found]

    async def next_due(self, partition: int) -> float | None:
        """When the next unloaded graph of the partition wakes up."""
        (found,) = await self.kv.run(("ZRANGE", keys.due(partition), 0, 0, "WITHSCORES"))
        return float(found[0][1]) if found else None

    async def set_waiting(self, domain: str, ref: GraphRef) -> None:
        """The graph has a blueprint that waits for ``domain``. Written before ``pending``."""
        await self.kv.run(("SADD", keys.waiting(domain), str(ref)))

    async def clear_waiting(self, domain: str, ref: GraphRef) -> None:
        await self.kv.run(("SREM", keys.waiting(domain), str(ref)))

    async def waiting(self, domain: str) -> list[GraphRef]:
        """Graphs that wait for ``domain``."""
        (found,) = await self.kv.run(("SMEMBERS", keys.waiting(domain)))
        return sorted(_ref(name) for name in found)


def fault_op(fault_id: str) -> str:
    """Id of the operation that handles a fault."""
    return f"fault:{fault_id}"


def _ref(name: bytes) -> GraphRef:
    tenant, _, graph = name.decode().partition("/")
    return GraphRef(tenant, graph)
