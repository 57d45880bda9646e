"""Provisioning in processes that are killed, without any clean-up, at a place or a time of the caller's choice.

Run as a script this is a server that forks one child per line on its standard input; :class:`Mortals` talks to it.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from base64 import b64decode, b64encode
from types import FrameType

import msgspec

from holdfast_model.errors import Temporary
from holdfast_pipeline.engine import Engine, EngineSettings, StageTask
from holdfast_pipeline.objects import warm

_PLACES = frozenset(
    f"holdfast_pipeline.{name}"
    for name in ("tables", "datafiles", "folders", "ingestion", "contracts", "validating", "recomputing", "sinks",
                 "targets", "maintenance", "objects", "object_targets", "object_files", "locations", "landed")
)  # fmt: skip
DONE, LATER, FAILED, KILLED = 0, 3, 4, -signal.SIGKILL


class Mortals:
    """A server of children. One step at a time."""

    def __init__(self, *, stores: bool = False) -> None:
        """``stores``: steps use object stores, so what these need is loaded once."""
        pipe = subprocess.PIPE
        argv = [sys.executable, __file__, *(["stores"] if stores else [])]
        self._server = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)

    def provision(
        self, settings: EngineSettings, task: StageTask, now: float, *, calls: int = 0, seconds: float = 0.0
    ) -> int:
        """Run a step in a child. It kills itself at its ``calls``-th call in what writes, or is killed after
        ``seconds`` (0: neither). Returns DONE, LATER (Temporary), FAILED or KILLED."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {
            "settings": b64encode(pickle.dumps(settings)).decode(), "task": msgspec.json.encode(task).decode(),
            "now": now, "calls": calls, "seconds": seconds,
        }  # fmt: skip
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()


def serve() -> None:
    """Fork a child per request, and answer with its exit code."""
    if "stores" in sys.argv:
        warm()
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_step(request))
        if request["seconds"]:
            time.sleep(request["seconds"])
            os.kill(child, signal.SIGKILL)  # of one that is done already it is no news
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _step(request: dict[str, object]) -> int:
    left = int(str(request["calls"]))

    def counted(frame: FrameType, event: str, arg: object) -> None:
        nonlocal left
        if event != "return" and frame.f_globals.get("__name__") in _PLACES:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    settings: EngineSettings = pickle.loads(b64decode(str(request["settings"])))
    task = msgspec.json.decode(str(request["task"]), type=StageTask)
    if left:
        sys.setprofile(counted)
    try:
        Engine(settings, lambda: float(str(request["now"]))).provision(task)
    except Temporary:
        return LATER
    except BaseException:  # noqa: BLE001 (a child must end here)
        sys.setprofile(None)
        traceback.print_exc()
        return FAILED
    return DONE


if __name__ == "__main__":
    serve()
