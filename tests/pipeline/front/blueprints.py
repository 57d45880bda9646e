"""Blueprints that the tests of the front start from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from holdfast_model.errors import Invalid
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.compiler import compile_blueprint

SHOP = """
sources:
- {id: orders, uri: "orders/*.csv", format: csv, schema: orders-schema, options: {separator: ","}}
- {id: countries, uri: countries.csv, format: csv}
schemas:
- id: orders-schema
  version: 1
  extra: refuse
  fields:
    order_id: {type: int64, unique: true}
    amount: {type: "decimal(12,2)", ge: 0}
    country: {type: string, pattern: "^[A-Z]{2}$", nullable: true}
    placed_at: {type: timestamp, tz: UTC, optional: true}
ingestions:
- {id: orders-raw, source: orders, batch_size: 1000}
cleansers:
- id: orders-clean
  rules: [trim, {filter: "order_id > 0"}]
  null_handling: {country: ZZ}
  deduplication: {keys: [order_id], keep: last}
enrichers:
- {id: orders-geo, lookup: countries, join_keys: [country], fields: [region], derive: {net: "amount * 0.8"}}
validators:
- {id: orders-valid, schema: orders-schema, quality_threshold: 0.98, checks: {net: {ge: 0}}}
transformers:
- {id: by-region, sql: "select region, sum(net) as net from orders_valid group by region"}
- {id: totals, group_by: [country], aggregations: {net: "sum(net)"}}
sinks:
- {id: report, inputs: [by-region], destination: out, format: parquet, approval_required: true, on_delete: keep}
- {id: cube, inputs: [totals], destination: out, format: delta}
"""
"""A whole pipeline of which everything is supported."""

MISSING = object()


def shop() -> dict[str, Any]:
    """A fresh copy of the shop's blueprint."""
    loaded: dict[str, Any] = yaml.safe_load(SHOP)
    return loaded


def changed(pointer: str, value: object, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The blueprint with ``value`` at ``pointer``; MISSING removes what is there, ``-`` appends."""
    blueprint = copy.deepcopy(base) if base is not None else shop()
    *path, last = pointer.lstrip("/").split("/")
    target: Any = blueprint
    for key in path:
        target = target[int(key)] if isinstance(target, list) else target[key]
    if value is MISSING:
        del target[int(last) if isinstance(target, list) else last]
    elif last == "-":
        target.append(value)
    elif isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value
    return blueprint


def problems(blueprint: object) -> dict[str, str]:
    """What is wrong with a blueprint: JSON pointer -> message. Fails the test when it is accepted."""
    with pytest.raises(Invalid) as caught:
        compile_blueprint(parse(blueprint))
    assert caught.value.problems, "an Invalid without the place of its problem"
    return {p.path: p.message for p in caught.value.problems}
