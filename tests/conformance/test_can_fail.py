"""Every expectation of the vectors can fail, and what a vector asks for that nobody knows fails by its name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from .adapters import adapter_for
from .comparing import mismatches, unexpected_errors
from .deviations import read_rules
from .reading import Reading
from .running import Adapter, Run, Verdict, _outcome, judge
from .test_vectors import CASES
from .vectors import Case

RULES = read_rules()
MORE = "+"
UNKNOWABLE = frozenset({"absent_types", "unordered_pairs", "order_constraints"})
"""What holds of made-up names too: they are absent, nothing is promised of them, a pair with a third word is a pair."""


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every leaf of an expectation, and the end of every list: something more may be expected there."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from places(item, (*path, i))
        yield (*path, MORE)
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif path:
        yield path


def spoilt(then: Any, path: tuple[str | int, ...]) -> Any:
    """The expectation with something else at one place."""
    out = copy.deepcopy(then)
    part = out
    for key in path[:-1]:
        part = part[key]
    if path[-1] == MORE:
        part.append("zzz")
    else:
        part[path[-1]] = other(part[path[-1]])
    return out


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}zzz" if isinstance(value, str) else "zzz"


def may_hold(then: Any, path: tuple[str | int, ...]) -> bool:
    """Whether what is expected after the change may be true as well: nothing was ever counted of a made-up name."""
    if UNKNOWABLE.intersection(path):
        return True
    if "counts" not in path or path[-1] == MORE:
        return False
    row = then
    for key in path[: path.index("counts") + 2]:
        row = row[key]
    return row[3] == 0 and path[-1] != 3


def differs(run: Run, then: Any) -> bool:
    try:
        return bool([*mismatches(run.actual, then), *unexpected_errors(run.actual, then)])
    except (ValueError, TypeError):  # no such expectation can be: it is refused
        return True


def fails(case: Case, then: Any, adapter: Adapter) -> bool:
    try:
        return differs(_outcome(replace(case, then=then), adapter), then)
    except (ValueError, TypeError):
        return True


PASSING = [c for c in CASES if adapter_for(c) is not None]


@pytest.mark.parametrize("file", sorted({c.file for c in PASSING}) or [pytest.param("", marks=pytest.mark.skip)])
def test_another_expectation_fails(file: str) -> None:
    """An adapter that looks at what is expected (to learn what is asked) runs again for every change of it."""
    unnoticed = []
    for case in (c for c in PASSING if c.file == file):
        adapter = adapter_for(case)
        assert adapter is not None
        asked = Reading(case.then)
        run = _outcome(replace(case, then=asked), adapter)
        if differs(run, case.then):  # it follows a decision: deviations.toml says where
            continue
        for path in places(case.then):
            then = spoilt(case.then, path)
            again = asked.seen - {"steps"} or "counts" in path
            noticed = fails(case, then, adapter) if again else differs(run, then)
            if not noticed and not may_hold(case.then, path):
                unnoticed.append(f"{case.id}: {'.'.join(map(str, path))}")
    assert not unnoticed


GRAPH = Case("graph", "made-up", "normative", {"graph": {"nodes": ["a"], "edges": []}}, [], {"node_ids": ["a"]})
WITH_NODE = {"op": "with_node", "node": "a"}


def test_an_unknown_operation_fails_by_its_name() -> None:
    judged = judge(replace(GRAPH, when=[{"op": "with_wings"}]), adapter_for(GRAPH), RULES)
    assert judged.verdict is Verdict.FAILED
    assert "unknown operation 'with_wings'" in judged.why


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"given": {**GRAPH.given, "weather": "fair"}}, "given.weather"),
        ({"given": {"graph": {"nodes": [{"id": "a", "colour": "red"}], "edges": []}}}, "given.graph.nodes.0.colour"),
        ({"when": [{**WITH_NODE, "twice": True}]}, "when.0.twice"),
    ],
)
def test_a_field_that_nobody_knows_fails_by_its_name(change: dict[str, Any], place: str) -> None:
    judged = judge(replace(GRAPH, **change), adapter_for(GRAPH), RULES)
    assert judged.verdict is Verdict.FAILED
    assert f"{place}: nobody knows this field" in judged.why


@pytest.mark.parametrize("expected", [{"node_ids": ["a"], "shine": "bright"}, {"node_ids": ["a"], "shine": None}])
def test_an_expectation_that_nobody_knows_fails_by_its_name(expected: dict[str, Any]) -> None:
    judged = judge(replace(GRAPH, then=expected), adapter_for(GRAPH), RULES)
    assert judged.verdict is Verdict.FAILED
    assert "shine" in judged.why


def test_an_error_of_which_the_vector_says_nothing_fails() -> None:
    loop = {"op": "with_edge", "edge": ["a", "a"]}
    judged = judge(replace(GRAPH, when=[loop], then={}), adapter_for(GRAPH), RULES)
    assert judged.verdict is Verdict.FAILED
    assert "CYCLE" in judged.why


@pytest.mark.parametrize(
    ("file", "status", "verdict"),
    [
        ("graph", "normative", Verdict.FAILED),
        ("routing", "unverified", Verdict.QUIRK),
        ("cbr", "normative", Verdict.PENDING),
    ],
)
def test_a_kind_that_nobody_runs_fails_where_others_are_run(file: str, status: str, verdict: Verdict) -> None:
    case = replace(GRAPH, file=file, status=status, given={**GRAPH.given, "kind": "weaving"})
    judged = judge(case, adapter_for(case), RULES)
    assert judged.verdict is verdict
    assert "'weaving'" in judged.why


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ({"statuses": {"a": "PRESENT", "b": "ABSENT"}}, {"statuses": {"a": "PRESENT"}}),
        ({"groups": {"PT1S": ["a"]}}, {"groups": {}}),
        ({"nodes": {"a": {"type": "t"}}}, {"nodes": {}}),
        ({"order": ["a"]}, {"before": [["a", "b", "c"]]}),
    ],
)
def test_more_than_an_exact_expectation_says_is_a_mismatch(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert differs(Run(actual), expected)
