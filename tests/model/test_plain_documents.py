"""Documents that their format allows and nobody can use: each is refused, with its place."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_model.blueprint import declarations, parse_blueprint
from holdfast_model.durations import parse_duration
from holdfast_model.errors import Invalid
from holdfast_model.messages import NodeDeclaration
from holdfast_model.plain import MAX_DEPTH, Unreadable, plain, repeated_key
from holdfast_model.staging import parse_deadline


def refused(body: bytes) -> tuple[str, str]:
    """Place and message of the first problem."""
    with pytest.raises(Invalid) as caught:
        parse_blueprint(body)
    problem = caught.value.problems[0]
    return problem.path, problem.message


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def test_depth_is_limited_where_every_reader_still_follows() -> None:
    assert plain(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(Unreadable, match=f"more than {MAX_DEPTH} levels"):
            plain(nested(levels))


def test_brackets_in_texts_are_not_levels() -> None:
    text = json.dumps({"a": "[{" * 500, "b": [{"c": '\\"[['}] * 500}).encode()
    assert plain(text) == json.loads(text)


def test_a_document_too_deep_to_be_read_is_refused_where_it_gets_too_deep() -> None:
    place, message = refused(b'{"nodes": [],\n "spec": ["[[", ' + b"[" * 100_000 + b"]" * 100_000 + b"]}")
    assert (place, "levels deep" in message) == (f"line 2, column {16 + MAX_DEPTH - 1}", True)


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        (b'{"a~/b": [1, {"c": 1e999}]}', "/a~0~1b/1/c"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "/a"),
        (b'{"a": ' + nested(MAX_DEPTH) + b"}", ""),
    ],
    ids=["beyond a float", "endless integer", "too deep"],
)
def test_a_spec_that_cannot_be_read_is_refused_with_its_place(spec: bytes, place: str) -> None:
    nodes = [NodeDeclaration("a", "thing", msgspec.Raw(b"{}")), NodeDeclaration("b", "thing", msgspec.Raw(spec))]
    with pytest.raises(Invalid) as caught:
        declarations(nodes)
    assert [p.path for p in caught.value.problems] == [f"/nodes/1/spec{place}"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"nodes": [], "nodes": []}', "/nodes"),
        (b'{"nodes": [{"id": "a", "type": "t", "spec": {"x": [{}, {"a/b": 1, "a/b": 1}]}}]}', "/nodes/0/spec/x/1/a~1b"),
        (b"nodes: []\nnodes: []\n", "line 2, column 1"),
        (b"nodes:\n- {id: a, type: t, id: b}\n", "line 2, column 20"),
    ],
)
def test_a_key_that_stands_twice_is_refused_for_one_value_would_be_lost(body: bytes, place: str) -> None:
    path, message = refused(body)
    assert (path, "stands twice" in message) == (place, True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(json_values)
def test_what_says_everything_once_repeats_nothing(value: Any) -> None:
    assert repeated_key(json.dumps(value).encode()) is None
    assert repeated_key(b'{"a": ' + b"9" * 5_000 + b"}") is None


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        ("x: .nan", 6, ".nan is no number"),
        ("x: -.inf", 6, "-.inf is no number"),
        ("x: 1.0e+999", 6, "1.0e+999 is no number"),
        ("yes: 1", 3, "read as a bool"),
        ("~: 1", 3, "read as a null"),
        ("? [a]\n  : 1", 5, "a key is a text"),
        ("x: !!set {a, b}", 6, "!!set is nothing"),
        ("x: !!binary aGk=", 6, "!!binary is nothing"),
        ("x: " + "[" * 400_000, 6 + MAX_DEPTH - 2, "levels deep"),
    ],
)
def test_what_yaml_can_say_and_json_cannot_is_refused(line: str, column: int, says: str) -> None:
    path, message = refused(f"nodes: []\nspec:\n  {line}\n".encode())
    assert (path, says in message) == (f"line 3, column {column}", True), (path, message)


def test_ordinary_yaml_is_read_as_it_was_meant() -> None:
    body = b"domain: d\nspec:\n  1: 2020-01-31\n  on-call: no\n  x: {y: [1.5, null, 'yes']}\n"
    read = json.loads(bytes(parse_blueprint(body).spec))
    assert read == {"1": "2020-01-31", "on-call": False, "x": {"y": [1.5, None, "yes"]}}


def test_selecting_nothing_is_refused_for_it_would_declare_everything() -> None:
    assert refused(b'{"nodes": [], "only": []}')[0] == "/only"
    assert parse_blueprint(b'{"nodes": []}').only is None


@pytest.mark.parametrize("value", ["9" * 400 + "s", "99999999999h", 10**400, 1e300, "P999999W"])
def test_a_duration_of_centuries_is_refused(value: str | float) -> None:
    with pytest.raises(Invalid, match="too long"):
        parse_duration(value, "/deadline")


@pytest.mark.parametrize("value", ["9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59Z", "99999999999h", 10**400])
def test_a_deadline_that_calendars_cannot_say_everywhere_is_refused(value: str | int) -> None:
    with pytest.raises(Invalid) as caught:
        parse_deadline(value, "/deadline")
    assert caught.value.problems[0].path == "/deadline"
