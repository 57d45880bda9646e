"""No query, expression, name or option reads or writes outside of the tenant's roots."""

from __future__ import annotations

from typing import Any

import pytest
from deltalake import DeltaTable
from tests.pipeline.engine.conftest import Shop

from holdfast_model.errors import Invalid
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.compiler import compile_blueprint
from holdfast_pipeline.domain import refusal
from holdfast_pipeline.engine import EngineSettings
from holdfast_pipeline.lineage import file_lineage
from holdfast_pipeline.previews import difference, preview
from holdfast_pipeline.shelves import Shelves

from .conftest import Prison, compiled, tried

# SQL

FUNCTIONS = [
    "read_csv", "read_parquet", "read_ipc", "read_json", "read_ndjson", "read_text", "read_blob", "READ_CSV",
    "scan_csv", "scan_parquet", "scan_delta", "parquet_scan", "delta_scan", "csv_scan", "sniff_csv", "glob",
    "pg_read_file", "pg_ls_dir", "lo_import", "load_extension", "getenv", "system", "dblink", "url", "file", "eval",
]  # fmt: skip
QUERIES = [
    "select * from '{p}'",
    'select * from "{p}"',
    "select * from orders_valid, '{p}'",
    "select * from file('{p}')",
    "with x as (select * from read_csv('{p}')) select * from x, orders_valid",
    "with read_csv as (select * from orders_valid) select * from read_csv('{p}')",
    'with "{p}" as (select * from orders_valid) select * from "{p}"',
    "with orders_valid as (select * from read_csv('{p}')) select * from orders_valid",
    "select * from orders_valid where country in (select country from read_csv('{p}'))",
    "select (select country from read_csv('{p}')) as c from orders_valid",
    "select *, first_value(read_csv('{p}')) over (order by order_id) from orders_valid",
    'select *, count(*) over "{p}" from orders_valid',
    "select * from orders_valid window w as (order by read_csv('{p}'))",
    "select * from orders_valid order by (select 1 from read_csv('{p}'))",
    "select * from orders_valid limit (select count(*) from read_csv('{p}'))",
    "select * from orders_valid cross join lateral read_csv('{p}') x",
    "select * from orders_valid union all select * from read_csv('{p}')",
    "select * from read_csv/* */('{p}')",
    "select * from read_csv -- \n ('{p}')",
    "copy orders_valid to '{p}'",
    "copy (select * from orders_valid) to '{p}'",
    "copy orders_valid from '{p}'",
    "attach '{p}' as o",
    "install httpfs; load httpfs; select * from orders_valid",
    "create table x as select * from read_csv('{p}')",
    "create external table x location '{p}'",
    "insert into orders_valid select * from read_csv('{p}')",
    "select * into outfile '{p}' from orders_valid",
    "select * into x from orders_valid",
    "select * from orders_valid; select * from read_csv('{p}')",
    "explain analyze select * from read_csv('{p}')",
    "export database '{p}'",
    "pragma database_list",
    "set search_path = '{p}'",
    "describe '{p}'",
    "select * from beta.main.orders_raw",
    "select * from main.orders_raw",
    "select * from orders_raw",
    'select * from "../../beta/main/bronze/orders-raw"',
    "select _file, _sha from orders_valid",
    "select * from information_schema.tables",
    "select * from self",
    "show tables",
]
HEAD: dict[str, Any] = {
    "sources": [{"id": "orders", "uri": "orders/*.csv", "format": "csv", "schema": "contract"}],
    "schemas": [{"id": "contract", "fields": {"order_id": "int64", "amount": "decimal(12,2)", "country": "string"}}],
    "ingestions": [{"id": "orders-raw", "source": "orders"}],
    "cleansers": [{"id": "orders-clean"}],
    "enrichers": [{"id": "orders-geo", "derive": {"n": "1"}}],
    "validators": [{"id": "orders-valid"}],
}


@pytest.mark.parametrize("sql", [*QUERIES, *(f"select * from {f}('{{p}}')" for f in FUNCTIONS),
                                 *(f"select {f}('{{p}}') as x from orders_valid" for f in FUNCTIONS)])  # fmt: skip
def test_no_query_reads_anything_but_its_inputs(cell: Prison, sql: str) -> None:
    text = sql.replace("{p}", str(cell.outside / "a.csv"))
    with pytest.raises(Invalid) as caught:
        compile_blueprint(parse({**HEAD, "transformers": [{"id": "q", "sql": text}]}), refusal(cell.settings, "acme"))
    assert {p.path for p in caught.value.problems} == {"/transformers/0/sql"}
    cell.assert_kept_in(str(caught.value))


EXPRESSIONS = [
    *(f"{f}('{{p}}')" for f in FUNCTIONS),
    "(select country from read_csv('{p}'))",
    "country in (select country from read_csv('{p}'))",
    "exists (select 1 from '{p}')",
    "country from read_csv('{p}')",
    "1; copy orders to '{p}'",
    "country into outfile '{p}'",
]


