"""The port: what every adapter must do alike."""

from __future__ import annotations

import pytest

from holdfast_model.errors import Permanent
from holdfast_store.kv import Changed, Cmd, Kv, hset_chunks
from holdfast_testkit.waiting import eventually

from .conftest import Client


async def _is_gone(kv: Kv, key: str) -> bool:
    return (await kv.run(("EXISTS", key))) == [0]


async def test_replies_have_the_documented_shapes(kv: Kv) -> None:
    # Given one key of every type
    await kv.run(
        ("SET", "s", "x"),
        ("HSET", "h", "f", 1, "g", b"\xff"),
        ("SADD", "set", "a", "b"),
        ("ZADD", "z", 1, "one", 2.5, "two"),
    )
    # When they are read back / Then replies are bytes in plain containers
    assert await kv.run(
        ("GET", "s"), ("GET", "none"), ("MGET", "s", "none"), ("TYPE", "h"), ("TYPE", "none"),
        ("HGETALL", "h"), ("HGETALL", "none"), ("HMGET", "h", "f", "none"), ("HGET", "h", "none"),
        ("HSCAN", "h", 0, "COUNT", 10), ("HLEN", "h"), ("HEXISTS", "h", "f"),
        ("SMEMBERS", "set"), ("SCARD", "set"), ("SISMEMBER", "set", "a"), ("SISMEMBER", "set", "c"),
        ("ZSCORE", "z", "two"), ("ZSCORE", "z", "none"), ("ZMSCORE", "z", "one", "none"), ("ZCARD", "z"),
        ("ZRANGEBYSCORE", "z", "(1", "+inf"), ("ZRANGEBYSCORE", "z", "-inf", 1, "WITHSCORES"),
        ("ZRANGEBYSCORE", "z", "-inf", "+inf", "LIMIT", 0, 1), ("ZRANGE", "z", 0, -1), ("ZCOUNT", "z", 1, 2),
        ("XRANGE", "none", "-", "+"), ("XLEN", "none"), ("EXISTS", "s", "h", "none"),
        ("TTL", "s"), ("TTL", "none"),
    ) == [
        b"x", None, [b"x", None], b"hash", b"none",
        {b"f": b"1", b"g": b"\xff"}, {}, [b"1", None], None,
        (0, {b"f": b"1", b"g": b"\xff"}), 2, 1,
        {b"a", b"b"}, 2, 1, 0,
        2.5, None, [1.0, None], 2,
        [b"two"], [(b"one", 1.0)],
        [b"one"], [b"one", b"two"], 1,
        [], 0, 2, -1, -2,
    ]  # fmt: skip


async def test_writes_answer_what_they_did(kv: Kv) -> None:
    assert await kv.run(
        ("SET", "s", "1"), ("SET", "s", "2", "NX"), ("SET", "n", "1", "NX", "PX", 50_000),
        ("SET", "m", "1", "XX"),
        ("INCR", "s"), ("INCRBY", "s", 5), ("HINCRBY", "h", "f", 2), ("HSET", "h", "f", "1", "g", "2"),
        ("HSETNX", "h", "f", "9"), ("HDEL", "h", "f", "none"), ("SADD", "set", "a", "b", "a"),
        ("SREM", "set", "a", "none"), ("ZADD", "z", 1, "a"), ("ZADD", "z", 2, "a"),
        ("ZADD", "z", "NX", 3, "a", 1, "b"),
        ("ZREM", "z", "b", "none"), ("ZREMRANGEBYSCORE", "z", "-inf", "(2"), ("EXPIRE", "s", 100),
        ("EXPIRE", "none", 100), ("PERSIST", "s"), ("PERSIST", "s"), ("RENAME", "s", "t"),
        ("DEL", "t", "none"),
        ("TTL", "n"), ("DEL", "h", "set"), ("TYPE", "h"),
    ) == [
        True, None, True, None,
        2, 7, 2, 1,
        0, 1, 2,
        1, 1, 0, 1,
        1, 0, 1,
        0, 1, 0, True, 1,
        50, 2, b"none",
    ]  # fmt: skip


