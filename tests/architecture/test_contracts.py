"""README.md names every subject, event and request that there is, and no other."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec
import pytest

from holdfast_bus import Bus
from holdfast_model.events import FaultType, GraphEvent, ItemEvent, NodeEvent
from holdfast_planner import requests
from holdfast_planner.app import build_app as build_planner
from holdfast_planner.settings import PlannerSettings
from holdfast_sdk import Domain
from holdfast_sdk.runtime import build as build_domain
from holdfast_work_items.app import build_app as build_work_items
from holdfast_work_items.settings import WorkItemsSettings

from .conftest import ROOT

README = (ROOT / "README.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in README.splitlines() if line.startswith("| ")
]
BODIES = {
    "apply": requests.Apply, "plan": requests.Apply, "delete": requests.Delete, "list": requests.List,
    "get": requests.Get, "import": requests.Import, "explain": requests.OfNode, "pause": requests.OfNode,
    "blueprint": requests.OfOwner, "faults": requests.Log, "log": requests.Log, "pref_set": requests.SetPreference,
}  # fmt: skip


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def row_of(subject: str) -> list[str]:
    (found,) = [row for row in ROWS if subject in row[0]]
    return found


def requests_of(prefix: str) -> set[str]:
    return {s.removeprefix(prefix) for s in _answered() if s.startswith(prefix)}


def _answered() -> list[str]:
    """Subjects of all requests that services answer."""
    heard: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        real = Bus.rpc

        def record(bus: Bus, subject: str, **more: object) -> object:
            heard.append(subject)
            return real(bus, subject, **more)  # type: ignore[arg-type]

        patch.setattr(Bus, "rpc", record)
        build_planner(PlannerSettings())
        build_work_items(WorkItemsSettings())
        build_domain(Domain("any"))
    return heard


@pytest.mark.parametrize(
    ("subject", "known"),
    [("graph", GraphEvent), ("node", NodeEvent), ("fault", FaultType), ("workitem", ItemEvent)],
)
def test_events_are_those_of_the_table(subject: str, known: type[StrEnum]) -> None:
    named = words(row_of(f"`{subject}.<tenant>.")[2])
    assert sorted(named) == sorted(event.value.lower() for event in known)


@pytest.mark.parametrize("service", ["rpc.planner.", "rpc.workitems."])
def test_the_requests_are_those_of_the_table(service: str) -> None:
    named: set[str] = set()
    for row in ROWS:
        first, *others = words(row[0]) or [""]
        if first.startswith(service):
            named |= {first.removeprefix(service), *others}
    assert named == requests_of(service)


def test_a_domain_answers_what_the_table_says() -> None:
    assert requests_of("rpc.domain.any.") | {"evaluate"} == {
        word.rpartition(".")[2] for word in words(row_of("`rpc.domain.<domain>")[0])
    }


@pytest.mark.parametrize("verb", BODIES)
def test_bodies_of_requests_name_fields_that_there_are_and_all_that_are_needed(verb: str) -> None:
    (row,) = [r for r in ROWS if verb in [w.removeprefix("rpc.planner.") for w in words(r[0])]]
    verbs = [w.removeprefix("rpc.planner.") for w in words(row[0])]
    bodies = words(row[1])
    body = bodies[min(verbs.index(verb), len(bodies) - 1)]
    named = [part.partition(":")[0].strip() for part in body.strip("{}").split(",")]

    known = {f.encode_name: f.required for f in msgspec.structs.fields(BODIES[verb])}
    assert {name.rstrip("?") for name in named} <= set(known)
    assert {name for name, required in known.items() if required} <= set(named), "needed, and not named"
