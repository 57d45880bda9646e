"""References from a node's spec to what another node publishes: ``{"$ref": "<node>#/<json pointer>"}``.

The pointer (RFC 6901) leads into that node's outputs; empty, it means all of them. An object is a reference if it holds
``$ref`` with a text and nothing else. Node ids may hold ``#`` themselves: the last one is the separator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from .plain import Unreadable

MARK = "$ref"
MARKED = b'"$ref"'
"""What JSON text holds if there are references in it, and hardly ever otherwise."""


class Malformed(Unreadable):
    """A reference that cannot be read. ``place``: its JSON pointer in the spec."""


def parse(text: str) -> tuple[str, str]:
    """(node, pointer) of a reference. ValueError for a malformed one."""
    node, mark, pointer = text.rpartition("#")
    if not mark or not node or (pointer and not pointer.startswith("/")):
        raise ValueError(f"{text!r} is not a reference; write it like 'node#/pointer'")
    return node, pointer


def pointer_of(tokens: Iterable[str | int]) -> str:
    """The JSON pointer of a path: ``("a/b", 0)`` -> ``/a~1b/0``; empty for the whole document."""
    return "".join(f"/{str(t).replace('~', '~0').replace('/', '~1')}" for t in tokens)


def find(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Every reference in plain JSON data: (JSON pointer of its place, text)."""
    if isinstance(value, dict):
        text = value.get(MARK)
        if len(value) == 1 and isinstance(text, str):
            yield place, text
            return
        for key, item in value.items():
            if isinstance(item, dict | list):
                yield from find(item, place + pointer_of((key,)))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from find(item, f"{place}/{i}")


def texts_in(value: object) -> tuple[str, ...]:
    """The references in plain JSON data, each once. Raises Malformed."""
    texts: dict[str, None] = {}
    for place, text in find(value):
        try:
            parse(text)
        except ValueError as error:
            raise Malformed(place, str(error)) from error
        texts[text] = None
    return tuple(texts)


def nodes_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Ids of the nodes that references name."""
    return tuple(dict.fromkeys(parse(text)[0] for text in texts))


def place_of(spec: Raw, node: str) -> str:
    """JSON pointer of the first place in a spec that refers to ``node``; "" if there is none."""
    return next((place for place, text in find(msgspec.json.decode(spec)) if parse(text)[0] == node), "")


def value_at(outputs: Mapping[str, object] | None, pointer: str) -> Any:
    """What outputs hold at a JSON pointer. LookupError if there is nothing."""
    if outputs is None:
        raise LookupError(pointer)
    value: Any = outputs
    for token in pointer.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and token.isdigit():
            value = value[int(token)]
        elif isinstance(value, dict):
            value = value[token]
        else:
            raise LookupError(pointer)
    return value


def filled_in(spec: Raw, values: Mapping[str, object]) -> Raw:
    """A spec with every reference replaced by its value. Values are taken as they are: a reference that somebody
    published stays what it is."""
    return Raw(msgspec.json.encode(_filled(msgspec.json.decode(spec), values)))


def _filled(value: object, values: Mapping[str, object]) -> object:
    if isinstance(value, dict):
        text = value.get(MARK)
        if len(value) == 1 and isinstance(text, str):
            return values[text]
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return value
