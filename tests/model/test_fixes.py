"""Patches of specs: RFC 6902, and every way in which one may not apply."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from holdfast_model.errors import Invalid
from holdfast_model.fixes import Fix, Operation, check_spec, mended, patched, read_fix
from holdfast_model.messages import Status
from holdfast_model.mutations import UpdateNode, declaration
from holdfast_model.names import AI_REVIEW, GraphRef
from holdfast_model.reconciler import Reconciler
from holdfast_model.reconciler.mending import carry_out, proposal
from holdfast_model.reconciler.records import Record, Unit
from holdfast_model.rows import Gating, Node, declare, digest_of

from .reconciling import INFO, Planner, node

_replace = msgspec.structs.replace

SPEC: dict[str, Any] = {"a": 1, "list": [1, 2, 3], "deep": {"x/y": {"~": 0}}}


def after(*operations: dict[str, Any]) -> Any:
    document = msgspec.json.decode(msgspec.json.encode(SPEC))
    return patched(document, msgspec.convert(list(operations), list[Operation]))


@pytest.mark.parametrize(
    ("operations", "wanted"),
    [
        ([{"op": "add", "path": "/b", "value": [1]}], {**SPEC, "b": [1]}),
        ([{"op": "add", "path": "/list/1", "value": 9}], {**SPEC, "list": [1, 9, 2, 3]}),
        ([{"op": "add", "path": "/list/-", "value": 9}], {**SPEC, "list": [1, 2, 3, 9]}),
        ([{"op": "remove", "path": "/list/0"}], {**SPEC, "list": [2, 3]}),
        ([{"op": "replace", "path": "/deep/x~1y/~0", "value": 5}], {**SPEC, "deep": {"x/y": {"~": 5}}}),
        ([{"op": "replace", "path": "", "value": {"z": 1}}], {"z": 1}),
        ([{"op": "move", "from": "/a", "path": "/b"}], {"list": [1, 2, 3], "deep": SPEC["deep"], "b": 1}),
        ([{"op": "copy", "from": "/list", "path": "/b"}], {**SPEC, "b": [1, 2, 3]}),
        ([{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "/a", "value": 2}], {**SPEC, "a": 2}),
    ],
)
def test_a_patch_does_what_the_standard_says(operations: list[dict[str, Any]], wanted: Any) -> None:
    assert after(*operations) == wanted


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/nowhere", "value": 1},
        {"op": "remove", "path": "/list/3"},
        {"op": "add", "path": "/list/5", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "/list/-1", "value": 1},
        {"op": "add", "path": "/a/b", "value": 1},
        {"op": "add", "path": "/no/b", "value": 1},
        {"op": "add", "path": "b", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "remove", "path": ""},
        {"op": "move", "from": "/no", "path": "/b"},
        {"op": "merge", "path": "/a", "value": 1},
    ],
)
def test_an_operation_that_does_not_apply_is_named(operation: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        after({"op": "test", "path": "/a", "value": 1}, operation)

    assert [p.path for p in caught.value.problems] == ["/fix/patch/1"]


def test_a_mended_node_keeps_everything_but_its_spec() -> None:
    raw = msgspec.Raw(msgspec.json.encode(SPEC))
    node = Node("n", "t", raw, digest_of("t", raw), ("m",), Gating.ALL, Gating.NONE, "main")

    update = mended(node, Fix([Operation("replace", "/a", 2)]))

    assert (update.id, update.node.type, update.node.gating) == ("n", "t", "ALL")
    assert msgspec.json.decode(update.node.spec) == {**SPEC, "a": 2}


def test_a_schema_has_the_last_word_but_not_about_references() -> None:
    schema = {"properties": {"a": {"type": "integer"}}}

    check_spec(msgspec.Raw(b'{"a": 2}'), schema)
    check_spec(msgspec.Raw(b'{"a": {"$ref": "b#/c"}}'), schema)
    with pytest.raises(Invalid) as caught:
        check_spec(msgspec.Raw(b'{"a": "two"}'), schema)
    assert caught.value.problems[0].path == "/spec/a"


def test_an_answer_without_a_fix_has_none_and_one_that_cannot_be_read_is_refused() -> None:
    assert read_fix(None) is None
    assert read_fix({"confidence": 1}) is None
    with pytest.raises(Invalid, match="cannot be read"):
        read_fix({"fix": {"patch": [{"op": 1}]}})


def test_a_fix_leaves_the_references_of_its_target_what_they_are() -> None:
    # Given a node that was made with what another one published
    core = Reconciler(GraphRef("t", "g"), "i", 1, lambda: "id").core
    d = declare(declaration("n", "thing", {"v": 1, "at": {"$ref": "m#/at"}}))
    node = Node("n", d.type, d.spec, d.digest, d.depends_on, d.gating, d.spec_gating, "main", d.refs)
    target = Unit(Record(type="thing", refs={"m#/at": 5}), node=node)
    assert msgspec.json.decode(target.form.spec) == {"v": 1, "at": 5}
    # When a reviewer proposes to change something else
    info: dict[str, object] = {"fix": {"patch": [{"op": "replace", "path": "/v", "value": 2}]}}
    advice = Unit(Record(type=AI_REVIEW, status=Status.PRESENT, info=info), node=_replace(node, type=AI_REVIEW))
    update = proposal(core, target, advice)
    # Then it goes on following the other one
    assert update is not None
    assert msgspec.json.decode(update.node.spec) == {"v": 2, "at": {"$ref": "m#/at"}}


def test_what_a_turn_mends_is_not_sent_by_that_turn() -> None:
    # Given a node that is ready, and a fix of it that is carried out in the same turn
    planner = Planner(node())
    planner.reconciler.on_catalog(1.0, {"thing": INFO})
    planner.reconciler.settle()
    core = planner.reconciler.core
    update = UpdateNode("a", declaration("a", "thing", {"mended": True}))
    carry_out(core, update, "ann", "review of a: apply-fix")
    planner.turn()
    # Then no step does what is no longer wanted
    assert planner.sent == []
    # But the next turn does what is
    mended_node = declare(update.node)
    planner.reconciler.on_graph(
        2.0, {"a": _replace(planner.declared, spec=mended_node.spec, digest=mended_node.digest)}, {}
    )
    planner.turn(2.0)
    assert [bytes(step.spec) for step in planner.sent] == [b'{"mended":true}']
