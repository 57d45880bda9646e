"""The compare-and-set on a graph, with group commit.

Writers of one process to one graph queue up; one leader takes what waits, applies every change to the replica,
collects what changed, undoes it again (nobody may see what is not committed) and writes all of it in one MULTI under
WATCH of ``ver``. Each caller gets its own verdict. When the transaction is lost the changes are applied again to the
newer graph; results are never replayed. A writer that lost twice puts up a short intent key, which every writer
honours before it tries. When the reply of EXEC is lost, the op ids tell whether it happened.

A change that is announced as large goes alone and aside: a thread applies it to a draft, which the replica becomes
once it is committed. Nothing is applied twice, nothing undone, and the event loop goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import Conflict, Unavailable
from holdfast_model.events import Event
from holdfast_model.rows import Delta, gone_field

from . import keys
from .bulk import Stage, Whole, hash_cmds
from .intents import Intent
from .kv import Ambiguous, Changed, Cmd, Kv, Watch
from .log import EncodedDelta, LogOp, encode, encode_delta, entry_words
from .replica import Replica

_TRIM_EVERY = 60.0


class Op(msgspec.Struct, frozen=True):
    """Who does what, why. ``id`` makes the operation safe to repeat: the same id is applied once."""

    id: str
    actor: str
    cause: str = ""


class Extra(msgspec.Struct):
    """What goes into the transaction besides the graph's own changes.

    ``cmds`` touch keys of the same graph. ``events`` go to the outbox. ``mutations`` go to the audit log. ``value``
    is handed to the caller. ``no_version``: unless the graph changed, ``ver`` and the log stay as they are (every
    admission raises ``ver``, a no-op too; a mere count need not).
    """

    cmds: list[Cmd] = []
    events: list[Event] = []
    mutations: list[Any] = []
    value: Any = None
    no_version: bool = False


class Change(Protocol):
    """A change of a graph, as a function of the newest graph. It may be applied several times."""

    @property
    def watch(self) -> Sequence[str]:
        """Further keys (same graph) that must not move between ``reads`` and EXEC."""
        ...

    @property
    def reads(self) -> Sequence[Cmd]:
        """Commands whose replies ``apply`` gets; they run under the watch."""
        ...

    def apply(self, graph: DesiredGraph, reads: list[Any]) -> Extra:
        """Change ``graph`` through its methods. Deterministic, quick, no I/O; for a large change in a thread.

        What it raises (errors of the model) becomes this caller's verdict, and its part is undone. The version it
        leads to is ``graph.version + 1``.
        """
        ...


class Committed(msgspec.Struct, frozen=True):
    """``applied`` False: an operation with this id was committed before, as ``version``; ``value`` is then None."""

    version: int
    applied: bool
    value: Any = None


class Limits(msgspec.Struct, frozen=True):
    """Bounds of the compare-and-set. Times in seconds."""

    rounds: int = 8
    group: int = 256
    queue: int = 10_000
    backoff: float = 0.001
    backoff_cap: float = 0.1
    lost_before_intent: int = 2
    intent: float = 0.5
    patience: float = 30.0
    ops_kept: float = 3600.0
    log_kept: float = 90 * 86400.0
    bulk: int = 5000


class _Request:
    __slots__ = ("alone", "change", "future", "large", "op", "verdict")

    def __init__(self, op: Op, change: Change, large: bool, alone: bool, future: asyncio.Future[Committed]) -> None:
        self.op = op
        self.change = change
        self.large = large
        self.alone = alone or large
        self.future = future
        self.verdict: Committed | Exception | None = None

    def settle(self) -> None:
        if self.future.done() or self.verdict is None:
            return
        if isinstance(self.verdict, Exception):
            self.future.set_exception(self.verdict)
        else:
            self.future.set_result(self.verdict)


class _Transaction(msgspec.Struct):
    """What one group wants to write, computed from the graph at ``base``, to which the log entry ``previous`` led.

    ``encoded`` leaves out ``whole``. ``draft``: the graph as it will be, where the change was applied aside.
    """

    base: int
    previous: bytes
    version: int
    draft: DesiredGraph | None
    delta: Delta
    encoded: EncodedDelta
    whole: Whole
    log_ops: list[LogOp]
    op_ids: list[str]
    extras: list[Extra]


class Committer:
    """The group commit of one graph in one process."""

    def __init__(self, kv: Kv, replica: Replica, rng: random.Random, now: Callable[[], float], limits: Limits) -> None:
        self._kv = kv
        self._replica = replica
        self._rng = rng
        self._now = now
        self._limits = limits
        self._queue: deque[_Request] = deque()
        self._leader: asyncio.Task[None] | None = None
        self._trimmed_at = 0.0
        self._ver = keys.ver(replica.ref)
        self._ops = keys.ops(replica.ref)
        self._intent = Intent(kv, replica.ref, f"{rng.getrandbits(64):016x}")
        self._weight = 0

    @property
    def idle(self) -> bool:
        return self._leader is None and not self._queue

    async def submit(self, op: Op, change: Change, weight: int = 0, alone: bool = False) -> Committed:
        if len(self._queue) >= self._limits.queue:
            raise Unavailable(f"too many writers wait for graph {self._replica.ref}", retry_after=1.0)
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(op, change, weight >= self._limits.bulk, alone, future))
        if self._leader is None:
            self._leader = asyncio.create_task(self._lead())
        return await future

    async def close(self) -> None:
        """Stop the leader; callers that wait get Unavailable."""
        leader = self._leader
        if leader is not None:
            leader.cancel()
            await asyncio.gather(leader, return_exceptions=True)

    async def _lead(self) -> None:
        group: list[_Request] = []
        try:
            while self._queue:
                group = self._next_group()
                try:
                    await self._commit(group)
                except Exception as e:  # noqa: BLE001 - the callers get it; the leader goes on with the next group
                    _fail(group, e)
        except BaseException:
            # However the leader ends, nobody may wait for ever.
            _fail([*group, *self._queue], Unavailable("the writer of this graph was stopped"))
            self._queue.clear()
            raise
        finally:
            self._leader = None

    def _next_group(self) -> list[_Request]:
        """What waits, in order, up to the bound; a large change goes alone, and one that asked to."""
        queue = self._queue
        group = [queue.popleft()]
        while queue and len(group) < self._limits.group and not (group[0].alone or queue[0].alone):
            group.append(queue.popleft())
        return group

    # ---- one group: rounds until it is decided

    async def _commit(self, group: list[_Request]) -> None:
        try:
            await self._rounds(group)
        finally:
            await self._intent.take_down()

    async def _rounds(self, group: list[_Request]) -> None:
        limits = self._limits
        lost = rounds = 0
        unknown: Ambiguous | None = None
        give_up = self._now() + limits.patience
        pause = held = limits.backoff
        while rounds < limits.rounds and self._now() < give_up:
            waiting = [r for r in group if not r.future.done()]
            if not waiting:
                return
            try:
                if lost >= limits.lost_before_intent:
                    await self._intent.put_up(self._intent_lives())
                if await self._round(waiting, forced=unknown is not None):
                    return
                held = await self._pause(held)  # another writer's intent is up
                continue
            except Changed:
                lost += 1
            except Ambiguous as e:
                unknown = e
            except Unavailable:
                if unknown is None:
                    raise
            rounds += 1
            pause = await self._pause(pause)
        if unknown is not None:
            raise Ambiguous(f"{unknown.message}; send the same operation again to learn what became of it")
        raise Conflict(f"graph {self._replica.ref} changed in every one of {rounds} rounds; nothing was written")

    async def _pause(self, most: float) -> float:
        """Full jitter; returns the next bound."""
        await asyncio.sleep(self._rng.random() * most)
        return min(most * 2, self._limits.backoff_cap)

    def _intent_lives(self) -> float:
        """Seconds: a bulk commit is laid out under its intent, at some 50,000 rows a second or less."""
        rows = self._weight if self._weight >= self._limits.bulk else 0
        return self._limits.intent + rows / 10_000

    async def _round(self, group: list[_Request], *, forced: bool) -> bool:
        """One try. False: somebody else's intent is up. Raises Changed or Ambiguous."""
        replica = self._replica
        if not replica.loaded:
            await replica.refresh(self._kv)
        watched = dict.fromkeys([self._ver, *(k for r in group for k in r.change.watch)])
        async with self._kv.watching(*watched) as watch:
            reads, known, horizon = await self._read(watch, group)
            if reads is None:
                return False
            transaction = await self._apply(group, reads, known, forced)
            if transaction is None:
                if any(r.change.reads or r.change.watch for r in group):
                    await watch.commit()  # refusals too must rest on what was true at one moment
            else:
                await self._write(watch, transaction, horizon)
        for request in group:
            request.settle()
        return True

    async def _read(
        self, watch: Watch, group: list[_Request]
    ) -> tuple[list[list[Any]] | None, list[float | None], int]:
        """Catch the replica up under the watch; replies of the changes' reads, known op ids, ops to trim."""
        replica, limits = self._replica, self._limits
        trim = self._now() - self._trimmed_at > _TRIM_EVERY
        cmds: list[Cmd] = [self._intent.read_cmd, ("ZMSCORE", self._ops, *(r.op.id for r in group))]
        for request in group:
            cmds += request.change.reads
        if trim:
            kept_from = max(0, int((self._now() - limits.ops_kept) * 1000))
            cmds.append(("XRANGE", keys.log(replica.ref), kept_from, "+", "COUNT", 1))
        sent_at = replica.graph.version
        ver, entries, *replies = await watch.read(*replica.catch_up_cmds(), *cmds)
        intent, known, *replies = replies
        if self._intent.is_foreign(intent):
            return None, [], 0
        while not replica.absorb(sent_at, ver, entries):
            if not replica.loaded:
                await replica.refresh(self._kv)
            sent_at = replica.graph.version
            ver, entries = await watch.read(*replica.catch_up_cmds())
        if replica.graph.version > int(ver or 0):
            raise Changed("the graph moved on")
        at = 0
        reads: list[list[Any]] = []
        for request in group:
            reads.append(replies[at : at + len(request.change.reads)])
            at += len(request.change.reads)
        horizon = 0
        if trim:
            self._trimmed_at = self._now()
            horizon = int(replies[-1][0][1][b"v"]) if replies[-1] else 0
        return reads, known, horizon

    # ---- applying the changes

    async def _apply(
        self, group: list[_Request], reads: list[list[Any]], known: list[float | None], forced: bool
    ) -> _Transaction | None:
        """Compute what to write; the graph is as before. None when nothing is to be written."""
        replica = self._replica
        graph, previous = replica.graph, replica.log_id
        if group[0].large:
            draft = graph.draft()
            return await asyncio.to_thread(self._compute, draft, previous, group, reads, known, forced)
        start = graph.mark()
        transaction = self._compute(graph, previous, group, reads, known, forced)
        graph.undo(start)
        return transaction

    def _compute(
        self,
        graph: DesiredGraph,
        previous: bytes,
        group: list[_Request],
        reads: list[list[Any]],
        known: list[float | None],
        forced: bool,
    ) -> _Transaction | None:
        """Apply the changes to ``graph`` and set the verdicts, which hold if the transaction does."""
        done = _apply_all(graph, group, reads, known)
        delta = graph.delta()
        aside = group[0].large
        whole = self._whole(graph, delta, copy=not aside)
        self._weight = len(delta.rows) + len(delta.gone)
        if not done:
            return None
        encoded = encode_delta(
            Delta({} if whole.rows is not None else delta.rows, {} if whole.gone is not None else delta.gone)
        )
        bumps = forced or bool(delta) or any(not extra.no_version for _, extra in done)
        version = graph.version + bumps
        for request, extra in done:
            request.verdict = Committed(version, True, extra.value)
        for request in group:
            if request.verdict is None:
                request.verdict = Committed(version, False)
        return _Transaction(
            graph.version,
            previous,
            version,
            graph if aside else None,
            delta,
            encoded,
            whole,
            [LogOp(r.op.id, r.op.actor, r.op.cause, extra.mutations) for r, extra in done],
            [r.op.id for r, _ in done],
            [extra for _, extra in done],
        )

    def _whole(self, graph: DesiredGraph, delta: Delta, *, copy: bool) -> Whole:
        """Hashes of which at least half changes, and very much, are replaced."""
        bulk = self._limits.bulk
        whole = Whole()
        if len(delta.rows) >= bulk and 2 * len(delta.rows) >= len(graph.rows):
            whole.rows = dict(graph.rows) if copy else graph.rows
        if len(delta.gone) >= bulk and 2 * len(delta.gone) >= len(graph.gone):
            whole.gone = {gone_field(k): t for k, t in graph.gone.items()}
        return whole

    # ---- writing

    async def _write(self, watch: Watch, t: _Transaction, horizon: int) -> None:
        replica, ref = self._replica, self._replica.ref
        stage = Stage(ref, f"{self._rng.getrandbits(64):016x}", t.whole)
        try:
            if t.whole:
                await stage.lay_out(self._kv, watch)
            cmds = self._graph_cmds(t, stage) if t.version > t.base else []
            cmds.append(("ZADD", self._ops, *(w for op in t.op_ids for w in (t.version, op))))
            if horizon:
                cmds.append(("ZREMRANGEBYSCORE", self._ops, "-inf", f"({horizon}"))
            for extra in t.extras:
                cmds += [("XADD", keys.out(ref), "*", "e", encode(event)) for event in extra.events]
                cmds += extra.cmds
            if self._intent.held:
                cmds.append(self._intent.drop_cmd)
            replies = await watch.commit(*cmds)
            self._intent.held = False
        except BaseException:
            if t.whole:
                await stage.discard(self._kv)
            raise
        if t.version > t.base:
            replica.advance(t.base, t.previous, t.delta, t.version, replies[0], t.draft)

    def _graph_cmds(self, t: _Transaction, stage: Stage) -> list[Cmd]:
        ref = self._replica.ref
        oldest = max(0, int((self._now() - self._limits.log_kept) * 1000))
        spelled_out = not t.whole and len(t.encoded) < self._limits.bulk
        fields = entry_words(t.version, t.previous, t.log_ops, t.encoded if spelled_out else None)
        cmds: list[Cmd] = [
            ("XADD", keys.log(ref), "MINID", "~", oldest, "*", *fields),
            ("SET", self._ver, t.version),
        ]
        for live, encoded in ((keys.node(ref), t.encoded.rows), (keys.gone(ref), t.encoded.gone)):
            cmds += stage.rename_cmds(live) or hash_cmds(live, encoded)
        return cmds


def _apply_all(
    graph: DesiredGraph, group: list[_Request], reads: list[list[Any]], known: list[float | None]
) -> list[tuple[_Request, Extra]]:
    """Apply every change that was not committed before; the others, and those that fail, get their verdict."""
    first: dict[str, _Request] = {}
    done: list[tuple[_Request, Extra]] = []
    for request, replies, version in zip(group, reads, known, strict=True):
        request.verdict = None
        if version is not None:
            request.verdict = Committed(int(version), False)
            continue
        if request.op.id in first and not isinstance(first[request.op.id].verdict, Exception):
            continue  # the same operation twice in one group: it shares the verdict of the first
        first[request.op.id] = request
        mark = graph.mark()
        try:
            done.append((request, request.change.apply(graph, replies)))
        except Exception as e:  # noqa: BLE001 - one caller's mistake must not fail the others
            graph.undo(mark)
            request.verdict = e
    return done


def _fail(group: Sequence[_Request], error: Exception) -> None:
    for request in group:
        if not request.future.done():
            request.future.set_exception(error)
