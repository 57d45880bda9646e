"""Requests and replies: how errors travel in them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable

import msgspec

from holdfast_model.errors import (
    ErrorBody,
    HoldfastError,
    Invalid,
    Permanent,
    Problem,
    Unavailable,
    from_body,
    to_body,
)

log = logging.getLogger("holdfast.bus")

_FIELD = re.compile(r"(?:unknown|missing required) field `([^`]*)`")

RpcHandler = Callable[[bytes], Awaitable[object]]

_encoder = msgspec.json.Encoder()


class ErrorReply(msgspec.Struct):
    """What a failed request is answered with."""

    error: ErrorBody


_errors = msgspec.json.Decoder(ErrorReply)


def encode(body: object) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return body if isinstance(body, bytes) else _encoder.encode(body)


async def answer(handler: RpcHandler, body: bytes, subject: str, max_payload: int) -> bytes:
    """Call the handler; whatever it raises becomes the reply.

    A body the handler cannot decode is the caller's mistake, so msgspec's errors are answered as ``invalid``.
    """
    try:
        reply = encode(await handler(body))
        if len(reply) > max_payload:
            raise Permanent(
                f"the reply has {len(reply)} bytes, more than the server takes ({max_payload})",
                hint="ask for less at once",
            )
        return reply
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at ")
        known = place.strip("`").removeprefix("$").partition("[...]")[0]  # which item of a list, nobody says
        pointer = known.replace("[", "/").replace("]", "").replace(".", "/")
        if named := _FIELD.search(text):
            pointer = f"{pointer}/{named.group(1)}"
        problem: HoldfastError = Invalid(f"the request is not valid: {text}", [Problem(pointer, text)])
    except msgspec.DecodeError as error:
        problem = Invalid(f"the request is not JSON: {error}", [Problem("", str(error))])
    except HoldfastError as error:
        problem = error
    except RecursionError:
        problem = Invalid("the request is nested too deeply", [Problem("", "arrays or objects nested too deeply")])
    except asyncio.CancelledError:
        return encode(ErrorReply(to_body(Unavailable("the service is stopping", retry_after=1.0))))
    except Exception as error:
        log.error("answering %s failed", subject, exc_info=error)
        return encode(ErrorReply(to_body(error)))
    return encode(ErrorReply(to_body(problem)))


def check_reply(body: bytes) -> bytes:
    """The reply's body. Raises the error it stands for, if it does."""
    if body[:64].lstrip()[:1] == b"{" and b'"error"' in body[:64]:
        try:
            reply = _errors.decode(body)
        except msgspec.MsgspecError:
            return body
        raise from_body(reply.error)
    return body
