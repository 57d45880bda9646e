"""The reference of events, faults and codes is what the code says, and holds all that the code can say."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from holdfast_model.events import FaultType, GraphEvent, NodeEvent

from .conftest import ROOT, members

NAMED = {"emit": 1, "herald": 1, "step": 0, "Event": 2, "graph_event": 2, "node_event": 2, "_end": 0, "_event": 0}
"""Functions that tell an event, and which argument names it."""
REASONED = {"fault": 2, "failed": 3, "_failed": 2, "quarantine": 2, "Drifted": 0, "Unknown": 0, "Observation": 1,
            "StepOutcome": 4, "attest": 3}  # fmt: skip
"""Functions that give a reason, and which argument it is."""
KEYWORDS = {"reason", "error_reason"}
TEXTS = {
    "CloseIntent", "close", "close_all", "term", "_person", "tell_rejected", "Case", "Review", "WorkItemCommand",
    "dead_letter", "Fail", "Exhausted", "DeadLetter",
}  # fmt: skip
"""Functions whose ``reason`` is a sentence for people, not a code."""


def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "deploy" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def production() -> list[tuple[Path, ast.Module]]:
    """Every module of libraries and services but those for tests."""
    modules = [m for member in members() if member.package != "holdfast_testkit" for m in member.modules]
    return [(m, ast.parse(m.read_text())) for m in modules if not {"testing", "demo"} & set(m.parts)]


@cache
def attributes() -> Mapping[str, set[str]]:
    """Which attributes of each plain name the code uses."""
    found: dict[str, set[str]] = defaultdict(set)
    for _, tree in production():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found[node.value.id].add(node.attr)
    return found


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def texts(node: ast.expr | None, constants: Mapping[str, str]) -> Iterator[str]:
    """The literal texts that an expression may be, itself or by a constant of its module."""
    match node:
        case ast.Constant(value=str(value)) if value:
            yield value
        case ast.Name(id=name) if name in constants:
            yield constants[name]
        case ast.BoolOp(values=values):
            for one in values:
                yield from texts(one, constants)
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body, constants)
            yield from texts(other, constants)


def constants_of(tree: ast.Module) -> dict[str, str]:
    return {
        target.id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name) and isinstance(statement.value.value, str) and statement.value.value
    }


def literals(named: Mapping[str, int], keywords: set[str]) -> list[str]:
    """Where a text stands in the place of a code."""
    found = []
    for module, tree in production():
        constants = constants_of(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or called(node) in TEXTS:
                continue
            at = named.get(called(node))
            given = [node.args[at]] if at is not None and len(node.args) > at else []
            given += [k.value for k in node.keywords if k.arg in keywords]
            values = [text for one in given for text in texts(one, constants)]
            found += [f"{module.relative_to(ROOT)}:{node.lineno} {called(node)}: {value!r}" for value in values]
    return found


def test_the_reference_is_current() -> None:
    tool = tables()
    assert tool.TARGET.read_text() == tool.text(), "run `make tables` and commit the result"


def test_events_are_named_by_their_enumerations() -> None:
    found = literals(NAMED, set())
    assert not found, "\n".join(found)


def test_reasons_are_named_by_their_enumerations() -> None:
    found = literals(REASONED, KEYWORDS)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("source", [s for s in tables().SOURCES if s.name], ids=lambda s: s.name)
def test_everything_in_the_reference_can_happen(source: object) -> None:
    # Given the members of an enumeration
    tool = tables()
    name = source.name  # type: ignore[attr-defined]
    members_of = {row.member for row in tool.rows_of(source)}

    # Then the code uses each of them somewhere
    assert members_of - attributes()[name] == set()


def test_values_are_given_once() -> None:
    tool = tables()
    for source in tool.SOURCES:
        values = [row.value for row in tool.rows_of(source)]
        assert len(values) == len(set(values)), source.title


def test_the_readme_names_every_event_and_fault() -> None:
    readme = (ROOT / "README.md").read_text()

    def listed(subject: str) -> set[str]:
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| `{subject}.")]
        return set(re.findall(r"`([a-z_]+)`", line.split("|")[3]))

    assert listed("graph") == set(GraphEvent)
    assert listed("node") == set(NodeEvent)
    assert listed("fault") == {type.lower() for type in FaultType}
