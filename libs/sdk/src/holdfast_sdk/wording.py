"""What is wrong with a document, in words for who wrote it: those of pydantic, but for keys that mean nothing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from holdfast_model.errors import Invalid, Problem
from holdfast_model.references import pointer_of

MOST = 15
"""Keys that are listed at the most."""

JsonSchema = Mapping[str, Any]


def problems_of(error: ValidationError, schema: Callable[[], JsonSchema], path: str = "") -> list[Problem]:
    """Every problem with its JSON pointer, ``path`` in front. ``schema``: of the document, asked for only if needed."""
    found = error.errors(include_url=False)
    unknown = any(e["type"] == "extra_forbidden" for e in found)
    known = _schema(schema) if unknown else {}
    return [
        Problem(
            path + pointer_of(e["loc"]),
            unknown_key(str(e["loc"][-1]), known_keys(known, e["loc"][:-1]))
            if e["type"] == "extra_forbidden" and e["loc"]
            else e["msg"],
        )
        for e in found
    ]


def not_valid(what: str, problems: Sequence[Problem]) -> Invalid:
    """That a ``what`` is not valid, the first problem in front."""
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Invalid(f"not a valid {what}: {first.path or '/'}: {first.message}{more}", problems)


def unknown_key(key: str, known: Sequence[str]) -> str:
    """That a key means nothing here, what may have been meant, and what there is."""
    close = difflib.get_close_matches(key, known, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    more = ", ..." if len(known) > MOST else ""
    there = f" (known here: {', '.join(known[:MOST])}{more})" if known else ""
    return f"unknown key {key!r}{meant}{there}"


def known_keys(schema: JsonSchema, loc: Sequence[str | int]) -> list[str]:
    """The keys an object at ``loc`` (keys and indices) may have by its JSON schema, in its order; [] where that does
    not say."""
    at = list(_alternatives(schema, schema))
    for token in loc:
        at = [option for found in at for part in _inside(found, token) for option in _alternatives(part, schema)]
    return list(dict.fromkeys(key for found in at for key in found.get("properties", ())))


def _inside(schema: JsonSchema, token: str | int) -> Iterator[JsonSchema]:
    if isinstance(token, int):
        inner = schema.get("items")
    else:
        inner = schema.get("properties", {}).get(token, schema.get("additionalProperties"))
    if isinstance(inner, Mapping):
        yield inner


def _alternatives(part: JsonSchema, root: JsonSchema) -> Iterator[JsonSchema]:
    """The schema itself, or all that it stands for."""
    reference = part.get("$ref")
    if isinstance(reference, str):
        found: Any = root
        for token in reference.removeprefix("#/").split("/"):
            found = found.get(token, {})
        yield from _alternatives(found, root)
        return
    for word in ("anyOf", "oneOf", "allOf"):
        for option in part.get(word, ()):
            yield from _alternatives(option, root)
    yield part


def _schema(schema: Callable[[], JsonSchema]) -> JsonSchema:
    try:
        return schema()
    except PydanticInvalidForJsonSchema:
        return {}  # a type that no schema tells of: then the keys are not listed
