from __future__ import annotations

import pytest

from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.checks import check

from .blueprints import MISSING, changed, problems, shop

NOT_YET = [
    ("/sources/0/uri", "s3a://bucket/orders/*.csv", "/sources/0/uri"),
    ("/sources/0/uri", "az://bucket/orders/*.csv", "/sources/0/uri"),
    ("/sinks/0/destination", "gs://bucket/out", "/sinks/0/destination"),
]
NOT_OURS = [
    ("/validators/0/anomaly_detection", True, "say what a good row is by checks"),
    ("/transformers/0/reshape_rules", ["pivot"], "say it in sql"),
    ("/transformers/0/output_format", "parquet", "a sink has a format"),
    ("/sinks/0/partition_keys", ["region"], "one sink for each part"),
]


@pytest.mark.parametrize(("place", "value", "expected"), NOT_YET)
def test_what_is_not_supported_yet_is_refused_and_says_so(place: str, value: object, expected: str) -> None:
    assert "not supported yet" in problems(changed(place, value))[expected]


@pytest.mark.parametrize(("place", "value", "instead"), NOT_OURS)
def test_what_is_not_supported_is_refused_with_what_to_use_instead(place: str, value: object, instead: str) -> None:
    said = problems(changed(place, value))[place]
    assert "is not supported" in said
    assert instead in said


CUBE = {
    "id": "cube", "inputs": ["totals"], "destination": "out", "format": "delta", "mode": "upsert", "keys": ["country"],
}  # fmt: skip

