"""The set-up job."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace

import pytest
from nats.aio.client import Client

from holdfast_bus import StreamSettings
from holdfast_bus.setup import ensure, ensure_durable, ensure_step_consumer
from holdfast_bus.streams import DURABLES, STREAMS, result_durable
from holdfast_model.errors import IllegalState, NotFound
from holdfast_testkit.servers import NatsServer, free_port
from holdfast_testkit.waiting import STARTING

from .conftest import SMALL


async def test_it_makes_what_is_missing_and_may_run_again(raw: Client) -> None:
    js = raw.jetstream()
    await ensure(js, SMALL)
    await asyncio.gather(ensure(js, SMALL), ensure(js, SMALL))

    streams = {info.config.name: info for info in await js.streams_info()}
    assert set(streams) == {stream.name for stream in STREAMS}
    steps = streams["STEPS"].config
    assert (steps.retention, steps.discard, steps.max_bytes) == ("workqueue", "new", SMALL.max_bytes)
    assert (streams["FAULTS"].config.discard, streams["FAULTS"].config.max_age) == ("new", 30 * 86400)
    assert streams["BLUEPRINTS"].config.duplicate_window == 600
    count = sum(streams[name].state.consumer_count for name in streams)
    assert count == len(DURABLES)
    result = await js.consumer_info("RESULTS", "result-63")
    assert (result.config.filter_subject, result.config.ack_wait) == ("result.63", 5)
    assert result.config.max_deliver == -1


async def test_it_brings_settings_up_to_date(raw: Client) -> None:
    js = raw.jetstream()
    await ensure_durable(js, replace(result_durable(1), ack_wait=40.0))
    await ensure(js, StreamSettings(max_bytes=1_000_000), durables=(result_durable(1),))
    assert (await js.consumer_info("RESULTS", "result-1")).config.ack_wait == 5
    assert (await js.stream_info("EVENTS")).config.max_bytes == 1_000_000


async def test_what_cannot_be_changed_is_an_error_that_names_it(raw: Client) -> None:
    js = raw.jetstream()
    await js.delete_stream("STATE")
    await js.add_stream(name="MINE", subjects=["state.acme.*"])
    with pytest.raises(IllegalState, match=r"STATE.*overlap") as caught:
        await ensure(js, SMALL, durables=())
    assert caught.value.hint
    await js.delete_stream("MINE")
    await js.add_stream(name="STATE", subjects=["state.>"])  # limits instead of a work queue
    with pytest.raises(IllegalState, match="STATE"):
        await ensure(js, SMALL, durables=())


async def test_step_consumers_are_made_for_any_type_and_need_their_stream(raw: Client) -> None:
    js = raw.jetstream()
    for _ in range(2):
        durable = await ensure_step_consumer(js, "My_domain-1", "a:b_c-d")
    config = (await js.consumer_info("STEPS", durable.name)).config
    assert (config.filter_subject, config.max_deliver) == ("step.My_domain-1.a:b_c-d", 20)
    assert (config.max_ack_pending, config.ack_wait) == (1000, 30)
    await js.delete_stream("STEPS")
    with pytest.raises(NotFound, match="STEPS"):
        await ensure_step_consumer(js, "a", "b")


async def job(**env: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "holdfast_bus.setup"),
        env=os.environ | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), STARTING)
    return process.returncode or 0, output.decode()


async def test_the_job_waits_for_its_server_and_says_what_is_there(own_nats: NatsServer) -> None:
    await own_nats.stop()
    running = asyncio.create_task(job(HOLDFAST_NATS_URL=own_nats.url, HOLDFAST_STREAM_MAX_BYTES="1000000"))
    await asyncio.sleep(1.5)
    await own_nats.start()
    code, output = await running
    assert code == 0, output
    assert "9 streams and 70 consumers" in output
    assert "Traceback" not in output


async def test_the_job_ends_with_a_reason_when_no_server_comes() -> None:
    code, output = await job(HOLDFAST_NATS_URL=f"nats://127.0.0.1:{free_port()}", HOLDFAST_STREAM_SETUP_TIMEOUT="1")
    assert code == 1
    assert "no set-up within 1 s" in output
    assert "Traceback" not in output
