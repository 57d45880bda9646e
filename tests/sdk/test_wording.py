"""What people are told about keys that mean nothing."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field

from holdfast_model.errors import Invalid
from holdfast_sdk.specs import SpecCodec


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Column(Strict):
    type: str
    tz: str = "UTC"
    limit: int | None = None


class Schema(Strict):
    id: str
    fields: dict[str, Column] = Field(default={}, alias="columns")
    more: list[Column] | None = None


class Document(Strict):
    schemas: list[Schema] = []


CODEC = SpecCodec(Document)


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        (b'{"schema": []}', "/schema", "unknown key 'schema'; did you mean 'schemas'? (known here: schemas)"),
        (
            b'{"schemas": [{"id": "a", "columns": {"x/y": {"type": "t", "timezone": "UTC"}}}]}',
            "/schemas/0/columns/x~1y/timezone",
            "unknown key 'timezone' (known here: type, tz, limit)",
        ),
        (
            b'{"schemas": [{"id": "a", "fields": {}}]}',
            "/schemas/0/fields",
            "unknown key 'fields' (known here: id, columns, more)",
        ),
        (
            b'{"schemas": [{"id": "a", "more": [{"type": "t", "limits": 1}]}]}',
            "/schemas/0/more/0/limits",
            "unknown key 'limits'; did you mean 'limit'? (known here: type, tz, limit)",
        ),
    ],
)
def test_an_unknown_key_is_told_with_what_may_stand_there(document: bytes, path: str, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        CODEC.decode(document)
    (problem,) = refused.value.problems
    assert (problem.path, problem.message) == (path, message)
    assert message in refused.value.message


def test_other_problems_are_told_beside_it() -> None:
    with pytest.raises(Invalid) as refused:
        CODEC.decode(b'{"schemas": [{"id": 5, "ids": 1}]}', "/spec")
    assert [p.path for p in refused.value.problems] == ["/spec/schemas/0/id", "/spec/schemas/0/ids"]
    assert refused.value.message.endswith("(and 1 more)")
