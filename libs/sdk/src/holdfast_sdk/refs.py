"""References from one node's spec to another node's outputs: ``{"$ref": "<node>#/<json pointer>"}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from holdfast_model.references import find, parse, pointer_of


class Ref(msgspec.Struct, frozen=True):
    """The value that another node publishes under a JSON pointer (RFC 6901), e.g. ``Ref("web#/ip")``.

    A field that may hold one is annotated ``str | Ref`` (or ``int | Ref`` ...). In a compiled spec the reference
    adds its edge and travels as ``{"$ref": "web#/ip"}``. Handlers never see it: the planner puts the value in its
    place, and waits while there is none.
    """

    target: str = msgspec.field(name="$ref")

    def __post_init__(self) -> None:
        parse(self.target)

    @property
    def node(self) -> str:
        """Id of the node that publishes the value. It may itself hold ``#``; the last one is the
        separator.
        """
        return self.target.rpartition("#")[0]

    @property
    def pointer(self) -> str:
        """JSON pointer into that node's outputs; empty for all of them."""
        return self.target.rpartition("#")[2]

    @classmethod
    def to(cls, node: str, *tokens: str | int) -> Ref:
        """``Ref.to("web", "ports", 0)`` is ``Ref("web#/ports/0")``, with tokens escaped as RFC 6901 wants."""
        return cls(f"{node}#{pointer_of(tokens)}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _ref_of, serialization=core_schema.plain_serializer_function_ser_schema(_plain_ref)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "object",
            "title": "Ref",
            "properties": {"$ref": {"type": "string", "pattern": ".#(/|$)"}},
            "required": ["$ref"],
            "additionalProperties": False,
        }


def refs_in(value: object) -> Iterator[tuple[str, Ref]]:
    """Every reference inside plain JSON data, with the JSON pointer of its place. ValueError for a malformed
    one.
    """
    for place, text in find(value):
        yield place, Ref(text)


def _ref_of(value: Any) -> Ref:
    if isinstance(value, Ref):
        return value
    if isinstance(value, dict) and list(value) == ["$ref"] and isinstance(value["$ref"], str):
        return Ref(value["$ref"])
    raise ValueError('not a reference; write {"$ref": "node#/pointer"}')


def _plain_ref(value: Ref) -> dict[str, str]:
    return {"$ref": value.target}