WRONG = [
    # versions of inputs
    ("/transformers/0/as_of", {"orders-clean": 1}, "/transformers/0/as_of/orders-clean", "not an input"),
    # names
    ("/sinks/0/id", "Report", "/sinks/0/id", "a-z"),
    ("/sinks/0/id", "1st", "/sinks/0/id", "a-z"),
    ("/sinks/0/id", "a b", "/sinks/0/id", "a-z"),
    ("/sinks/0/id", "a/../b", "/sinks/0/id", "a-z"),
    ("/sinks/0/id", "", "/sinks/0/id", "a-z"),
    ("/sinks/0/id", "x" * 64, "/sinks/0/id", "62"),
    ("/sinks/0/id", "report__quarantine", "/sinks/0/id", "__"),
    ("/sinks/0/id", "human-review-x", "/sinks/0/id", "review"),
    ("/sinks/0/id", "totals", "/sinks/0/id", "twice"),
    # references
    ("/sources/0/schema", "nobody", "/sources/0/schema", "no schema"),
    ("/sources/0/schema", "countries", "/sources/0/schema", "data-source"),
    ("/ingestions/0/source", "orders-schema", "/ingestions/0/source", "not a source"),
    ("/ingestions/0/format", "parquet", "/ingestions/0/format", "csv"),
    ("/enrichers/0/lookup", "nobody", "/enrichers/0/lookup", "no source"),
    ("/enrichers/0/lookup", "orders-schema", "/enrichers/0/lookup", "not a source"),
    ("/validators/0/schema", "nobody", "/validators/0/schema", "no schema"),
    ("/sinks/0/inputs", [], "/sinks/0/inputs", "needs an input"),
    ("/sinks/0/inputs", ["by-region", "totals"], "/sinks/0/inputs/1", "one table"),
    ("/sinks/0/inputs", ["by-region", "by-region"], "/sinks/0/inputs/1", "twice"),
    ("/sinks/0/inputs", ["cube"], "/sinks/0/inputs/0", "no table"),
    ("/validators/0/inputs", ["orders-schema"], "/validators/0/inputs/0", "no table"),
    # sources, schemas
    ("/sources/0/format", "xlsx", "/sources/0/format", "csv"),
    ("/sources/0/options/delimiter", ";", "/sources/0/options/delimiter", "separator"),
    ("/sources/0/options/separator", ";;", "/sources/0/options/separator", "single"),
    ("/sources/0/options/skip_rows", True, "/sources/0/options/skip_rows", "cannot be"),
    ("/sources/0/options/skip_rows", -1, "/sources/0/options/skip_rows", "0 or more"),
    ("/sources/0/options/skip_rows", 2**70, "/sources/0/options/skip_rows", "0 or more"),
    ("/sources/0/options/separator", "\n", "/sources/0/options/separator", "single"),
    ("/sources/0/options/separator", '"', "/sources/0/options/separator", "same"),
    ("/sources/0/options/quote_char", ",", "/sources/0/options/quote_char", "same"),
    ("/sources/0/options/quote_char", "\r", "/sources/0/options/quote_char", "single"),
    ("/sources/0/options/comment_prefix", "", "/sources/0/options/comment_prefix", "begin with"),
    ("/sources/0/options/comment_prefix", "#\n", "/sources/0/options/comment_prefix", "begin with"),
    ("/sources/0/options/encoding", "rot13", "/sources/0/options/encoding", "no encoding"),
    ("/sources/0/uri", "", "/sources/0/uri", "path"),
    ("/sources/0/uri", "../orders/*.csv", "/sources/0/uri", ".."),
    ("/sources/0/uri", "kafka://topic", "/sources/0/uri", "kafka"),
    ("/sources/0/uri", "a\nb", "/sources/0/uri", "control"),
    ("/schemas/0/fields", {}, "/schemas/0/fields", "at least one"),
    ("/schemas/0/fields/amount/type", "money", "/schemas/0/fields/amount/type", "decimal(p,s)"),
    ("/schemas/0/fields/amount/type", "decimal", "/schemas/0/fields/amount/type", "decimal(p,s)"),
    ("/schemas/0/fields/amount/type", "decimal(40,2)", "/schemas/0/fields/amount/type", "unknown type"),
    ("/schemas/0/fields/amount/ge", "zero", "/schemas/0/fields/amount/ge", "decimal(12,2)"),
    ("/schemas/0/fields/amount/ge", True, "/schemas/0/fields/amount/ge", "decimal(12,2)"),
    ("/schemas/0/fields/amount/pattern", "^1", "/schemas/0/fields/amount/pattern", "text"),
    ("/schemas/0/fields/amount/in", [1, "x"], "/schemas/0/fields/amount/in/1", "decimal(12,2)"),
    ("/schemas/0/fields/country/pattern", "[A-Z", "/schemas/0/fields/country/pattern", "regular expression"),
    ("/schemas/0/fields/country/tz", "UTC", "/schemas/0/fields/country/tz", "timestamp"),
    ("/schemas/0/fields/country/format", "%Y", "/schemas/0/fields/country/format", "date"),
    ("/schemas/0/fields/country/decimal", ",", "/schemas/0/fields/country/decimal", "only a number"),
    ("/schemas/0/fields/country/thousands", ".", "/schemas/0/fields/country/thousands", "only a number"),
    ("/schemas/0/fields/amount/decimal", ";", "/schemas/0/fields/amount/decimal", "no decimal mark"),
    ("/schemas/0/fields/amount/thousands", "x", "/schemas/0/fields/amount/thousands", "no mark"),
    ("/schemas/0/fields/amount/thousands", ".", "/schemas/0/fields/amount/thousands", "cannot mark both"),
    ("/schemas/0/fields/placed_at/ge", "yesterday", "/schemas/0/fields/placed_at/ge", "timestamp"),
    ("/schemas/0/fields/placed_at/nullable", False, "/schemas/0/fields/placed_at/nullable", "optional"),
    ("/schemas/0/fields/_file", "string", "/schemas/0/fields/_file", "Holdfast"),
    ("/schemas/0/fields/*", "string", "/schemas/0/fields/*", "several"),
    ("/schemas/0/fields/^a.*$", "string", "/schemas/0/fields/^a.*$", "several"),
    ("/schemas/0/fields/_status", "string", "/validators/0", "quarantine"),
    ("/schemas/0/fields/_errors", "string", "/schemas/0/fields/_errors", "Holdfast"),
    # cleansers
    ("/cleansers/0/rules/-", "fill_null", None, ""),
    ("/cleansers/0/rules/1/filter", "order_idd > 0", "/cleansers/0/rules/1/filter", "'order_id'"),
    ("/cleansers/0/rules/1/filter", "order_id", "/cleansers/0/rules/1/filter", "true or false"),
    ("/cleansers/0/rules/1/filter", "amount + country > 1", "/cleansers/0/rules/1/filter", "arithmetic"),
    ("/cleansers/0/rules/1/filter", "no_such_function(amount)", "/cleansers/0/rules/1/filter", "no_such_function"),
    ("/cleansers/0/rules/1/filter", "order_id >", "/cleansers/0/rules/1/filter", "SQL"),
    ("/cleansers/0/rules/1/filter", "sum(amount) > 1", "/cleansers/0/rules/1/filter", "one row"),
    ("/cleansers/0/rules/-", {"trim": ["contry"]}, "/cleansers/0/rules/2/trim/0", "'country'"),
    ("/cleansers/0/rules/-", {"upper": ["amount"]}, "/cleansers/0/rules/2/upper/0", "text"),
    ("/cleansers/0/rules/-", {"drop_nulls": ["x"]}, "/cleansers/0/rules/2/drop_nulls/0", "no column"),
    ("/cleansers/0/rules/-", {"drop_duplicates": ["x"]}, "/cleansers/0/rules/2/drop_duplicates/0", "no column"),
    ("/cleansers/0/rules/-", {"fill_null": {"amount": "a"}}, "/cleansers/0/rules/2/fill_null/amount", "decimal"),
    ("/cleansers/0/null_handling", {"region": "x"}, "/cleansers/0/null_handling/region", "no column"),
    ("/cleansers/0/deduplication/keys", ["id"], "/cleansers/0/deduplication/keys/0", "no column"),
    ("/cleansers/0/deduplication/order_by", ["when"], "/cleansers/0/deduplication/order_by/0", "no column"),
    # enrichers
    ("/enrichers/0/join_keys", MISSING, "/enrichers/0/join_keys", "join_keys"),
    ("/enrichers/0/join_keys", ["contry"], "/enrichers/0/join_keys/0", "'country'"),
    ("/enrichers/0/lookup", MISSING, "/enrichers/0/join_keys", "lookup"),
    ("/enrichers/0/fields", ["amount"], "/enrichers/0/fields/0", "already"),
    ("/enrichers/0/fields", ["country"], "/enrichers/0/fields/0", "join key"),
    ("/enrichers/0/derive", {"amount": "1"}, "/enrichers/0/derive/amount", "already"),
    ("/enrichers/0/derive", {"_row": "1"}, "/enrichers/0/derive/_row", "Holdfast"),
    ("/enrichers/0/derive", {"net": "amont * 2"}, "/enrichers/0/derive/net", "'amount'"),
    ("/enrichers/0/derive", {"net": "now()"}, "/enrichers/0/derive/net", "another result"),
    ("/enrichers/0/derive", {"net": "region * 2"}, "/enrichers/0/derive/net", "str"),
    ("/enrichers/0/derive", {"a/b": "nope"}, "/enrichers/0/derive/a~1b", "no column"),
    # validators
    ("/validators/0/checks/netto", {"ge": 0}, "/validators/0/checks/netto", "'net'"),
    ("/validators/0/checks/net", {"ge": "x"}, "/validators/0/checks/net/ge", "compared"),
    ("/validators/0/checks/net", {}, "/validators/0/checks/net", "says nothing"),
    ("/validators/0/checks/net", {"unique": ["x"]}, "/validators/0/checks/net/unique/0", "no column"),
    ("/validators/0/checks/sane", "net + 1", "/validators/0/checks/sane", "true or false"),
    ("/validators/0/checks/sane", "net > nett", "/validators/0/checks/sane", "'net'"),
    ("/validators/0/checks/net", {"expression": "net > 0", "ge": 0}, "/validators/0/checks/net", "not both"),
    # transformers
    ("/transformers/0/sql", "select nope from orders_valid", "/transformers/0/sql", "nope"),
    ("/transformers/0/sql", "select region + 1 as x from orders_valid", "/transformers/0/sql", "arithmetic"),
    ("/transformers/0/sql", "select region from orders", "/transformers/0/sql", "orders_valid"),
    ("/transformers/0/sql", "select * from read_csv('/etc/hostname')", "/transformers/0/sql", "read_csv"),
    ("/transformers/0/sql", "drop table orders_valid", "/transformers/0/sql", "DROP"),
    ("/transformers/0/sql", "select net, net from orders_valid", "/transformers/0/sql", "duplicate"),
    ("/transformers/0/sql", "select net as _row from orders_valid", "/transformers/0/sql", "_row"),
    ("/transformers/0/sql", 'select net as "*" from orders_valid', "/transformers/0/sql", "several"),
    ("/transformers/1/aggregations", {"^n$": "count(*)"}, "/transformers/1/aggregations/^n$", "several"),
    ("/transformers/0/group_by", ["region"], "/transformers/0/group_by", "not both"),
    ("/transformers/1/group_by", ["contry"], "/transformers/1/group_by/0", "'country'"),
    ("/transformers/1/aggregations", {"net": "net"}, "/transformers/1/aggregations/net", "aggregate"),
    ("/transformers/1/aggregations", {"net": "sum(nett)"}, "/transformers/1/aggregations/net", "'net'"),
    ("/transformers/1/aggregations", {"n": "sum(region)"}, "/transformers/1/aggregations/n", "sum"),
    ("/transformers/1/aggregations", {"n": "sum(net) + net"}, "/transformers/1/aggregations/n", "mixes"),
    ("/transformers/1/aggregations", {"n": "array_agg(net)"}, "/transformers/1/aggregations/n", "list"),
    ("/transformers/1/aggregations", {"country": "count(*)"}, "/transformers/1/aggregations/country", "already"),
    ("/transformers/1/aggregations", ["sum"], "/transformers/1/aggregations", "mapping"),
    ("/transformers/1/aggregations", {}, "/transformers/1/group_by", "aggregations"),
    # time zones
    ("/schemas/0/fields/placed_at/tz", "Mars/Olympus", "/schemas/0/fields/placed_at/tz", "no time zone"),
    ("/schemas/0/fields/placed_at/tz", "+02:00", "/schemas/0/fields/placed_at/tz", "Europe/Berlin"),
    ("/schemas/0/fields/placed_at/tz", "", "/schemas/0/fields/placed_at/tz", "no time zone"),
    # sinks
    ("/sinks/0/format", "xlsx", "/sinks/0/format", "parquet"),
    ("/sinks/1/mode", "append", "/sinks/1/mode", "double"),
    ("/sinks/1/mode", "merge", "/sinks/1/mode", "overwrite"),
    ("/sinks/1/keys", ["country"], "/sinks/1/keys", "upsert"),
    ("/sinks/1/mode", "upsert", "/sinks/1", "keys"),
    ("/sinks/1", {**CUBE, "keys": []}, "/sinks/1/keys", "keys"),
    ("/sinks/1", {**CUBE, "keys": ["nett"]}, "/sinks/1/keys/0", "'net'"),
    ("/sinks/1", {**CUBE, "keys": ["country", "country"]}, "/sinks/1/keys/1", "twice"),
    ("/sinks/1", {**CUBE, "format": "parquet"}, "/sinks/1/mode", "delta"),
    ("/sinks/0/options", {"compression": "zstd"}, "/sinks/0/options/compression", "option"),
    ("/sinks/0/destination", "", "/sinks/0/destination", "path"),
    ("/sinks/0/destination", "out/../..", "/sinks/0/destination", ".."),
    ("/sinks/0/destination", "out/*", "/sinks/0/destination", "one folder"),
    ("/sinks/0/destination", "orders", "/sinks/0/destination", "reads"),
    ("/sinks/1/destination", "out/report", "/sinks/1/destination", "one place"),
    ("/sources/1/uri", "out/**/*.csv", "/sinks/0/destination", "reads"),
    ("/sources/1/uri", "out", "/sinks/0/destination", "reads"),
    ("/sources/1/uri", "out/*/*.csv", "/sinks/0/destination", "reads"),
]


