from __future__ import annotations

import pytest

from holdfast_model.errors import Cycle, Dangling, Invalid
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.wiring import LayerViolation, upstream, wire

from .blueprints import MISSING, changed, shop


def edges(blueprint: object) -> dict[str, list[str]]:
    return {node.id: list(node.depends_on) for node in wire(parse(blueprint)).values()}


def test_without_inputs_each_stage_depends_on_all_of_the_kind_before() -> None:
    # Given the example with upsert and a local time zone
    blueprint = changed("/schemas/0/fields/placed_at/tz", "Europe/Berlin")
    blueprint["sinks"][1] |= {"mode": "upsert", "keys": ["country"]}
    # When it is wired
    # Then
    assert edges(blueprint) == {
        "orders": [],
        "countries": [],
        "orders-schema": [],
        "orders-raw": ["orders"],
        "orders-clean": ["orders-raw", "orders-schema"],
        "orders-geo": ["orders-clean", "countries"],
        "orders-valid": ["orders-geo", "orders-schema"],
        "by-region": ["orders-valid"],
        "totals": ["orders-valid"],
        "report": ["by-region"],
        "cube": ["totals"],
    }


def test_missing_stages_are_not_bridged() -> None:
    assert edges(changed("/enrichers", []))["orders-valid"] == ["orders-schema"]


def test_a_stage_with_inputs_depends_on_these_and_the_schemas_upstream_and_nothing_else() -> None:
    # Given two chains in one blueprint
    blueprint = shop()
    blueprint["sources"].append({"id": "visits", "uri": "visits.csv", "format": "csv", "schema": "visits-schema"})
    blueprint["schemas"].append({"id": "visits-schema", "fields": ["page"]})
    blueprint["schemas"].append({"id": "loose", "fields": ["page"]})
    blueprint["ingestions"].append({"id": "visits-raw", "source": "visits"})
    blueprint["cleansers"][0]["inputs"] = ["orders-raw"]
    blueprint["cleansers"].append({"id": "visits-clean", "inputs": ["visits-raw"]})
    blueprint["enrichers"][0]["inputs"] = ["orders-clean"]
    blueprint["validators"][0]["inputs"] = ["orders-geo"]
    blueprint["validators"].append({"id": "visits-valid", "inputs": ["visits-clean"], "schema": "loose"})
    blueprint["transformers"][0]["inputs"] = ["orders-valid"]
    blueprint["transformers"][1]["inputs"] = ["visits-valid", "orders-valid"]
    # When
    wired = edges(blueprint)
    # Then they stay apart, and Gold reaches no schema
    assert wired["orders-clean"] == ["orders-raw", "orders-schema"]
    assert wired["visits-clean"] == ["visits-raw", "visits-schema"]
    assert wired["orders-geo"] == ["orders-clean", "countries", "orders-schema"]
    assert wired["visits-valid"] == ["visits-clean", "visits-schema", "loose"]
    assert wired["by-region"] == ["orders-valid"]
    assert wired["totals"] == ["visits-valid", "orders-valid"]


def test_upstream_lists_every_stage_the_data_comes_from() -> None:
    assert upstream("report", wire(parse(shop()))) == [
        "report", "by-region", "orders-valid", "orders-geo", "orders-clean", "orders-raw",
    ]  # fmt: skip


def test_an_input_that_is_not_there_is_dangling_at_its_place() -> None:
    with pytest.raises(Dangling) as caught:
        wire(parse(changed("/sinks/0/inputs", ["by-region", "nobody"])))
    assert caught.value.edge == ("report", "nobody")
    assert caught.value.problems[0].path == "/sinks/0/inputs/1"


def test_a_source_that_is_not_there_is_dangling_at_its_place() -> None:
    with pytest.raises(Dangling) as caught:
        wire(parse(changed("/ingestions/0/source", "nobody")))
    assert caught.value.problems[0].path == "/ingestions/0/source"


def test_a_cycle_of_inputs_is_refused_with_its_path() -> None:
    transformers = [{"id": "a", "inputs": ["b"]}, {"id": "b", "inputs": ["c", "a"]}, {"id": "c", "inputs": []}]
    with pytest.raises(Cycle) as caught:
        wire(parse({"transformers": transformers}))
    assert caught.value.path == ("a", "b", "a")
    assert caught.value.problems[0].path == "/transformers/1/inputs/1"


@pytest.mark.parametrize(("source", "path"), [("tidy", ("raw", "tidy", "raw")), ("raw", ("raw", "raw"))])
def test_a_source_that_is_made_of_the_ingestion_itself_is_a_cycle(source: str, path: tuple[str, ...]) -> None:
    with pytest.raises(Cycle) as caught:
        wire(parse({"ingestions": [{"id": "raw", "source": source}], "cleansers": [{"id": "tidy"}]}))
    assert caught.value.path == path


def test_a_stage_that_reads_itself_is_a_cycle() -> None:
    with pytest.raises(Cycle):
        wire(parse({"transformers": [{"id": "a", "inputs": ["a"]}]}))


def test_a_long_chain_needs_no_deep_stack() -> None:
    chain = [{"id": f"t{i}", "inputs": [f"t{i + 1}"]} for i in range(3000)] + [{"id": "t3000", "inputs": []}]
    assert len(wire(parse({"transformers": chain}))) == 3001


def test_gold_on_bronze_skips_a_layer() -> None:
    with pytest.raises(LayerViolation) as caught:
        wire(parse(changed("/transformers/0/inputs", ["orders-raw"])))
    assert caught.value.violation == "SKIP"
    assert caught.value.problems[0].path == "/transformers/0/inputs/0"


def test_data_never_flows_back() -> None:
    with pytest.raises(LayerViolation) as caught:
        wire(parse(changed("/cleansers/0/inputs", ["totals"])))
    assert caught.value.violation == "BACKWARD"


def test_an_id_used_twice_is_refused_where_it_comes_again() -> None:
    with pytest.raises(Invalid) as caught:
        wire(parse(changed("/sinks/1/id", "orders")))
    assert [p.path for p in caught.value.problems] == ["/sinks/1/id"]


def test_only_approved_gold_stages_gate_their_removal() -> None:
    gated = {n.id: (n.gating, n.spec_gating) for n in wire(parse(shop())).values() if n.spec_gating != "NONE"}
    assert gated == {"report": ("NONE", "DEPROVISION_ONLY")}
    assert all(n.spec_gating == "NONE" for n in wire(parse(changed("/sinks/0/approval_required", MISSING))).values())
