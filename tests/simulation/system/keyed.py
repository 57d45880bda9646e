"""Which thing a spec means: the key in it, whatever its node is called."""

from __future__ import annotations

import msgspec

KEY = "key"
"""Where a spec says which thing it means."""


def key_in(spec: msgspec.Raw | bytes, node: str) -> str:
    """The key of the thing that is meant by a spec; one without a key means the thing with the node's name."""
    return str(msgspec.json.decode(spec).get(KEY, node))


def lane(key: str) -> str:
    """What a thing stays when it becomes one of another type."""
    return key.partition(".")[0]