@pytest.mark.parametrize(("place", "value", "expected", "word"), WRONG)
def test_a_wrong_blueprint_is_refused_at_its_place(place: str, value: object, expected: str | None, word: str) -> None:
    blueprint = changed(place, value)
    if expected is None:
        check(parse(blueprint))
        return
    found = problems(blueprint)
    assert expected in found, found
    assert word in found[expected]


def test_the_example_is_accepted() -> None:
    check(parse(shop()))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("/sources/0/uri", "file:///data/orders/*.csv"),
        ("/sources/0/uri", "Müller & Söhne #1 100%/*.csv"),
        ("/schemas/0/fields", ["order_id", "amount", "country"]),
        ("/schemas/0/fields/placed_at/ge", "2020-01-01"),
        ("/schemas/0/fields/amount/ge", "0.01"),
        ("/cleansers/0/rules/-", "dedupe"),
        ("/cleansers/0/rules/-", "drop_duplicates"),
        ("/cleansers/0/rules/-", {"fill_null": 0}),
        ("/cleansers/0/null_handling", "DROP"),
        ("/validators/0/checks/sane", "net <= amount"),
        ("/validators/0/checks/country", {"nullable": False, "in": ["DE", "FR"], "unique": ["order_id"]}),
        ("/transformers/1/group_by", []),
        ("/schemas/0/fields/placed_at/tz", "Europe/Berlin"),
        ("/schemas/0/fields/placed_at/tz", "Etc/UTC"),
        ("/sinks/0/approval_required", "each"),
        ("/transformers/0/approval_required", "each"),
        ("/sinks/0/format", "csv"),
        ("/sinks/1", CUBE),
        ("/sinks/0/destination", "file:///data/out"),
        ("/sources/1/uri", "out.csv"),
        ("/sources/1/uri", "outer/*.csv"),
    ],
)
def test_what_is_right_is_accepted(place: str, value: object) -> None:
    blueprint = changed(place, value)
    if place == "/schemas/0/fields":  # values stay text then, and arithmetic has to say what it takes them for
        blueprint["cleansers"][0]["rules"] = ["trim"]
        blueprint["enrichers"][0]["derive"]["net"] = "cast(amount as double) * 0.8"
    check(parse(blueprint))


