"""Every spelling that the reference has for cleansing, from a blueprint to the table that comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.compiler import compile_blueprint

from .conftest import World

FILE = "id,name,city\n1,x,Ulm\n1,x,Ulm\n1,x,\n2,,Bonn\n3,y,\n"
ALL = [(1, "x", "Ulm"), (1, "x", "Ulm"), (1, "x", None), (2, None, "Bonn"), (3, "y", None)]
ONCE = [ALL[0], *ALL[2:]]
BY_ID = [ALL[0], *ALL[3:]]
FULL = ALL[:2]


def _filled(name: str, city: str) -> list[tuple[object, ...]]:
    return [(i, n if n is not None else name, c if c is not None else city) for i, n, c in ALL]


@pytest.mark.parametrize(
    ("cleanser", "expected"),
    [
        ({}, ALL),
        ({"rules": ["dedupe"]}, ONCE),
        ({"rules": [{"dedupe": True}]}, ONCE),
        ({"rules": [{"dedupe": False}]}, ALL),
        ({"deduplication": True}, ONCE),
        ({"deduplication": False}, ALL),
        ({"deduplication": {}}, ONCE),
        ({"deduplication": {"keys": ["id"]}}, BY_ID),
        ({"deduplication": {"keys": ["id"], "keep": "last"}}, ALL[2:]),
        ({"rules": ["dedupe"], "deduplication": {"keys": ["id"]}}, BY_ID),
        ({"rules": ["drop_duplicates"]}, ONCE),
        ({"rules": [{"drop_duplicates": True}]}, ONCE),
        ({"rules": [{"drop_duplicates": ["id"]}]}, BY_ID),
        ({"rules": ["drop_nulls"]}, FULL),
        ({"rules": [{"drop_nulls": ["name"]}]}, [*ALL[:3], ALL[4]]),
        ({"null_handling": "DROP"}, FULL),
        ({"null_handling": "drop"}, FULL),
        ({"null_handling": "KEEP"}, ALL),
        ({"null_handling": {"city": "?"}}, [(i, n, c or "?") for i, n, c in ALL]),
        ({"rules": [{"fill_null": "?"}]}, _filled("?", "?")),
        ({"rules": [{"fill_null": {"name": "-", "city": "?"}}]}, _filled("-", "?")),
        ({"rules": ["fill_null"], "null_handling": {"city": "?", "name": "-"}}, _filled("-", "?")),
        ({"rules": [{"fill_null": "?"}, "dedupe"]}, [r for i, r in enumerate(_filled("?", "?")) if i != 1]),
        ({"rules": ["trim", {"filter": "id > 1"}, {"upper": ["city"]}, "lower"]}, [(2, None, "bonn"), (3, "y", None)]),
    ],
)
def test_every_spelling_does_what_it_says(
    world: World, cleanser: dict[str, Any], expected: list[tuple[object, ...]]
) -> None:
    blueprint = {
        "sources": [{"id": "in", "uri": "in/*", "format": "csv", "schema": "fields"}],
        "schemas": [{"id": "fields", "fields": {"id": "int64", "name": "string", "city": "string"}}],
        "ingestions": [{"id": "raw", "source": "in"}],
        "cleansers": [{"id": "clean", **cleanser}],
    }
    nodes = {node.id: node.spec for node in compile_blueprint(parse(blueprint))}
    world.put("in/a.csv", FILE)
    world.provision("raw", nodes["raw"])
    world.provision("clean", nodes["clean"])
    assert world.rows("silver", "clean", "id", "name", "city") == sorted(expected, key=lambda r: [str(v) for v in r])
