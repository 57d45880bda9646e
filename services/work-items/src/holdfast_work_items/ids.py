"""Ids of WorkItems: 20 characters that sort by time, and that people can read out and type."""

from __future__ import annotations

import secrets
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letters that look like digits."""
_RANDOM_BITS = 50


def new_id(now: datetime) -> str:
    """10 characters of milliseconds since the epoch, 10 random ones."""
    number = (int(now.timestamp() * 1000) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(95, -1, -5))


def well_formed(id: str) -> bool:
    """Whether this can be an id at all; anything else must not become part of a key."""
    return 8 <= len(id) <= 40 and id.isascii() and id.isalnum()