def test_ids_with_a_hyphen_are_tables_with_an_underscore() -> None:
    check(parse(changed("/transformers/0/sql", "select region from orders_valid")))
    found = problems(changed("/transformers/0/sql", 'select region from "orders-valid"'))
    assert "orders_valid" in found["/transformers/0/sql"]


def test_two_inputs_with_one_table_name_are_refused() -> None:
    blueprint = shop()
    blueprint["validators"].append({"id": "orders_valid", "inputs": ["orders-geo"]})
    blueprint["transformers"][0]["inputs"] = ["orders-valid", "orders_valid"]
    blueprint["transformers"][1]["inputs"] = ["orders-valid"]
    assert "'orders_valid'" in problems(blueprint)["/transformers/0/inputs"]


def test_several_predecessors_demand_inputs() -> None:
    blueprint = shop()
    blueprint["cleansers"].append({"id": "orders-clean-2"})
    found = problems(blueprint)
    assert "inputs: [...]" in found["/enrichers/0"]


def test_a_missing_predecessor_demands_inputs() -> None:
    found = problems(changed("/enrichers", []))
    assert "inputs: [...]" in found["/validators/0"]


def test_several_inputs_need_sql() -> None:
    blueprint = changed("/transformers/1/inputs", ["orders-valid", "by-region"])
    assert "sql" in problems(blueprint)["/transformers/1/inputs"]