async def test_stream_entries_keep_their_order_and_can_be_deleted_and_trimmed(kv: Kv) -> None:
    # Given four entries
    ids = await kv.run(*[("XADD", "x", "*", "n", i) for i in range(4)])
    # Then they are in order, pages start after an id, and the newest can be had first
    assert [f[b"n"] for _, f in (await kv.run(("XRANGE", "x", "-", "+")))[0]] == [b"0", b"1", b"2", b"3"]
    after = b"(" + ids[1]
    assert [i for i, _ in (await kv.run(("XRANGE", "x", after, "+", "COUNT", 1)))[0]] == [ids[2]]
    assert [i for i, _ in (await kv.run(("XREVRANGE", "x", "+", "-", "COUNT", 1)))[0]] == [ids[3]]
    # When one is deleted and the rest trimmed
    assert await kv.run(("XDEL", "x", ids[0], ids[0]), ("XTRIM", "x", "MAXLEN", 1), ("XLEN", "x")) == [
        1,
        2,
        1,
    ]
    # Then new ids are still above all old ones
    newer = (await kv.run(("XDEL", "x", ids[3]), ("XADD", "x", "MINID", "~", 1, "*", "n", "4")))[1]
    assert tuple(map(int, newer.split(b"-"))) > tuple(map(int, ids[3].split(b"-")))


async def test_a_renamed_key_takes_its_expiry_along(kv: Kv) -> None:
    # Given
    await kv.run(("SET", "a", "1"), ("SET", "b", "2", "EX", 100))
    # When
    await kv.run(("RENAME", "b", "a"))
    # Then
    assert await kv.run(("GET", "a"), ("TTL", "a"), ("EXISTS", "b")) == [b"2", 100, 0]


async def test_a_short_lived_key_expires(kv: Kv) -> None:
    # Given
    await kv.run(("SET", "a", "1", "PX", 20))
    # When / Then
    await eventually(lambda: _is_gone(kv, "a"))


async def test_a_refused_command_is_permanent_and_names_itself(kv: Kv) -> None:
    await kv.run(("SET", "a", "1"))
    with pytest.raises(Permanent, match="HSET a"):
        await kv.run(("HSET", "a", "f", "1"))
    with pytest.raises(Permanent, match="NOSUCH"):
        await kv.run(("NOSUCH", "a"))


async def test_a_refused_command_in_a_transaction_does_not_roll_back_the_others(kv: Kv) -> None:
    # Given a key of another type
    await kv.run(("SET", "a", "1"))
    # When
    with pytest.raises(Permanent):
        async with kv.watching("a") as watch:
            await watch.commit(("SET", "b", "1"), ("HSET", "a", "f", "1"), ("SET", "c", "1"))
    # Then
    assert await kv.run(("MGET", "b", "c")) == [[b"1", b"1"]]


async def test_an_unknown_command_discards_the_whole_transaction(kv: Kv) -> None:
    with pytest.raises(Permanent, match="NOSUCH"):
        async with kv.watching() as watch:
            await watch.commit(("SET", "b", "1"), ("NOSUCH", "a"))
    assert await kv.run(("EXISTS", "b")) == [0]


Writes = tuple[Cmd, ...]

WRITES: dict[str, Writes] = {
    "another value": (("SET", "w", "2"),),
    "the same value": (("SET", "w", "1"),),
    "a deletion": (("DEL", "w"),),
    "a deletion and the old value again": (("DEL", "w"), ("SET", "w", "1")),
    "an expiry time": (("EXPIRE", "w", 100),),
    "a rename to it": (("SET", "v", "1"), ("RENAME", "v", "w")),
    "a rename of it": (("RENAME", "w", "v"),),
}


@pytest.mark.parametrize("writes", WRITES.values(), ids=WRITES.keys())
async def test_any_write_to_a_watched_key_aborts(client: Client, writes: Writes) -> None:
    # Given a watched key
    one, two = client(), client()
    await one.run(("SET", "w", "1"))
    async with one.watching("w") as watch:
        await watch.read(("GET", "w"))
        # When somebody else writes it
        await two.run(*writes)
        # Then
        with pytest.raises(Changed):
            await watch.commit(("SET", "out", "1"))
    assert await one.run(("EXISTS", "out")) == [0]


