"""Cases of ``explain``: each brings a node into one condition on real servers, and reads the whole answer.

A case is registered for the condition or remark that it shows, so that one without a case can be found.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from holdfast_cli.explaining import tell_node
from holdfast_cli.screen import Screen
from holdfast_model.reconciler.conditions import Condition, Remark
from holdfast_testkit.waiting import eventually

from .conftest import Stage

Case = Callable[[Stage], Awaitable[None]]
CASES: dict[Condition | Remark, list[Case]] = {}
STEP = "a step that provisions it"
REMOVAL = "a step that removes it"


def shows(*what: Condition | Remark) -> Callable[[Case], Case]:
    """Registers a case for what it shows."""

    def register(case: Case) -> Case:
        for one in what:
            CASES.setdefault(one, []).append(case)
        return case

    return register


def cases() -> list[Case]:
    """Every case once."""
    return list({case: None for found in CASES.values() for case in found})


def at(seconds: float) -> str:
    """A time as sentences have it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def told(stage: Stage, node: str, condition: Condition, graph: str = "g", **facts: Any) -> dict[str, Any]:
    """The explanation once the node is in that condition (and its main sentence has these fields)."""
    last: dict[str, Any] = {}

    async def is_so() -> bool:
        last.clear()
        last.update(await stage.explain(node, graph))
        because = last.get("because") or {}
        return last.get("condition") == condition and all(because.get(k) == v for k, v in facts.items())

    try:
        await eventually(is_so)
    except AssertionError as late:
        raise AssertionError(f"{node} is not {condition}: {last}") from late
    return last


def says(reply: dict[str, Any], summary: str, next: str) -> None:
    """The answer is exactly this, in its fields and as ``holdfast explain`` prints it."""
    assert (reply["summary"], reply["next"]) == (summary, next)
    texts = [w["text"] for w in reply["waits"]]
    assert reply["because"]["kind"] == reply["condition"]
    assert all(text in summary for text in texts)
    printed = io.StringIO()
    screen = Screen()
    screen.out = Console(file=printed, highlight=False, soft_wrap=True, width=400)
    tell_node(screen, reply)
    lines = printed.getvalue().splitlines()
    assert (lines[0], lines[-1]) == (summary, f"next: {next}")
    assert [line for line in lines if line.removeprefix("  - ") in texts] == [f"  - {text}" for text in texts]


def remark(reply: dict[str, Any], kind: Remark) -> dict[str, Any]:
    """What is said besides."""
    (found,) = [w for w in reply["waits"] if w["kind"] == kind]
    return dict(found)