def test_several_inputs_meet_in_sql() -> None:
    blueprint = changed("/transformers/1", {"id": "totals", "inputs": ["orders-valid", "by-region"]})
    blueprint["transformers"][1]["sql"] = (
        "select o.country, b.net from orders_valid o join by_region b on o.region = b.region"
    )
    check(parse(blueprint))
    blueprint["transformers"][1]["sql"] = "select o.country, b.nett from orders_valid o, by_region b"
    assert "nett" in problems(blueprint)["/transformers/1/sql"]


def test_a_validator_on_bronze_is_told_that_values_are_not_cast_yet() -> None:
    blueprint = changed("/validators/0", {"id": "orders-valid", "inputs": ["orders-raw"], "schema": "orders-schema"})
    blueprint["transformers"] = blueprint["sinks"] = []
    assert "cleanser" in problems(blueprint)["/validators/0/schema"]


def test_without_a_schema_columns_are_taken_as_they_come() -> None:
    # Given a source of which nothing is known
    blueprint = changed("/sources/0/schema", MISSING)
    blueprint["validators"][0].pop("schema")
    # Then names and types cannot be wrong, forbidden SQL still is
    check(parse(blueprint))
    blueprint["cleansers"][0]["rules"][1]["filter"] = "now() > order_id"
    assert list(problems(blueprint)) == ["/cleansers/0/rules/1/filter"]


