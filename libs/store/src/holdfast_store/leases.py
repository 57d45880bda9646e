"""Who plans which partition: leases with epochs, and the planners that are alive.

A lease is a key that expires; its epoch never does and rises with every new owner. The lease only spreads the
work: what keeps two owners apart is the epoch, which every write of the reconciler checks. So ownership depends on
no clock; only the number of live planners, from which the fair share follows, does.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast_model.names import PARTITIONS

from . import keys
from .kv import Ambiguous, Changed, Kv

TTL = 5.0
"""Seconds until a lease that is not renewed is free; renew at a third of it."""

_ROUNDS = 4


class Lease(msgspec.Struct, frozen=True):
    """``epoch`` fences the graphs of ``partition``; ``holder`` is the value of the owner key."""

    partition: int
    epoch: int
    holder: str


def share(live: int) -> int:
    """How many partitions one of ``live`` planners holds at most."""
    return -(-PARTITIONS // max(live, 1))


class Leases:
    """Leases of one planner. ``instance`` is unique to its process; ``now`` gives seconds since the epoch."""

    def __init__(self, kv: Kv, instance: str, now: Callable[[], float], ttl: float = TTL) -> None:
        self._kv = kv
        self._instance = instance
        self._now = now
        self._ttl = ttl

    async def announce(self) -> int:
        """Say that this planner lives; returns how many do. Call it at every renewal."""
        now = self._now()
        *_, live = await self._kv.run(
            ("ZADD", keys.PLANNERS, now, self._instance),
            ("ZREMRANGEBYSCORE", keys.PLANNERS, "-inf", now - 3 * self._ttl),
            ("ZCARD", keys.PLANNERS),
        )
        return int(live)

    async def leave(self) -> None:
        """This planner stops; the others may take a larger share at once."""
        await self._kv.run(("ZREM", keys.PLANNERS, self._instance))

    async def owners(self) -> dict[int, str]:
        """Partition -> instance, for those that are owned now."""
        replies = await self._kv.run(*[("GET", keys.owner(p)) for p in range(PARTITIONS)])
        return {p: _instance(v) for p, v in enumerate(replies) if v is not None}

    async def acquire(self, partition: int) -> Lease | None:
        """Take a free partition and raise its epoch; None when somebody has it."""
        owner, word = keys.owner(partition), keys.partition_epoch(partition)
        for _ in range(_ROUNDS):
            async with self._kv.watching(owner, word) as watch:
                held, epoch = await watch.read(("GET", owner), ("GET", word))
                if held is not None:
                    return self._lease(partition, held) if _instance(held) == self._instance else None
                lease = self._lease(partition, f"{int(epoch or 0) + 1} {self._instance}".encode())
                try:
                    await watch.commit(
                        ("SET", owner, lease.holder, "PX", self._milliseconds), ("SET", word, lease.epoch)
                    )
                except (Changed, Ambiguous):
                    continue  # read again: either somebody has it, or our own write was the one that happened
                return lease
        return None

    async def renew(self, lease: Lease) -> bool:
        """Hold on to it for another TTL. False: it is lost, stop at once.

        A lease that has expired but that nobody took is ours still: its epoch is the newest.
        """
        owner, word = keys.owner(lease.partition), keys.partition_epoch(lease.partition)
        for _ in range(_ROUNDS):
            async with self._kv.watching(owner, word) as watch:
                held, epoch = await watch.read(("GET", owner), ("GET", word))
                if int(epoch or 0) != lease.epoch or (held is not None and held != lease.holder.encode()):
                    return False
                try:
                    await watch.commit(("SET", owner, lease.holder, "PX", self._milliseconds))
                except (Changed, Ambiguous):
                    continue
                return True
        return False

    async def release(self, lease: Lease) -> None:
        """Give it up, so that another planner need not wait for the expiry. Safe to repeat."""
        owner = keys.owner(lease.partition)
        for _ in range(_ROUNDS):
            async with self._kv.watching(owner) as watch:
                if await watch.read(("GET", owner)) != [lease.holder.encode()]:
                    return
                try:
                    await watch.commit(("DEL", owner))
                except (Changed, Ambiguous):
                    continue
                return

    @property
    def _milliseconds(self) -> int:
        return int(self._ttl * 1000)

    @staticmethod
    def _lease(partition: int, holder: bytes) -> Lease:
        text = holder.decode()
        return Lease(partition, int(text.partition(" ")[0]), text)


def _instance(holder: bytes) -> str:
    return holder.decode().partition(" ")[2]
