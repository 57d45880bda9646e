"""Durations as people write them: ``5m``, ``1h30m``, ``250ms`` or ISO 8601 ``PT5M``. Always seconds inside."""

from __future__ import annotations

import re

from .errors import Invalid, Problem

_SHORT = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|d|h|m|s))+\Z")
_SHORT_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_ISO = re.compile(
    r"P(?:(?P<w>\d+(?:\.\d+)?)W)?(?:(?P<d>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+(?:\.\d+)?)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?\Z"
)
LONGEST = 36_525 * 86_400.0
"""A hundred years: what ends later than that is not meant, and its end may be a time that no calendar has."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_duration(value: str | int | float, path: str = "") -> float:
    """Seconds of ``5m``, ``PT5M`` or a plain number of seconds; raises Invalid with ``path`` otherwise."""
    seconds = _seconds(value)
    if seconds is not None and seconds <= LONGEST:
        return float(seconds)
    if seconds is None:
        text = f"{value!r} is not a duration; write it like 5m, 1h30m or PT5M"
    else:
        text = f"{str(value)[:40]} is too long for a duration; at most 100 years"
    raise Invalid(text, [Problem(path, text)])


def _seconds(value: str | int | float) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        text = value.strip()
        if _SHORT.match(text):
            return sum(float(n) * _UNITS[u] for n, u in _SHORT_PART.findall(text))
        iso = _ISO.match(text.upper())
        if iso and any(iso.groups()):
            return sum(float(v) * _UNITS[k] for k, v in iso.groupdict().items() if v)
    return None


def format_duration(seconds: float) -> str:
    """The ISO 8601 form, as preferences and manifests carry it: 300 -> ``PT5M``."""
    whole, out = seconds, "PT"
    for unit, size in (("H", 3600), ("M", 60)):
        count, whole = divmod(whole, size)
        out += f"{int(count)}{unit}" if count else ""
    rest = f"{whole:.3f}".rstrip("0").rstrip(".")
    return out + (f"{rest}S" if rest != "0" or out == "PT" else "")