def test_every_problem_is_told_at_once() -> None:
    blueprint = changed("/sinks/0/format", "xlsx", changed("/cleansers/0/rules/1/filter", "nope > 0"))
    assert set(problems(blueprint)) == {"/sinks/0/format", "/cleansers/0/rules/1/filter"}


def test_places_that_a_tenant_cannot_use_are_refused() -> None:
    def refuse(uri: str) -> str:
        return "outside" if uri.startswith("/etc") else ""

    blueprint = changed("/sources/1/uri", "/etc/*.csv")
    with pytest.raises(Exception, match="/sources/1/uri: outside"):
        check(parse(blueprint), refuse=refuse)


@pytest.mark.parametrize(
    ("place", "uri", "why"),
    [
        ("/sources/0/uri", "s3://KEY:secret@bucket/orders/*.csv", "credentials"),
        ("/sources/0/uri", "s3://KEY:sec/ret@bucket/orders/*.csv", "credentials"),
        ("/sources/0/uri", "s3://bucket:9000/orders/*.csv", "endpoint"),
        ("/sources/0/uri", "s3://bucket/../orders/*.csv", "'..'"),
        ("/sources/0/uri", "s3://bucket//orders/*.csv", "empty parts"),
        ("/sinks/0/destination", "s3:///out", "s3://bucket/path"),
        ("/sinks/0/destination", "s3://bucket/out/*", "without"),
        ("/sinks/0/destination", "S3://bucket/out", "s3://bucket/path"),
    ],
)
def test_uris_of_object_stores_name_a_bucket_and_a_path_and_nothing_else(place: str, uri: str, why: str) -> None:
    found = problems(changed(place, uri))[place]
    assert why in found
    assert "sec" not in found.removesuffix("settings")


def test_object_stores_are_places_like_folders() -> None:
    blueprint = changed("/sources/0/uri", "s3://bucket/orders/*.csv")
    blueprint["sinks"][0]["destination"] = "s3://bucket/out"
    check(parse(blueprint))
    blueprint["sinks"][0]["destination"] = "s3://bucket/orders"
    assert "where source 'orders' reads" in problems(blueprint)["/sinks/0/destination"]
    blueprint = changed("/sources/0/options/endpoint", "http://elsewhere")
    assert "no option 'endpoint'" in problems(blueprint)["/sources/0/options/endpoint"]
