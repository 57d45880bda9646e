"""The store of graphs: commits, replicas and their feeds, the reconciler's turns, and everything to be read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Conflict, Fenced
from holdfast_model.names import GraphRef

from . import keys
from .commits import Change, Committed, Committer, Limits, Op
from .kv import Ambiguous, Changed, Cmd, Kv
from .records import GraphReader
from .replica import Feed, Replica

_TURN_ROUNDS = 8
_SIZE_EVERY = 64


class GraphStore(GraphReader):
    """All graphs, over one :class:`~holdfast_store.kv.Kv`.

    Replicas of recently used graphs stay in memory, at most ``max_graphs`` and about ``max_nodes`` rows and
    tombstones together; graphs with an open feed or a commit under way stay anyway. ``now``: seconds since the
    epoch. ``rng``: for jitter and tokens.
    """

    def __init__(
        self,
        kv: Kv,
        *,
        rng: random.Random | None = None,
        now: Callable[[], float] = time.time,
        limits: Limits | None = None,
        max_graphs: int = 256,
        max_nodes: int = 1_000_000,
    ) -> None:
        super().__init__(kv)
        self._rng = rng or random.Random()
        self._now = now
        self._limits = limits or Limits()
        self._max_graphs = max_graphs
        self._max_nodes = max_nodes
        self._uses = 0
        self._replicas: dict[GraphRef, Replica] = {}
        self._committers: dict[GraphRef, Committer] = {}

    async def close(self) -> None:
        """Stop every commit under way; their callers get Unavailable. The Kv stays open."""
        for committer in list(self._committers.values()):
            await committer.close()

    # ---- the desired graph

    async def commit(self, ref: GraphRef, op: Op, change: Change, *, weight: int = 0, alone: bool = False) -> Committed:
        """Apply ``change`` to the newest version of the graph and write it, atomically and once per ``op.id``.

        ``weight``: about how many rows it changes, if that may be many. From ``Limits.bulk`` on it is applied in a
        thread, and by itself. A wrong guess costs time only. ``alone``: it must not share a transaction with others,
        because it writes what they read (the reads of all come before the first is applied).

        Raises what ``change.apply`` raises (nothing of it was written), Conflict after too many lost rounds (nothing
        was written), Unavailable, or Ambiguous when the store vanished during EXEC and did not come back: then send
        the same operation again.
        """
        committed = await self._committer(ref).submit(op, change, weight, alone)
        self._evict()
        return committed

    async def refresh(self, ref: GraphRef) -> DesiredGraph:
        """The graph at its newest version. A graph that never was is empty, at version 0.

        Do not change it. It shows committed versions only, and moves on whenever this process commits or refreshes.
        """
        graph = await self._replica(ref).refresh(self.kv)
        self._evict()
        return graph

    async def feed(self, ref: GraphRef) -> Feed:
        """Follow the graph from its newest version on: :meth:`refresh`, then ``take()`` what changed."""
        replica = self._replica(ref)
        feed = replica.open_feed()
        try:
            await replica.refresh(self.kv)
        except BaseException:
            feed.close()
            raise
        feed.take()
        return feed

    async def version(self, ref: GraphRef) -> int:
        """The newest version; 0 for a graph that never was."""
        (ver,) = await self.kv.run(("GET", keys.ver(ref)))
        return int(ver or 0)

    # ---- the reconciler's writes

    async def turn(
        self,
        ref: GraphRef,
        *,
        epoch: int,
        cmds: Sequence[Cmd],
        at_version: int | None = None,
        turn_id: str = "",
    ) -> None:
        """Write ``cmds`` (same graph) if this owner still owns it and, with ``at_version``, if ``ver`` is that.

        One at a time per graph. Raises Fenced when another epoch is there, Changed when the version moved (plan
        again), Unavailable. After Unavailable the same ``turn_id`` may be sent again: it is written once.
        """
        mine = (turn_id or f"{self._rng.getrandbits(64):016x}").encode()
        names = [keys.epoch(ref), keys.turn(ref), *([keys.ver(ref)] if at_version is not None else [])]
        for _ in range(_TURN_ROUNDS):
            async with self.kv.watching(*names) as watch:
                found = await watch.read(*[("GET", name) for name in names])
                if found[1] == mine:
                    return
                _must_own(ref, epoch, found[0])
                if at_version is not None and int(found[2] or 0) != at_version:
                    raise Changed(f"graph {ref} is at version {int(found[2] or 0)}, not {at_version}")
                try:
                    await watch.commit(("SET", keys.turn(ref), mine), *cmds)
                except (Changed, Ambiguous):
                    # Read again: the turn's id, the epoch and the version tell what happened. A lost EXEC that is
                    # still on its way aborts, because the next one writes the turn's id, which it watches.
                    continue
                return
        raise Conflict(f"graph {ref} changed under every one of {_TURN_ROUNDS} tries of a turn")

    async def raise_epoch(self, ref: GraphRef, epoch: int) -> None:
        """Fence off every owner with a lower epoch. Raises Fenced when a higher one is there already."""
        for _ in range(_TURN_ROUNDS):
            async with self.kv.watching(keys.epoch(ref)) as watch:
                (found,) = await watch.read(("GET", keys.epoch(ref)))
                if int(found or 0) > epoch:
                    _must_own(ref, epoch, found)
                if int(found or 0) == epoch:
                    return
                try:
                    await watch.commit(("SET", keys.epoch(ref), epoch))
                except (Changed, Ambiguous):
                    continue
                return
        raise Conflict(f"the epoch of graph {ref} moves all the time")

    # ---- replicas in memory

    def _replica(self, ref: GraphRef) -> Replica:
        replica = self._replicas.pop(ref, None) or Replica(ref)
        self._replicas[ref] = replica  # the most recently used is the last
        return replica

    def _committer(self, ref: GraphRef) -> Committer:
        replica = self._replica(ref)
        committer = self._committers.get(ref)
        if committer is None:
            committer = Committer(self.kv, replica, self._rng, self._now, self._limits)
            self._committers[ref] = committer
        return committer

    def _evict(self) -> None:
        """Forget the least recently used replicas above the bounds; looks at sizes only now and then."""
        self._uses += 1
        if len(self._replicas) <= self._max_graphs and self._uses % _SIZE_EVERY:
            return
        nodes = sum(r.size for r in self._replicas.values())
        if len(self._replicas) <= self._max_graphs and nodes <= self._max_nodes:
            return
        for ref, replica in list(self._replicas.items())[:-1]:
            committer = self._committers.get(ref)
            if replica.feeds or replica.busy or (committer is not None and not committer.idle):
                continue
            del self._replicas[ref]
            self._committers.pop(ref, None)
            nodes -= replica.size
            if len(self._replicas) <= self._max_graphs and nodes <= self._max_nodes:
                return


def _must_own(ref: GraphRef, epoch: int, found: bytes | None) -> None:
    if int(found or 0) != epoch:
        raise Fenced(f"graph {ref} is at epoch {int(found or 0)}, not {epoch}: another owner has it")
