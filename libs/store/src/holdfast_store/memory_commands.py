"""The commands that the in-memory twin interprets: ``COMMANDS[name](store, words) -> reply``.

Replies have the shapes that :mod:`holdfast_store.kv` lists. A command that modifies nothing touches no
watcher.
"""

from __future__ import annotations

import fnmatch
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any
from zlib import crc32

from .memory_space import Refused, Store, Stream, ZSet

Words = list[bytes]
Command = Callable[[Store, Words], Any]


def _int(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        raise Refused("ERR value is not an integer or out of range") from None


def _bound(word: bytes) -> tuple[float, bool]:
    """A score bound and whether it is exclusive."""
    return (float(word[1:]), True) if word.startswith(b"(") else (float(word), False)


# ---- keys


def _del(s: Store, w: Words) -> int:
    return sum([s.get(k) is not None and s.drop(k) for k in w])


def _exists(s: Store, w: Words) -> int:
    return sum(s.get(k) is not None for k in w)


def _type(s: Store, w: Words) -> bytes:
    value = s.get(w[0])
    names = {bytes: b"string", dict: b"hash", set: b"set", ZSet: b"zset", Stream: b"stream", list: b"list"}
    return b"none" if value is None else names[type(value)]


def _rename(s: Store, w: Words) -> bool:
    value = s.get(w[0])
    if value is None:
        raise Refused("ERR no such key")
    expiry = s.expiry(w[0])
    s.drop(w[0])
    s.drop(w[1])
    s.put(w[1], value, expiry)
    return True


def _expire_in(unit: float, absolute: bool = False) -> Command:
    def expire(s: Store, w: Words) -> int:
        if s.get(w[0]) is None:
            return 0
        at = _int(w[1]) * unit + (0.0 if absolute else s.clock())
        s.set_expiry(w[0], at)
        s.touch(w[0])
        s.get(w[0])
        return 1

    return expire


def _persist(s: Store, w: Words) -> int:
    if s.get(w[0]) is None or s.expiry(w[0]) is None:
        return 0
    s.set_expiry(w[0], None)
    s.touch(w[0])
    return 1


def _left(unit: float) -> Command:
    def left(s: Store, w: Words) -> int:
        if s.get(w[0]) is None:
            return -2
        at = s.expiry(w[0])
        return -1 if at is None else round((at - s.clock()) / unit)

    return left


def _scan(s: Store, w: Words) -> tuple[int, list[bytes]]:
    options = dict(zip(w[1::2], w[2::2], strict=False))
    pattern = options.get(b"MATCH", b"*").decode()
    return 0, [k for k in s.live_keys() if fnmatch.fnmatchcase(k.decode(), pattern)]


def _flushall(s: Store, w: Words) -> bool:
    for key in s.live_keys():
        s.drop(key)
    return True


# ---- strings


def _set(s: Store, w: Words) -> bool | None:
    key, value, options = w[0], w[1], [o.upper() for o in w[2:]]
    old = s.get(key)
    if (b"NX" in options and old is not None) or (b"XX" in options and old is None):
        return None
    expiry = s.expiry(key) if b"KEEPTTL" in options else None
    for name, unit in ((b"PX", 0.001), (b"EX", 1.0)):
        if name in options:
            expiry = s.clock() + _int(options[options.index(name) + 1]) * unit
    s.put(key, value, expiry)
    return True


def _incrby(s: Store, w: Words) -> int:
    value = _int(s.typed(w[0], bytes) or b"0") + _int(w[1])
    s.put(w[0], b"%d" % value, s.expiry(w[0]))
    return value


def _getdel(s: Store, w: Words) -> bytes | None:
    value = s.typed(w[0], bytes)
    s.drop(w[0])
    return value


# ---- hashes


def _hset(s: Store, w: Words) -> int:
    if len(w) < 3 or len(w) % 2 == 0:
        raise Refused("ERR wrong number of arguments for 'hset' command")
    fields = s.made(w[0], dict)
    before = len(fields)
    fields.update(zip(w[1::2], w[2::2], strict=True))
    s.wrote(w[0])
    return len(fields) - before


def _hsetnx(s: Store, w: Words) -> int:
    fields = s.made(w[0], dict)
    if w[1] in fields:
        return 0
    fields[w[1]] = w[2]
    s.wrote(w[0])
    return 1


def _hdel(s: Store, w: Words) -> int:
    fields = s.typed(w[0], dict) or {}
    gone = sum(fields.pop(f, None) is not None for f in w[1:])
    s.wrote(w[0], bool(gone))
    return gone


def _hincrby(s: Store, w: Words) -> int:
    fields = s.made(w[0], dict)
    value = _int(fields.get(w[1], b"0")) + _int(w[2])
    fields[w[1]] = b"%d" % value
    s.wrote(w[0])
    return value


def _hash(s: Store, key: bytes) -> dict[bytes, bytes]:
    return s.typed(key, dict) or {}


def _hscan(s: Store, w: Words) -> tuple[int, dict[bytes, bytes]]:
    """In the order of a hash of the fields, so that what is there all the time is returned, whatever else moves."""
    fields = _hash(s, w[0])
    count = max(_int(w[w.index(b"COUNT") + 1]) if b"COUNT" in w else 10, len(fields) // 8)
    left = sorted((at, f) for f in fields if (at := crc32(f)) >= _int(w[1]))
    if len(left) <= count:
        return 0, {f: fields[f] for _, f in left}
    cursor = left[count][0]
    page = [f for at, f in left if at < cursor] or [f for at, f in left if at == cursor]
    rest = [at for at, f in left if at >= cursor and f not in page]
    return (rest[0] if rest else 0), {f: fields[f] for f in page}


# ---- sets


def _sadd(s: Store, w: Words) -> int:
    members = s.made(w[0], set)
    before = len(members)
    members.update(w[1:])
    s.wrote(w[0], len(members) > before)
    return len(members) - before


def _srem(s: Store, w: Words) -> int:
    members = s.typed(w[0], set) or set()
    before = len(members)
    members.difference_update(w[1:])
    s.wrote(w[0], len(members) < before)
    return before - len(members)


def _combine(how: Callable[..., set[bytes]]) -> Command:
    return lambda s, w: how(*(set(s.typed(k, set) or ()) for k in w))


# ---- sorted sets


def _zadd(s: Store, w: Words) -> int:
    options = set()
    i = 1
    while w[i].upper() in (b"NX", b"XX", b"GT", b"LT", b"CH"):
        options.add(w[i].upper())
        i += 1
    scores = s.made(w[0], ZSet)
    added = changed = 0
    for score, member in zip(w[i::2], w[i + 1 :: 2], strict=True):
        old, new = scores.get(member), float(score)
        if (old is None and b"XX" in options) or (old is not None and b"NX" in options):
            continue
        if old is not None and ((b"GT" in options and new <= old) or (b"LT" in options and new >= old)):
            continue
        added += old is None
        changed += old != new
        scores[member] = new
    s.wrote(w[0], changed > 0)
    if not scores:
        s.drop(w[0])
    return changed if b"CH" in options else added


def _zincrby(s: Store, w: Words) -> float:
    scores = s.made(w[0], ZSet)
    scores[w[2]] = scores.get(w[2], 0.0) + float(w[1])
    s.wrote(w[0])
    return scores[w[2]]


def _zrem(s: Store, w: Words) -> int:
    scores = s.typed(w[0], ZSet) or ZSet()
    gone = sum(scores.pop(m, None) is not None for m in w[1:])
    s.wrote(w[0], bool(gone))
    return gone


def _between(s: Store, key: bytes, low: bytes, high: bytes) -> list[tuple[bytes, float]]:
    (least, after), (most, before) = _bound(low), _bound(high)
    return [
        (m, score)
        for m, score in (s.typed(key, ZSet) or ZSet()).ordered()
        if (score > least if after else score >= least) and (score < most if before else score <= most)
    ]


def _options(found: list[tuple[bytes, float]], options: Words) -> list[Any]:
    upper = [o.upper() for o in options]
    if b"LIMIT" in upper:
        at = upper.index(b"LIMIT")
        start, count = _int(options[at + 1]), _int(options[at + 2])
        found = found[start:] if count < 0 else found[start : start + count]
    return found if b"WITHSCORES" in upper else [m for m, _ in found]


def _zrangebyscore(s: Store, w: Words) -> list[Any]:
    return _options(_between(s, w[0], w[1], w[2]), w[3:])


def _zrevrangebyscore(s: Store, w: Words) -> list[Any]:
    return _options(_between(s, w[0], w[2], w[1])[::-1], w[3:])


def _slice(length: int, start: bytes, stop: bytes) -> slice:
    first, last = _int(start), _int(stop)
    first = max(0, first + length if first < 0 else first)
    last = last + length if last < 0 else last
    return slice(first, max(last + 1, first))


def _zrange(s: Store, w: Words) -> list[Any]:
    upper = [o.upper() for o in w[3:]]
    if b"BYSCORE" in upper:
        if b"REV" in upper:
            return _options(_between(s, w[0], w[2], w[1])[::-1], w[3:])
        return _options(_between(s, w[0], w[1], w[2]), w[3:])
    found = (s.typed(w[0], ZSet) or ZSet()).ordered()
    if b"REV" in upper:
        found = found[::-1]
    return _options(found[_slice(len(found), w[1], w[2])], w[3:])


def _drop_members(s: Store, key: bytes, members: list[tuple[bytes, float]]) -> int:
    return _zrem(s, [key, *(m for m, _ in members)])


def _zremrangebyscore(s: Store, w: Words) -> int:
    return _drop_members(s, w[0], _between(s, w[0], w[1], w[2]))


def _zremrangebyrank(s: Store, w: Words) -> int:
    found = (s.typed(w[0], ZSet) or ZSet()).ordered()
    return _drop_members(s, w[0], found[_slice(len(found), w[1], w[2])])


# ---- streams


def _id(word: bytes, missing: int) -> tuple[int, int]:
    if word == b"-":
        return (0, 0)
    if word == b"+":
        return (1 << 64, 1 << 64)
    ms, _, seq = word.partition(b"-")
    return (_int(ms), _int(seq) if seq else missing)


def _id_text(at: tuple[int, int]) -> bytes:
    return b"%d-%d" % at


def _trim(stream: Stream, words: Words) -> int:
    """``MAXLEN|MINID [=|~] threshold``; the twin trims exactly where the server may stop at a block."""
    rest = [o for o in words[1:] if o not in (b"=", b"~")]
    if words[0].upper() == b"MAXLEN":
        keep = max(0, len(stream.entries) - _int(rest[0]))
    else:
        keep = bisect_left(stream.entries, _id(rest[0], 0), key=lambda e: e[0])
    del stream.entries[:keep]
    return keep


def _xadd(s: Store, w: Words) -> bytes | None:
    at = w.index(b"*") if b"*" in w[:7] else -1
    if at < 1:
        raise Refused("ERR only XADD with * is supported")
    options = [o for o in w[1:at] if o.upper() != b"NOMKSTREAM"]
    if len(options) < at - 1 and s.get(w[0]) is None:
        return None
    stream = s.made(w[0], Stream)
    ms = int(s.clock() * 1000)
    stream.last = (ms, 0) if ms > stream.last[0] else (stream.last[0], stream.last[1] + 1)
    stream.entries.append((stream.last, dict(zip(w[at + 1 :: 2], w[at + 2 :: 2], strict=True))))
    if options:
        _trim(stream, options)
    s.wrote(w[0])
    return _id_text(stream.last)


def _span(stream: Stream, low: bytes, high: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
    def where(e: tuple[tuple[int, int], dict[bytes, bytes]]) -> tuple[int, int]:
        return e[0]

    find_low = bisect_right if low.startswith(b"(") else bisect_left
    find_high = bisect_left if high.startswith(b"(") else bisect_right
    first = find_low(stream.entries, _id(low.removeprefix(b"("), 0), key=where)
    last = find_high(stream.entries, _id(high.removeprefix(b"("), (1 << 64) - 1), key=where)
    return [(_id_text(i), dict(f)) for i, f in stream.entries[first:last]]


def _xrange(s: Store, w: Words, reverse: bool = False) -> list[tuple[bytes, dict[bytes, bytes]]]:
    stream = s.typed(w[0], Stream)
    if stream is None:
        return []
    low, high = (w[2], w[1]) if reverse else (w[1], w[2])
    found = _span(stream, low, high)
    if reverse:
        found.reverse()
    return found[: _int(w[4])] if len(w) > 3 else found


def _xdel(s: Store, w: Words) -> int:
    stream = s.typed(w[0], Stream)
    if stream is None:
        return 0
    ids = {_id(i, 0) for i in w[1:]}
    before = len(stream.entries)
    stream.entries = [e for e in stream.entries if e[0] not in ids]
    s.wrote(w[0], len(stream.entries) < before)
    return before - len(stream.entries)


def _xtrim(s: Store, w: Words) -> int:
    stream = s.typed(w[0], Stream)
    gone = _trim(stream, w[1:]) if stream is not None else 0
    s.wrote(w[0], gone > 0)
    return gone


def _xlen(s: Store, w: Words) -> int:
    stream = s.typed(w[0], Stream)
    return len(stream.entries) if stream is not None else 0


COMMANDS: dict[str, Command] = {
    "PING": lambda s, w: True,
    "FLUSHALL": _flushall,
    "DEL": _del,
    "UNLINK": _del,
    "EXISTS": _exists,
    "TYPE": _type,
    "RENAME": _rename,
    "EXPIRE": _expire_in(1.0),
    "PEXPIRE": _expire_in(0.001),
    "EXPIREAT": _expire_in(1.0, absolute=True),
    "PEXPIREAT": _expire_in(0.001, absolute=True),
    "PERSIST": _persist,
    "TTL": _left(1.0),
    "PTTL": _left(0.001),
    "SCAN": _scan,
    "GET": lambda s, w: s.typed(w[0], bytes),
    "MGET": lambda s, w: [v if isinstance(v := s.get(k), bytes) else None for k in w],
    "SET": _set,
    "SETNX": lambda s, w: 1 if _set(s, [*w, b"NX"]) else 0,
    "GETDEL": _getdel,
    "INCR": lambda s, w: _incrby(s, [w[0], b"1"]),
    "DECR": lambda s, w: _incrby(s, [w[0], b"-1"]),
    "INCRBY": _incrby,
    "HSET": _hset,
    "HSETNX": _hsetnx,
    "HDEL": _hdel,
    "HINCRBY": _hincrby,
    "HGET": lambda s, w: _hash(s, w[0]).get(w[1]),
    "HMGET": lambda s, w: [_hash(s, w[0]).get(f) for f in w[1:]],
    "HGETALL": lambda s, w: dict(_hash(s, w[0])),
    "HKEYS": lambda s, w: list(_hash(s, w[0])),
    "HVALS": lambda s, w: list(_hash(s, w[0]).values()),
    "HLEN": lambda s, w: len(_hash(s, w[0])),
    "HEXISTS": lambda s, w: int(w[1] in _hash(s, w[0])),
    "HSCAN": _hscan,
    "SADD": _sadd,
    "SREM": _srem,
    "SMEMBERS": lambda s, w: set(s.typed(w[0], set) or ()),
    "SCARD": lambda s, w: len(s.typed(w[0], set) or ()),
    "SISMEMBER": lambda s, w: int(w[1] in (s.typed(w[0], set) or ())),
    "SSCAN": lambda s, w: (0, sorted(s.typed(w[0], set) or ())),
    "SINTER": _combine(set.intersection),
    "SUNION": _combine(set.union),
    "SDIFF": _combine(set.difference),
    "ZADD": _zadd,
    "ZINCRBY": _zincrby,
    "ZREM": _zrem,
    "ZSCORE": lambda s, w: (s.typed(w[0], ZSet) or ZSet()).get(w[1]),
    "ZMSCORE": lambda s, w: [(s.typed(w[0], ZSet) or ZSet()).get(m) for m in w[1:]],
    "ZCARD": lambda s, w: len(s.typed(w[0], ZSet) or ()),
    "ZCOUNT": lambda s, w: len(_between(s, w[0], w[1], w[2])),
    "ZRANGE": _zrange,
    "ZREVRANGE": lambda s, w: _zrange(s, [*w, b"REV"]),
    "ZRANGEBYSCORE": _zrangebyscore,
    "ZREVRANGEBYSCORE": _zrevrangebyscore,
    "ZREMRANGEBYSCORE": _zremrangebyscore,
    "ZREMRANGEBYRANK": _zremrangebyrank,
    "XADD": _xadd,
    "XRANGE": _xrange,
    "XREVRANGE": lambda s, w: _xrange(s, w, reverse=True),
    "XDEL": _xdel,
    "XTRIM": _xtrim,
    "XLEN": _xlen,
}