def _place(name: str, text: str) -> tuple[str, dict[str, Any]]:
    where: dict[str, tuple[str, dict[str, Any]]] = {
        "filter": ("/cleansers/0/rules/0/filter", {"cleansers": [{"id": "orders-clean", "rules": [{"filter": text}]}]}),
        "derive": ("/enrichers/0/derive/x", {"enrichers": [{"id": "orders-geo", "derive": {"x": text}}]}),
        "check": ("/validators/0/checks/x", {"validators": [{"id": "orders-valid", "checks": {"x": text}}]}),
        "aggregation": (
            "/transformers/0/aggregations/x",
            {"transformers": [{"id": "t", "group_by": ["country"], "aggregations": {"x": text}}]},
        ),
    }
    return where[name]


@pytest.mark.parametrize("place", ["filter", "derive", "check", "aggregation"])
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_no_expression_reads_anything_but_its_row(cell: Prison, place: str, text: str) -> None:
    pointer, stages = _place(place, text.replace("{p}", str(cell.outside / "a.csv")))
    with pytest.raises(Invalid) as caught:
        compile_blueprint(parse({**HEAD, **stages}), refusal(cell.settings, "acme"))
    assert {p.path.startswith(pointer) for p in caught.value.problems} == {True}
    cell.assert_kept_in(str(caught.value))


# Names and options

NAMES = [
    "..",
    ".",
    "",
    "a/b",
    "../beta",
    "/etc",
    "a\x00b",
    "%2e%2e",
    "beta/main",
    "a b",
    "\uff0e\uff0e",
    "x" * 64,
    "a\n",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["tenant", "graph", "stage"])
def test_no_name_leads_to_the_tables_of_others(prison: Prison, part: str, name: str) -> None:
    shop = Shop()
    given = {"tenant": "acme", "graph": "main", "stage": "orders-raw", part: name}
    prison.tenant, prison.graph = given["tenant"], given["graph"]
    prison.settings = EngineSettings(prison.settings.warehouse, {"acme": (prison.data,)}, prison.base / "beta")
    said = tried(lambda: prison.provision(given["stage"], shop.ingestion))
    said += tried(lambda: prison.deprovision(given["stage"], shop.ingestion))
    for look in (
        lambda s: preview(s, given["stage"], as_of="", limit=5, quarantine=False, now=0.0),
        lambda s: difference(s, given["stage"], "0", "", 5, 0.0),
        lambda s: file_lineage(s, given["stage"]),
    ):
        said += tried(lambda look=look: look(Shelves(prison.settings, given["tenant"], given["graph"])))  # type: ignore[misc]
    assert said
    prison.tenant, prison.graph = "acme", "main"
    prison.assert_kept_in(said)


@pytest.mark.parametrize("id", ["con", "nul", "aux", "prn", "com1", "a-_-b"])
def test_names_that_are_special_elsewhere_are_names_here(prison: Prison, id: str) -> None:
    spec = specs.IngestionSpec(specs.Source("orders", "orders/*", "csv"))
    assert prison.provision(id, spec).observation.status is Status.PRESENT
    assert len(prison.rows("bronze", id)) == 3
    prison.deprovision(id, spec)
    assert prison.observe(id, spec).status is Status.ABSENT
    prison.assert_kept_in("")


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("csv", "encoding", "zlib"), ("csv", "encoding", "rot13"), ("csv", "encoding", "unicode_escape"),
        ("csv", "encoding", "../a"), ("csv", "columns", ["a"]), ("csv", "storage_options", "x"), ("csv", "path", "{p}"),
        ("csv", "separator", "{p}"), ("csv", "skip_rows", "{p}"), ("csv", "null_values", "{p}"), ("csv", "glob", True),
        ("parquet", "storage_options", "x"), ("delta", "version", "{p}"), ("ndjson", "file", "{p}"),
    ],
)  # fmt: skip
def test_no_option_of_a_source_names_a_place(cell: Prison, kind: str, option: str, value: object) -> None:
    value = value.replace("{p}", str(cell.outside / "a.csv")) if isinstance(value, str) else value
    source = {"id": "orders", "uri": "orders/*", "format": kind, "options": {option: value}}
    said = compiled(cell, {"sources": [source]})
    assert "Invalid" in said
    cell.assert_kept_in(said)


@pytest.mark.parametrize(("kind", "option"), [("csv", "path"), ("parquet", "path"), ("delta", "storage_options")])
def test_no_option_of_a_sink_names_a_place(cell: Prison, kind: str, option: str) -> None:
    sink = {"id": "out", "destination": "out", "format": kind, "options": {option: str(cell.outside / "a.csv")}}
    said = compiled(
        cell,
        {**HEAD, "transformers": [{"id": "t", "group_by": [], "aggregations": {"n": "count(*)"}}], "sinks": [sink]},
    )
    assert "Invalid" in said
    cell.assert_kept_in(said)


def test_half_a_character_is_no_place(cell: Prison) -> None:
    said = compiled(cell, {"sources": [{"id": "orders", "uri": "\ud800/a.csv", "format": "csv"}]})
    assert "halves of characters" in said


def test_the_prison_is_no_prison_for_what_is_inside(prison: Prison) -> None:
    """What is asserted above is not true of everything: a good source lands, a good target is written."""
    shop = Shop()
    shop.run(prison)
    assert len(prison.rows("bronze", "orders-raw")) == 3
    assert (prison.data / "out/report/report.parquet").exists()
    DeltaTable(str(prison.outside / "table")).delete()
    with pytest.raises(AssertionError):
        prison.assert_kept_in("")
