from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from holdfast_pipeline import specs
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.compiler import compile_blueprint

from .blueprints import changed, shop


def compiled(blueprint: object) -> dict[str, specs.StageSpec]:
    return {node.id: node.spec for node in compile_blueprint(parse(blueprint))}


def encoded(blueprint: object) -> dict[str, bytes]:
    return {id: specs.encode_spec(spec) for id, spec in compiled(blueprint).items()}


def test_every_spec_survives_its_encoding() -> None:
    for node in compile_blueprint(parse(shop())):
        assert specs.decode_spec(node.type, specs.encode_spec(node.spec)) == node.spec


def test_sources_know_who_reads_them_and_schemas_whom_they_judge() -> None:
    nodes = compiled(shop())
    assert nodes["orders"].dependents == ("orders-raw",)  # type: ignore[union-attr]
    assert nodes["countries"].dependents == ("orders-geo",)  # type: ignore[union-attr]
    assert nodes["orders-schema"].ingestions == ("orders-raw",)  # type: ignore[union-attr]


def test_a_cleanser_gets_casts_rules_and_deduplication() -> None:
    spec = compiled(shop())["orders-clean"]
    assert isinstance(spec, specs.CleanserSpec)
    assert spec.input == specs.Input("orders-raw", "ingestion")
    assert [f.name for f in spec.fields] == ["order_id", "amount", "country", "placed_at"]
    assert spec.rules == (specs.Rule("trim"), specs.Rule("filter", "order_id > 0"))
    assert spec.fill == {"country": "ZZ"}
    assert spec.deduplication == specs.Deduplication(("order_id",), "last")


def test_the_rules_of_the_reference_are_understood() -> None:
    blueprint = changed("/cleansers/0/rules", ["dedupe", "drop_duplicates", {"fill_null": {"country": "ZZ"}}, "upper"])
    blueprint["cleansers"][0] |= {"deduplication": False, "null_handling": "DROP"}
    spec = compiled(blueprint)["orders-clean"]
    assert isinstance(spec, specs.CleanserSpec)
    assert spec.deduplication == specs.Deduplication()
    assert spec.drop_nulls == ("*",)
    assert spec.rules == (
        specs.Rule("drop_duplicates"),
        specs.Rule("fill_null", columns=("country",), value="ZZ"),
        specs.Rule("upper"),
    )


@pytest.mark.parametrize("on", [True, False])
def test_deduplication_can_be_switched(on: bool) -> None:
    spec = compiled(changed("/cleansers/0/deduplication", on))["orders-clean"]
    assert isinstance(spec, specs.CleanserSpec)
    assert spec.deduplication == (specs.Deduplication() if on else None)


def test_only_a_cleanser_behind_an_ingestion_casts() -> None:
    blueprint = changed("/cleansers/0/inputs", ["orders-raw"])
    blueprint["cleansers"].append({"id": "again", "inputs": ["orders-clean"], "rules": ["trim"]})
    blueprint["enrichers"][0]["inputs"] = ["again"]
    spec = compiled(blueprint)["again"]
    assert isinstance(spec, specs.CleanserSpec)
    assert spec.fields == ()


def test_a_validator_checks_its_schema_and_its_own_checks() -> None:
    blueprint = changed("/validators/0/checks/sane", "net <= amount")
    blueprint["validators"][0]["checks"]["country"] = {"nullable": False, "unique": ["order_id"]}
    spec = compiled(blueprint)["orders-valid"]
    assert isinstance(spec, specs.ValidatorSpec)
    assert [(c.name, c.value, c.columns) for c in spec.checks] == [
        ("order_id:not_null", None, ()),
        ("order_id:unique", None, ()),
        ("amount:not_null", None, ()),
        ("amount:ge", 0, ()),
        ("country:pattern", "^[A-Z]{2}$", ()),
        ("net:ge", 0, ()),
        ("sane:expression", "net <= amount", ()),
        ("country:not_null", None, ()),
        ("country:unique", None, ("country", "order_id")),
    ]
    assert spec.quality_threshold == 0.98


def test_fields_known_by_name_only_are_not_checked() -> None:
    blueprint = changed("/schemas/0/fields", ["order_id", "amount", "country"])
    blueprint["cleansers"][0]["rules"] = ["trim"]
    blueprint["enrichers"][0]["derive"]["net"] = "cast(amount as double) * 0.8"
    spec = compiled(blueprint)["orders-valid"]
    assert isinstance(spec, specs.ValidatorSpec)
    assert [c.name for c in spec.checks] == ["net:ge"]


def test_layout_and_comments_of_sql_change_no_spec() -> None:
    noisy = changed(
        "/transformers/0/sql",
        "select region, -- where\n  sum( net ) as net\nfrom orders_valid /* good rows */ group by region;",
    )
    noisy["cleansers"][0]["rules"][1]["filter"] = "order_id>0"
    assert encoded(noisy) == encoded(shop())


def test_an_edit_changes_the_specs_it_is_about_and_no_others() -> None:
    before, after = encoded(shop()), encoded(changed("/validators/0/quality_threshold", 0.5))
    assert {id for id in before if before[id] != after[id]} == {"orders-valid"}


def test_gold_knows_its_inputs_and_approval() -> None:
    nodes = compiled(shop())
    assert nodes["by-region"] == specs.TransformerSpec(
        (specs.Input("orders-valid", "validator"),),
        "select region, sum(net) as net from orders_valid GROUP BY region",
    )
    assert nodes["report"] == specs.SinkSpec(
        specs.Input("by-region", "transformer"), "out", "parquet", approval_required=True
    )
    each = compiled(changed("/sinks/0/approval_required", "each"))["report"]
    assert isinstance(each, specs.SinkSpec)
    assert each.approval_required == "each"
    upsert = shop()
    upsert["sinks"][1] |= {"mode": "upsert", "keys": ["country"]}
    assert compiled(upsert)["cube"] == specs.SinkSpec(
        specs.Input("totals", "transformer"), "out", "delta", "upsert", keys=("country",)
    )


def test_a_run_changes_the_spec_of_its_stage_and_no_other() -> None:
    before, after = encoded(shop()), encoded(changed("/cleansers/0/run", "2026-05-01"))
    assert {id for id in before if before[id] != after[id]} == {"orders-clean"}
    assert compiled(changed("/ingestions/0/run", "x"))["orders-raw"].run == "x"  # type: ignore[union-attr]


def test_inputs_can_be_read_as_of_a_version() -> None:
    spec = compiled(changed("/transformers/0/as_of", {"orders-valid": 7}))["by-region"]
    assert isinstance(spec, specs.TransformerSpec)
    assert spec.inputs == (specs.Input("orders-valid", "validator", 7),)


def test_large_blueprints_compile_quickly_enough_to_be_typed_against() -> None:
    blueprint = shop()
    blueprint["transformers"] += [
        {"id": f"t{i}", "inputs": [f"t{i - 1}" if i else "by-region"], "sql": f"select region, net from {t}"}
        for i in range(150)
        for t in [f"t{i - 1}" if i else "by_region"]
    ]
    assert len(compile_blueprint(parse(blueprint))) == 11 + 150


def test_the_blueprint_of_the_readme_compiles() -> None:
    readme = (Path(__file__).parents[3] / "services" / "provisioner-pipeline" / "README.md").read_text()
    [example] = re.findall(r"```yaml\n(domain:.*?)```", readme, re.DOTALL)
    assert len(compiled(yaml.safe_load(example)["spec"])) == 9
