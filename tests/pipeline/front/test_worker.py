"""Children, on real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_model.errors import Temporary
from holdfast_pipeline.forking import MEMORY
from holdfast_pipeline.objects import WARM
from holdfast_pipeline.worker import Workers
from holdfast_testkit.waiting import STARTING, eventually

HERE = str(Path(__file__).parent)
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    async with Workers("child_jobs:run", limit=4, scratch=tmp_path, env={"PYTHONPATH": HERE}) as started:
        yield started


async def do(workers: Workers, seconds: float = STARTING, **task: Any) -> Any:
    return json.loads(await workers.run(json.dumps(task).encode(), seconds))


def processes() -> dict[int, tuple[int, str]]:
    """pid -> parent, state."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[int(stat.parent.name)] = (int(parent), state)
    return found


def mine() -> dict[int, str]:
    """pid -> state of this process's forkservers and their children; Z is a zombie. Fixtures' servers are not mine."""
    known = processes()
    found = {pid: state for pid, (parent, state) in known.items() if parent == os.getpid() and is_forkserver(pid)}
    for _ in range(2):
        found |= {pid: state for pid, (parent, state) in known.items() if parent in found}
    return found


def is_forkserver(pid: int) -> bool:
    """Whether its command says so; a zombie has no command any more, and counts."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return not command or b"holdfast_pipeline.forking" in command


def is_there(pid: int) -> bool:
    return processes().get(pid, (0, "Z"))[1] != "Z"


async def test_every_job_has_a_process_of_its_own(workers: Workers) -> None:
    first = await do(workers, do="echo", say="ä")
    second = await do(workers, do="echo")
    assert first["said"] == "ä"
    assert len({first["pid"], second["pid"], os.getpid()}) == 3


async def test_children_start_without_threads_of_their_parent(workers: Workers) -> None:
    assert await do(workers, do="threads") == ["python"]


async def test_what_a_job_sends_arrives_in_order_before_its_result(workers: Workers) -> None:
    sent: list[bytes] = []
    answer = await workers.run(b'{"do": "count", "to": 500}', STARTING, sent.append)
    assert answer == b"counted"
    assert sent == [str(i).encode() for i in range(500)]


async def test_polars_and_deltalake_work_in_a_fork(workers: Workers, tmp_path: Path) -> None:
    jobs = [
        workers.run(json.dumps({"do": "polars", "table": str(tmp_path / str(i))}).encode(), STARTING) for i in range(6)
    ]
    assert await asyncio.gather(*jobs) == [b"7"] * 6


async def test_large_requests_and_answers_pass(workers: Workers) -> None:
    text = "x" * 3_000_000
    assert (await do(workers, do="echo", say=text))["said"] == text


@pytest.mark.parametrize(
    ("task", "word"),
    [
        ({"do": "raise", "text": "no luck"}, "ValueError: no luck"),
        ({"do": "exit", "code": 7}, "exit code 7"),
        ({"do": "exit", "code": 0}, "exit code 0"),
        ({"do": "crash"}, "SIGSEGV"),
    ],
)
async def test_a_child_that_fails_is_a_temporary_failure(workers: Workers, task: dict[str, Any], word: str) -> None:
    with pytest.raises(Temporary, match=word):
        await workers.run(json.dumps(task).encode(), STARTING)
    assert (await do(workers, do="echo", say="next"))["said"] == "next"


async def test_a_child_is_the_first_to_go_when_memory_is_short(workers: Workers) -> None:
    assert await do(workers, do="first") == 1000


async def test_a_child_gets_no_more_memory_than_its_limit(tmp_path: Path) -> None:
    env = {"PYTHONPATH": HERE, MEMORY: "1024"}
    async with Workers("child_jobs:run", limit=1, scratch=tmp_path, env=env) as limited:
        assert await do(limited, do="spend", bytes=64 << 20) == 64 << 20
        with pytest.raises(Temporary, match="MemoryError"):
            await do(limited, do="spend", bytes=2 << 30)
        with pytest.raises(Temporary, match=r"SIGABRT \(out of memory\?\)"):
            await do(limited, do="pad", times=10, length=400 << 20)


@pytest.mark.parametrize("what", ["hang", "hang-in-native-code"])
async def test_a_child_is_ended_at_its_deadline(workers: Workers, what: str) -> None:
    await do(workers, do="echo")
    pids: list[bytes] = []
    for seconds in (0.5, 2.5, 12.5):  # more where the machine is too busy for it to begin within that
        with pytest.raises(Temporary, match=r"did not finish within [\d.]+ s"):
            await workers.run(json.dumps({"do": what}).encode(), seconds, pids.append)
        if pids:
            break
    assert not is_there(int(pids[0]))


async def test_cancelling_ends_the_child_before_it_returns(workers: Workers) -> None:
    pids: list[bytes] = []
    job = asyncio.create_task(workers.run(b'{"do": "hang"}', 600, pids.append))
    await eventually(lambda: pids)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert not is_there(int(pids[0]))


async def test_no_child_is_left_as_a_zombie(workers: Workers) -> None:
    await asyncio.gather(*(do(workers, do="echo") for _ in range(30)))
    await eventually(lambda: len(mine()) == 1)
    assert "Z" not in mine().values()


async def test_a_scratch_folder_is_removed_with_its_child(workers: Workers) -> None:
    sent: list[bytes] = []
    spills = await workers.run(b'{"do": "scratch"}', STARTING, sent.append)
    assert Path(sent[0].decode()).is_relative_to(Path(spills.decode()))
    await eventually(lambda: not Path(spills.decode()).exists())


async def test_a_forkserver_that_died_is_replaced(workers: Workers) -> None:
    parent = (await do(workers, do="echo"))["parent"]
    running = asyncio.create_task(workers.run(b'{"do": "hang"}', 600))
    await eventually(lambda: len(mine()) == 2)
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(Temporary):
        await running
    assert (await do(workers, do="echo"))["parent"] != parent


def test_a_child_whose_forkserver_ended_before_it_could_be_told_ends_by_itself() -> None:
    # Given a process that begins only when its parent is gone, which the kernel's signal is too late for
    code = (
        "import os, time\n"
        "from holdfast_pipeline.forking import _die_with\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    while os.getppid() == parent:\n"
        "        time.sleep(0.01)\n"
        "    _die_with(parent)\n"
        "    print('went on', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert "went on" not in done.stdout
    assert "ChildProcessError: the forkserver ended" in done.stderr


async def test_waiting_for_a_free_process_is_part_of_the_time(tmp_path: Path) -> None:
    async with Workers("child_jobs:run", limit=1, scratch=tmp_path, env={"PYTHONPATH": HERE}) as workers:
        busy = asyncio.create_task(workers.run(b'{"do": "hang"}', 600))
        await eventually(lambda: len(mine()) == 2)
        with pytest.raises(Temporary, match="no process became free"):
            await workers.run(b'{"do": "echo"}', 0.1)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)


async def test_closing_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    workers = Workers("child_jobs:run", limit=2, scratch=tmp_path, env={"PYTHONPATH": HERE})
    await workers.start()
    running = asyncio.create_task(workers.run(b'{"do": "hang"}', 600))
    await eventually(lambda: len(mine()) == 2)
    await workers.close()
    with pytest.raises(Temporary):
        await running
    assert mine() == {}
    assert await asyncio.to_thread(os.listdir, tmp_path) == []
    with pytest.raises(Temporary, match="stopping"):
        await workers.run(b'{"do": "echo"}', 1)


def test_children_end_with_a_service_that_is_killed(tmp_path: Path) -> None:
    # Given a service that is killed while a step runs
    code = (
        "import asyncio\n"
        "from holdfast_pipeline.worker import Workers\n"
        "async def main():\n"
        "    async with Workers('child_jobs:run', limit=1) as workers:\n"
        '        await workers.run(b\'{"do": "hang"}\', 600, lambda pid: print(pid.decode(), flush=True))\n'
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": HERE, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as service:
        assert service.stdout is not None
        child = int(service.stdout.readline())
        service.kill()
    # Then the child is gone, and so is what it left on disk
    limit = time.monotonic() + 60
    while is_there(child) or list(tmp_path.iterdir()):
        assert time.monotonic() < limit
        time.sleep(0.02)


async def test_what_children_need_is_loaded_once_before_them(tmp_path: Path) -> None:
    env = {"PYTHONPATH": HERE}
    async with Workers("child_jobs:run", limit=1, scratch=tmp_path, env=env, warm="child_jobs:warm") as workers:
        said = await workers.run(b'{"do": "echo"}', STARTING)
        assert json.loads(said)["parent"] == int(await workers.run(b'{"do": "warm"}', STARTING))


async def test_loading_the_client_of_object_stores_starts_no_thread(tmp_path: Path) -> None:
    env = {"PYTHONPATH": HERE}
    async with Workers("child_jobs:run", limit=1, scratch=tmp_path, env=env) as workers:
        before = json.loads(await workers.run(b'{"do": "threads"}', STARTING))
    async with Workers("child_jobs:run", limit=1, scratch=tmp_path, env=env, warm=WARM) as workers:
        assert json.loads(await workers.run(b'{"do": "threads"}', STARTING)) == before
