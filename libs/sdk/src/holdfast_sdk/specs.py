"""Specs, blueprints and outputs as typed Python values: decode, encode, JSON schema.

pydantic models are read and written by pydantic; structs, dataclasses, TypedDicts and plain ``dict`` by
msgspec. Nothing else in the package knows which library is behind a type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError

from holdfast_model.errors import Invalid, Problem
from holdfast_model.references import pointer_of

from .wording import not_valid, problems_of

T = TypeVar("T")

_PLACE = re.compile(r"(?P<message>.*?)(?: - at `\$(?P<path>.*)`)?\Z", re.DOTALL)
_PLACE_PART = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+)\]|\[\.\.\.\]")


class SpecCodec(Generic[T]):
    """Reads and writes values of one type as JSON. ``decode`` raises Invalid with JSON pointers."""

    def __init__(self, type_: type[T] | None) -> None:
        self.type = type_
        self.read: Callable[[bytes], Any]
        self._schema: Callable[[], dict[str, Any]]
        self._python: Callable[[Any], Any]
        if type_ is not None and _is_pydantic(type_):
            adapter = TypeAdapter(type_)
            self.read = adapter.validate_json
            self._schema = adapter.json_schema
            self._python = adapter.validate_python
        else:
            kind: Any = dict[str, Any] if type_ is None or type_ is dict else type_
            self.read = msgspec.json.Decoder(kind).decode
            self._schema = lambda: msgspec.json.schema(kind)
            self._python = lambda value: msgspec.convert(value, kind)

    @property
    def is_plain(self) -> bool:
        """Whether values are plain dicts, so that there is nothing to check."""
        return self.type is None or self.type is dict

    def schema(self) -> dict[str, Any] | None:
        """The JSON schema; None for plain dicts."""
        return None if self.is_plain else self._schema()

    def decode(self, raw: bytes | msgspec.Raw, path: str = "") -> T:
        """The value of JSON text; ``path`` goes in front of every pointer of an Invalid."""
        try:
            return cast(T, self.read(bytes(raw)))
        except (ValidationError, msgspec.DecodeError) as e:
            raise self._invalid(e, path) from e

    def check(self, value: object, path: str = "") -> None:
        """Raise Invalid when plain data does not fit the type."""
        if self.is_plain or isinstance(value, cast(type, self.type)):
            return
        try:
            self._python(plain(value))
        except (ValidationError, msgspec.ValidationError) as e:
            raise self._invalid(e, path) from e

    def _invalid(self, error: Exception, path: str) -> Invalid:
        if isinstance(error, ValidationError):
            return not_valid(self.name, problems_of(error, self._schema, path))
        return invalid(error, self.name, path)

    @property
    def name(self) -> str:
        return getattr(self.type, "__name__", "object")


def plain(value: object) -> Any:
    """``value`` as plain JSON data (dicts, lists, strings, numbers). Raises TypeError for what JSON cannot
    hold.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_foreign)


def encode(value: object) -> bytes:
    """``value`` as JSON text. Raises TypeError for what JSON cannot hold."""
    if isinstance(value, BaseModel):
        return value.model_dump_json(by_alias=True).encode()
    return msgspec.json.encode(value, enc_hook=_encode_foreign)


def outputs_of(value: object) -> dict[str, object] | None:
    """Outputs that a handler returned, as the small JSON object that travels. TypeError for anything else."""
    if value is None or type(value) is dict:
        return value
    data = plain(value)
    if not isinstance(data, dict):
        raise TypeError(f"outputs must be an object (model, struct, dataclass or dict), not {type(value).__name__}")
    return data


def invalid(error: Exception, what: str, path: str = "") -> Invalid:
    """Invalid with a JSON pointer, from what msgspec raised."""
    return not_valid(what, [_msgspec_problem(str(error), path)])


def _msgspec_problem(text: str, path: str) -> Problem:
    match = _PLACE.match(text)
    if match is None or match["path"] is None:
        return Problem(path, text)
    tokens = tuple(m["key"] or m["index"] or "*" for m in _PLACE_PART.finditer(match["path"]))
    return Problem(path + pointer_of(tokens), match["message"])


def _is_pydantic(type_: type[Any]) -> bool:
    return isinstance(type_, type) and issubclass(type_, BaseModel)


def _encode_foreign(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
