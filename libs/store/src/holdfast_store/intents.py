"""A short intent: a writer that keeps losing asks all others to wait.

Advisory: the compare-and-set alone decides who commits.
"""

from __future__ import annotations

from contextlib import suppress

from holdfast_model.errors import HoldfastError
from holdfast_model.names import GraphRef

from . import keys
from .kv import Cmd, Kv


class Intent:
    """The intent of one process on one graph. It expires by itself should its writer die."""

    def __init__(self, kv: Kv, ref: GraphRef, token: str) -> None:
        self._kv = kv
        self._key = keys.intent(ref)
        self._token = token
        self.held = False

    @property
    def read_cmd(self) -> Cmd:
        return ("GET", self._key)

    @property
    def drop_cmd(self) -> Cmd:
        """For the transaction that the others are waiting for."""
        return ("DEL", self._key)

    def is_foreign(self, found: bytes | None) -> bool:
        """Whether the reply of :attr:`read_cmd` says that somebody else asks us to wait."""
        return found is not None and found != self._token.encode()

    async def put_up(self, lives: float) -> None:
        """Put it up for ``lives`` seconds, or make ours last that long again; in vain while another's is up."""
        milliseconds = max(1, int(lives * 1000))
        put, found = await self._kv.run(("SET", self._key, self._token, "NX", "PX", milliseconds), ("GET", self._key))
        self.held = found == self._token.encode()
        if self.held and not put:
            await self._kv.run(("PEXPIRE", self._key, milliseconds))

    async def take_down(self) -> None:
        """Let the others go on. What cannot be taken down now expires."""
        if self.held:
            self.held = False
            with suppress(HoldfastError):
                await self._kv.run(self.drop_cmd)
