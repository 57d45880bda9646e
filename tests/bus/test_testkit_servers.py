"""The servers that other tests stand on."""

from __future__ import annotations

import nats
from redis.asyncio import Redis

from holdfast_testkit.servers import NatsServer, RedisServer, Server


async def test_a_session_server_takes_streams_and_is_wiped(nats_server: Server, nats_url: str) -> None:
    client = await nats.connect(nats_url)
    js = client.jetstream()
    assert await js.streams_info() == []
    await js.add_stream(name="S", subjects=["s.>"])
    assert (await js.publish("s.a", b"x")).seq == 1
    await client.close()


async def test_a_wiped_server_is_empty(nats_url: str, redis_url: str) -> None:
    client = await nats.connect(nats_url)
    assert await client.jetstream().streams_info() == []
    await client.close()
    redis = Redis.from_url(redis_url)
    assert await redis.dbsize() == 0
    await redis.set("a", 1)
    await redis.aclose()


async def test_servers_keep_data_and_address_over_restart_and_kill(
    own_nats: NatsServer, own_redis: RedisServer
) -> None:
    client = await nats.connect(own_nats.url)
    await client.jetstream().add_stream(name="S", subjects=["s.>"])
    await client.close()
    redis = Redis.from_url(own_redis.url)
    await redis.set("a", 1)
    await redis.aclose()
    before = own_nats.url, own_redis.url

    await own_nats.restart()
    await own_redis.kill()
    await own_redis.start()

    assert (own_nats.url, own_redis.url) == before
    client = await nats.connect(own_nats.url)
    assert (await client.jetstream().stream_info("S")).config.name == "S"
    await client.close()
    redis = Redis.from_url(own_redis.url)
    assert await redis.get("a") == b"1"
    await redis.aclose()
