"""Schemas that others wrote are compiled without looking anywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast_model.json_schemas import compile_schema


def test_a_schema_that_refers_to_a_document_elsewhere_is_refused(tmp_path: Path) -> None:
    """Whoever reads it would fetch what its author likes: another service, a file of the machine."""
    there = tmp_path / "there.json"
    there.write_text("{}")
    for schema in ({"$ref": there.as_uri()}, {"properties": {"a": {"$ref": there.as_uri()}}}):
        with pytest.raises(ValueError, match="is elsewhere"):
            compile_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string"},
        {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"$id": "http://example.org/y", "$defs": {"a": {"$id": "z", "type": "string"}}, "$ref": "z"},
    ],
)
def test_a_schema_that_stands_for_itself_is_used(schema: dict[str, Any]) -> None:
    checked = compile_schema(schema)
    assert checked.is_valid("a")
    assert not checked.is_valid(1)
