"""Requests to a domain, and patience while versions of it change."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import msgspec

from holdfast_model.errors import Temporary, Unavailable

from . import subjects

_TRIES = 12
"""An instance of an older version leaves a request to a newer one, and then stands back; meanwhile it may be the one
that is asked again."""


class Asks(Protocol):
    """What requests go through; :class:`.bus.Bus` is one."""

    async def request(self, subject: str, body: object, *, timeout: float) -> bytes: ...


async def ask_domain(
    bus: Asks, domain: str, verb: str, request: Any, *, timeout: float, any_version: bool = False
) -> bytes:
    """The reply of a domain. Raises what it answers, or Unavailable when nobody does within ``timeout`` seconds.

    ``any_version``: rather an older version's answer than none, where the one that the request names does not come.
    """
    subject = subjects.rpc_domain(domain, verb)
    for _ in range(_TRIES):
        try:
            return await bus.request(subject, request, timeout=timeout)
        except Unavailable:
            raise
        except Temporary as error:
            if error.retry_after is None:
                raise
            await asyncio.sleep(min(error.retry_after, 1.0))
    if any_version:
        request = msgspec.structs.replace(request, domain_version="")
    return await bus.request(subject, request, timeout=timeout)
