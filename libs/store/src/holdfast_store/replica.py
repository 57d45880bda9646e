"""One graph as this process knows it: the desired graph, where in the log it stands, and who follows it.

A replica shows committed versions only. It catches up from the log at the cost of the changes; where the log says
``reload``, has been trimmed or does not follow from where the replica stands, it loads afresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Permanent
from holdfast_model.merged import type_key
from holdfast_model.names import GraphRef
from holdfast_model.rows import Delta, Node, Row, Tombstone, gone_field

from . import keys
from .kv import Changed, Cmd, Kv
from .log import NO_ENTRY, decode_row, decode_tombstone, delta_of, position

PAGE = 500
_LOAD_ATTEMPTS = 5
_LARGE = 5000
"""From so many rows on a snapshot is put together in a thread."""


class Feed:
    """What has changed since the last :meth:`take`, merged by id, so its size is bounded by the graph's.

    Close it when the graph is unloaded: a replica with an open feed stays in memory.
    """

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._delta = Delta({}, {})
        self._follows = False
        self._touched: dict[str, None] = {}
        self._touched_gone: dict[type_key, None] = {}

    @property
    def graph(self) -> DesiredGraph:
        """The graph itself; the same object as long as the feed is open."""
        return self._replica.graph

    def __bool__(self) -> bool:
        return bool(self._delta)

    def take(self) -> Delta:
        """The changes up to ``graph.version`` that were not taken yet. Costs nothing but the changes."""
        delta, self._delta = self._delta, Delta({}, {})
        return delta

    def follow(self) -> None:
        """From now on, have the merged graph followed; see :meth:`drain`."""
        self._tell_followers()
        self._follows = self.graph.tracking = True
        self._touched, self._touched_gone = {}, {}

    def drain(self) -> tuple[dict[str, Node | None], dict[type_key, Tombstone | None]]:
        """As of the graph, but what one feed has drained the others still get: a graph may be loaded again before the
        host that it had is all gone.
        """
        graph = self.graph
        if not self._touched and not self._touched_gone and self._replica.feeds == {self}:
            return graph.drain()
        self._tell_followers()
        nodes = {i: graph.nodes.get(i) for i in self._touched}
        gone = {k: graph.gone.get(k) for k in self._touched_gone}
        self._touched, self._touched_gone = {}, {}
        return nodes, gone

    def _tell_followers(self) -> None:
        nodes, gone = self.graph.drain()
        for feed in self._replica.feeds:
            if feed._follows:
                feed._touched.update(dict.fromkeys(nodes))
                feed._touched_gone.update(dict.fromkeys(gone))

    def close(self) -> None:
        """Follow no longer. Others may go on."""
        self._replica.feeds.discard(self)
        self._tell_followers()
        self.graph.tracking = any(feed._follows for feed in self._replica.feeds)

    def push(self, delta: Delta) -> None:
        self._delta.rows.update(delta.rows)
        self._delta.gone.update(delta.gone)


class Replica:
    """See the module. ``log_id`` is the id of the last log entry that is in ``graph``."""

    def __init__(self, ref: GraphRef) -> None:
        self.ref = ref
        self.graph = DesiredGraph(ref)
        self.log_id = NO_ENTRY
        self.feeds: set[Feed] = set()
        self.loaded = False
        self._loading = asyncio.Lock()

    @property
    def size(self) -> int:
        return len(self.graph.rows) + len(self.graph.gone)

    @property
    def busy(self) -> bool:
        """It is being loaded."""
        return self._loading.locked()

    def open_feed(self) -> Feed:
        feed = Feed(self)
        self.feeds.add(feed)
        return feed

    def catch_up_cmds(self) -> tuple[Cmd, Cmd]:
        """Read in one round trip; hand the replies to :meth:`absorb`."""
        return ("GET", keys.ver(self.ref)), self._page()

    def _page(self) -> Cmd:
        return ("XRANGE", keys.log(self.ref), b"(" + self.log_id, "+", "COUNT", PAGE)

    async def refresh(self, kv: Kv) -> DesiredGraph:
        """Bring the replica up to the newest version."""
        while True:
            if not self.loaded:
                await self._load(kv)
                return self.graph
            sent_at = self.graph.version
            ver, entries = await kv.run(*self.catch_up_cmds())
            if self.absorb(sent_at, ver, entries) is not None:
                return self.graph

    def absorb(self, sent_at: int, ver: bytes | None, entries: Sequence[tuple[bytes, Any]]) -> bool | None:
        """Replay what was read. ``sent_at`` is the replica's version when the read was sent.

        True: the replica stands at ``ver`` or later. None: there is more to read (``loaded`` says whether a page is
        enough or everything must be loaded).
        """
        if not self.loaded:
            return None  # it is being put together anew
        for entry_id, fields in entries:
            at, here = position(entry_id), position(self.log_id)
            if at <= here:
                continue  # another task has replayed it meanwhile
            if fields[b"p"] != self.log_id or b"reload" in fields:
                self.loaded = False
                return None
            self._enter(delta_of(fields), int(fields[b"v"]), entry_id)
        current = int(ver or 0)
        if current < sent_at:  # the store has lost what it had confirmed
            self.loaded = False
            return None
        if self.graph.version >= current:
            return True
        if len(entries) < PAGE:  # the log has been trimmed above where we stand
            self.loaded = False
        return None

    def advance(
        self,
        base: int,
        previous: bytes,
        delta: Delta,
        version: int,
        entry_id: bytes,
        draft: DesiredGraph | None = None,
    ) -> None:
        """Enter our own commit, unless it came back through the log already. ``draft`` is the graph with ``delta``."""
        if self.loaded and self.graph.version == base and self.log_id == previous:
            self._enter(delta, version, entry_id, draft)

    def _enter(self, delta: Delta, version: int, entry_id: bytes, draft: DesiredGraph | None = None) -> None:
        if draft is not None:
            self.graph.adopt(draft)
        else:
            self.graph.replay(delta)
        self.graph.version = version
        self.log_id = entry_id
        for feed in self.feeds:
            feed.push(delta)

    async def _load(self, kv: Kv) -> None:
        async with self._loading:
            if self.loaded:
                return
            for _ in range(_LOAD_ATTEMPTS):
                try:
                    snapshot = await _Snapshot.read(kv, self.ref)
                except msgspec.MsgspecError as e:
                    raise Permanent(f"a row of graph {self.ref} cannot be read: {e}") from e
                if snapshot is None:
                    continue
                if len(snapshot.rows) + self.size < _LARGE:
                    self._replace(snapshot, self._compare(snapshot))
                else:  # nobody changes a graph that is not loaded
                    self._replace(snapshot, await asyncio.to_thread(self._compare, snapshot))
                return
        raise Changed(f"graph {self.ref} is replaced faster than it can be read")

    def _compare(self, snapshot: _Snapshot) -> tuple[DesiredGraph, Delta]:
        """The graph as read, and how it differs from the one that is known. Changes nothing."""
        graph, delta = self.graph, Delta({}, {})
        other = graph.replacement(snapshot.rows, snapshot.gone.values())
        delta.rows.update((i, r) for i, r in other.rows.items() if graph.rows.get(i) is not r)
        delta.rows.update((i, None) for i in graph.rows if i not in other.rows)
        known = {gone_field(k): t for k, t in graph.gone.items()}
        delta.gone.update((f, t) for f, t in snapshot.gone.items() if known.get(f) != t)
        delta.gone.update((f, None) for f in known if f not in snapshot.gone)
        return other, delta

    def _replace(self, snapshot: _Snapshot, compared: tuple[DesiredGraph, Delta]) -> None:
        other, delta = compared
        self.graph.adopt(other)
        self.graph.version = snapshot.version
        self.log_id = snapshot.log_id
        self.loaded = True
        for feed in self.feeds:
            feed.push(delta)


class _Snapshot:
    """HSCAN of both hashes, then the log from the position that was read first.

    The scan may mix versions; replaying every entry since its start over it makes it the newest one.
    """

    def __init__(self, version: int, log_id: bytes) -> None:
        self.version = version
        self.log_id = log_id
        self.rows: dict[str, Row] = {}
        self.gone: dict[str, Tombstone] = {}

    @classmethod
    async def read(cls, kv: Kv, ref: GraphRef) -> _Snapshot | None:
        """None when the hashes were replaced meanwhile."""
        ver, last = await kv.run(("GET", keys.ver(ref)), ("XREVRANGE", keys.log(ref), "+", "-", "COUNT", 1))
        found = cls(int(last[0][1][b"v"]) if last else int(ver or 0), last[0][0] if last else NO_ENTRY)
        async for page in scan(kv, keys.node(ref)):
            found.rows.update((f.decode(), decode_row(v)) for f, v in page.items())
        async for page in scan(kv, keys.gone(ref)):
            found.gone.update((f.decode(), decode_tombstone(v)) for f, v in page.items())
        return found if await found._replay(kv, ref) else None

    async def _replay(self, kv: Kv, ref: GraphRef) -> bool:
        while True:
            ver, entries = await kv.run(
                ("GET", keys.ver(ref)),
                ("XRANGE", keys.log(ref), b"(" + self.log_id, "+", "COUNT", PAGE),
            )
            for entry_id, fields in entries:
                if b"reload" in fields or int(fields[b"v"]) != self.version + 1:
                    return False
                self._enter(delta_of(fields))
                self.version, self.log_id = self.version + 1, entry_id
            if len(entries) < PAGE:
                return self.version >= int(ver or 0)

    def _enter(self, delta: Delta) -> None:
        for node, row in delta.rows.items():
            if row is None:
                self.rows.pop(node, None)
            else:
                self.rows[node] = row
        for field, tombstone in delta.gone.items():
            if tombstone is None:
                self.gone.pop(field, None)
            else:
                self.gone[field] = tombstone


async def scan(kv: Kv, key: str, count: int = 1000) -> AsyncIterator[dict[bytes, bytes]]:
    """Pages of a hash. A field may come twice."""
    cursor = 0
    while True:
        ((cursor, page),) = await kv.run(("HSCAN", key, cursor, "COUNT", count))
        if page:
            yield page
        if not cursor:
            return
