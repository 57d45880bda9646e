from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from holdfast_model.errors import Invalid
from holdfast_pipeline.blueprint import Blueprint, parse, pointer

from .blueprints import changed, shop

WRONG_FORMS = [
    ("/nonsense", 1, "/nonsense"),
    ("/sources/0/id", 7, "/sources/0/id"),
    ("/sources/0/url", "x", "/sources/0/url"),
    ("/sources/0/options", ["x"], "/sources/0/options"),
    ("/sources", {"orders": {}}, "/sources"),
    ("/schemas/0/fields/amount/typ", "int64", "/schemas/0/fields/amount/typ"),
    ("/schemas/0/fields", ["a", "b", "a"], "/schemas/0/fields"),
    ("/schemas/0/fields", 3, "/schemas/0/fields"),
    ("/schemas/0/extra", "allow", "/schemas/0/extra"),
    ("/schemas/0/version", 0, "/schemas/0/version"),
    ("/schemas/0/version", "1", "/schemas/0/version"),
    ("/ingestions/0/batch_size", 0, "/ingestions/0/batch_size"),
    ("/cleansers/0/rules/0", "trimm", "/cleansers/0/rules/0"),
    ("/cleansers/0/rules/1", {"filtr": "order_id > 0"}, "/cleansers/0/rules/1/filtr"),
    ("/cleansers/0/rules/1", {"filter": "a", "trim": True}, "/cleansers/0/rules/1"),
    ("/cleansers/0/rules/1", {"filter": 1}, "/cleansers/0/rules/1/filter"),
    ("/cleansers/0/rules/1", {"trim": 3}, "/cleansers/0/rules/1/trim"),
    ("/cleansers/0/rules/1", {"fill_null": {"country": []}}, "/cleansers/0/rules/1/fill_null"),
    ("/cleansers/0/null_handling", "REPLACE", "/cleansers/0/null_handling"),
    ("/cleansers/0/null_handling/country", ["ZZ"], "/cleansers/0/null_handling"),
    ("/cleansers/0/deduplication/key", ["order_id"], "/cleansers/0/deduplication/key"),
    ("/cleansers/0/deduplication/keep", "newest", "/cleansers/0/deduplication/keep"),
    ("/enrichers/0/join_keys", "country", "/enrichers/0/join_keys"),
    ("/enrichers/0/derive/net", 1, "/enrichers/0/derive/net"),
    ("/validators/0/quality_threshold", 1.5, "/validators/0/quality_threshold"),
    ("/validators/0/quality_threshold", "high", "/validators/0/quality_threshold"),
    ("/validators/0/checks/net/gee", 0, "/validators/0/checks/net/gee"),
    ("/validators/0/checks/net/ge", [0], "/validators/0/checks/net/ge"),
    ("/transformers/1/aggregations", "sum(net)", "/transformers/1/aggregations"),
    ("/transformers/0/inputs", "orders-valid", "/transformers/0/inputs"),
    ("/sinks/0/on_delete", "archive", "/sinks/0/on_delete"),
    ("/sinks/0/approval_required", "sometimes", "/sinks/0/approval_required"),
]


@pytest.mark.parametrize(("place", "value", "expected"), WRONG_FORMS)
def test_a_wrong_form_is_refused_at_its_place(place: str, value: object, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(changed(place, value))
    assert expected in [p.path for p in caught.value.problems]


@pytest.mark.parametrize(("place", "value", "expected"), WRONG_FORMS)
def test_the_published_json_schema_refuses_no_less_precisely_or_leaves_it_to_the_model(
    place: str, value: object, expected: str
) -> None:
    schema = jsonschema_rs.validator_for(Blueprint.model_json_schema())
    for error in schema.iter_errors(changed(place, value)):
        at = pointer(*error.instance_path)
        assert expected.startswith(at), f"{at} does not lead to {expected}"


def test_every_wrong_place_is_named_at_once() -> None:
    wrong = changed("/sources/0/url", "x", changed("/sinks/1/modus", "y"))
    with pytest.raises(Invalid) as caught:
        parse(wrong)
    assert {p.path for p in caught.value.problems} == {"/sources/0/url", "/sinks/1/modus"}


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_a_document_that_is_no_mapping_is_refused(document: object) -> None:
    with pytest.raises(Invalid):
        parse(document)


def test_a_key_without_a_value_is_no_key() -> None:
    assert parse({"sources": None, "sinks": None}) == parse({})


def test_column_names_in_pointers_are_escaped() -> None:
    with pytest.raises(Invalid) as caught:
        parse({"schemas": [{"id": "s", "fields": {"a/b~c": {"typ": 1}}}]})
    assert caught.value.problems[0].path == "/schemas/0/fields/a~1b~0c/typ"


@pytest.mark.parametrize(
    "blueprint",
    [
        shop(),
        {},
        changed("/schemas/0/fields", ["order_id", "amount"]),
        changed("/schemas/0/fields/amount", "decimal(12,2)"),
        changed("/cleansers/0/deduplication", True),
        changed("/cleansers/0/deduplication", False),
        changed("/cleansers/0/null_handling", "DROP"),
        changed("/cleansers/0/rules/-", {"fill_null": 0}),
        changed("/validators/0/checks/net", "net > 0"),
        changed("/transformers/1/aggregations", ["agg"]),
        changed("/sinks/0/approval_required", "each"),
    ],
)
def test_what_the_model_reads_the_published_schema_accepts(blueprint: dict[str, Any]) -> None:
    parse(blueprint)
    assert jsonschema_rs.validator_for(Blueprint.model_json_schema()).is_valid(blueprint)
