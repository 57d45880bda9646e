"""JSON Schemas that others wrote, compiled without looking anywhere else.

A schema may name another one by its address. Whoever compiled it would fetch that, from wherever the author of the
schema likes, and wait for it; so here nothing is fetched, and such a schema is not valid.
"""

from __future__ import annotations

from typing import Never

import jsonschema_rs


def compile_schema(schema: dict[str, object]) -> jsonschema_rs.Validator:
    """A validator. Raises ValueError for a schema that is not valid, or that refers to a document elsewhere."""
    return jsonschema_rs.validator_for(schema, retriever=_refuse)


def _refuse(address: str, /) -> Never:
    raise ValueError(f"{address} is elsewhere; a schema has to stand for itself")