HARMLESS: dict[str, Writes] = {
    "a read": (("GET", "w"), ("TTL", "w")),
    "a refused SET": (("SET", "w", "2", "NX"),),
    "another key": (("SET", "v", "1"),),
    "a deletion of nothing": (
        ("HDEL", "h", "none"),
        ("SREM", "s", "none"),
        ("ZREM", "z", "none"),
        ("DEL", "none"),
    ),
    "an addition of what is there": (("SADD", "s", "a"), ("ZADD", "z", 1, "a")),
}


@pytest.mark.parametrize("writes", HARMLESS.values(), ids=HARMLESS.keys())
async def test_what_changes_nothing_aborts_nothing(client: Client, writes: tuple[tuple[str, ...], ...]) -> None:
    one, two = client(), client()
    await one.run(("SET", "w", "1"), ("HSET", "h", "f", "1"), ("SADD", "s", "a"), ("ZADD", "z", 1, "a"))
    async with one.watching("w", "h", "s", "z", "none") as watch:
        await watch.read()
        await two.run(*writes)
        assert await watch.commit(("SET", "out", "1")) == [True]


async def test_fields_of_one_hash_conflict(client: Client) -> None:
    one, two = client(), client()
    await one.run(("HSET", "h", "a", "1"))
    async with one.watching("h") as watch:
        await watch.read()
        await two.run(("HSET", "h", "b", "1"))
        with pytest.raises(Changed):
            await watch.commit(("HSET", "h", "a", "2"))


async def test_an_expired_key_aborts_its_watcher(kv: Kv) -> None:
    # Given a watched key that lives for a moment
    await kv.run(("SET", "w", "1", "PX", 2000))
    async with kv.watching("w") as watch:
        assert await watch.read(("GET", "w")) == [b"1"]
        # When it expires
        await eventually(lambda: _is_gone(kv, "w"))
        # Then
        with pytest.raises(Changed):
            await watch.commit(("SET", "out", "1"))


async def test_further_keys_can_be_watched_later(client: Client) -> None:
    # Given a transaction that watches a second key once it has been written
    one, two = client(), client()
    async with one.watching("w") as watch:
        await watch.read()
        await two.run(("SET", "v", "1"))
        assert await watch.read(("WATCH", "v"), ("EXISTS", "v")) == [True, 1]
        # When that one moves
        await two.run(("DEL", "v"))
        # Then
        with pytest.raises(Changed):
            await watch.commit(("SET", "out", "1"))


async def test_a_key_that_is_missing_at_watch_and_at_commit_aborts_nothing(kv: Kv) -> None:
    async with kv.watching("none") as watch:
        await watch.read()
        assert await watch.commit() == []


async def test_leaving_the_block_gives_the_watch_up(client: Client) -> None:
    # Given a watch that was not committed
    one, two = client(), client()
    async with one.watching("w") as watch:
        await watch.read()
    await two.run(("SET", "w", "1"))
    # When the same connection serves the next transaction / Then the old watch does not abort it
    async with one.watching("v") as watch:
        assert await watch.commit(("SET", "out", "1")) == [True]


async def test_an_empty_commit_confirms_what_was_read(client: Client) -> None:
    one, two = client(), client()
    async with one.watching("w") as watch:
        await watch.read()
        await two.run(("SET", "w", "1"))
        with pytest.raises(Changed):
            await watch.commit()


async def test_a_transaction_commits_once(kv: Kv) -> None:
    async with kv.watching("w") as watch:
        await watch.commit(("SET", "out", "1"))
        with pytest.raises(Permanent):
            await watch.commit(("SET", "out", "2"))


async def test_two_transactions_of_one_client_do_not_share_a_connection(kv: Kv) -> None:
    async with kv.watching("w") as first, kv.watching("w") as second:
        await first.read()
        await second.read()
        await second.commit(("SET", "w", "2"))
        with pytest.raises(Changed):
            await first.commit(("SET", "w", "1"))


def test_many_fields_go_in_several_commands() -> None:
    cmds = hset_chunks("h", ((str(i), i) for i in range(5)), size=2)
    assert cmds == [("HSET", "h", "0", 0, "1", 1), ("HSET", "h", "2", 2, "3", 3), ("HSET", "h", "4", 4)]
    assert hset_chunks("h", []) == []
