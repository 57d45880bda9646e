"""YAML as people write it, as data that JSON can say: one value for each key, no aliases, no odd keys or numbers."""

from __future__ import annotations

import math
from typing import Any

import yaml

from .errors import Invalid, Problem
from .plain import MAX_DEPTH, TOO_DEEP

MAX_YAML = 1_000_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TEXTS = frozenset(_TAG + kind for kind in ("str", "int", "timestamp", "merge", "value"))
_NOT_JSON = frozenset(_TAG + kind for kind in ("set", "omap", "pairs", "binary"))
_FLOAT = _TAG + "float"


def from_yaml(body: bytes) -> dict[str, Any]:
    """The mapping that a YAML document is. Raises Invalid with line and column."""
    if len(body) > MAX_YAML:
        text = f"{len(body)} bytes that are not JSON: YAML is read up to {MAX_YAML} bytes"
        raise Invalid(text, [Problem("line 1, column 1", text)], hint="publish large blueprints as JSON")
    try:
        value = _loaded(body.decode())
    except UnicodeDecodeError as e:
        text = f"neither JSON nor YAML: byte {e.start} is not UTF-8"
        raise Invalid(text, [Problem("line 1, column 1", text)]) from e
    except yaml.MarkedYAMLError as e:
        where, text = _where(e.problem_mark or e.context_mark), f"neither JSON nor YAML: {e.problem or e}"
        raise Invalid(f"{text} ({where})", [Problem(where, text)]) from e
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        text = f"neither JSON nor YAML: {e}"
        raise Invalid(text, [Problem("line 1, column 1", text)]) from e
    if not isinstance(value, dict):
        text = "a blueprint is a mapping with 'domain' and 'spec', or with 'nodes'"
        raise Invalid(text, [Problem("line 1, column 1", text)])
    return value


def documents(content: str, *, aliases: bool = True) -> list[Any]:
    """Every document of a stream, as JSON could say it. Raises Invalid, yaml.YAMLError, ValueError, RecursionError."""
    _check_events(content, aliases)
    loader = _LOADER(content)
    try:
        found = []
        while loader.check_node():
            root = loader.get_node()
            _check(root, loader)
            found.append(loader.construct_document(root))
        return found
    finally:
        loader.dispose()


def _loaded(content: str) -> Any:
    found = documents(content, aliases=False)
    if len(found) > 1:
        raise ValueError(f"{len(found)} documents, where one is expected")
    return found[0] if found else None


def _check_events(content: str, aliases: bool) -> None:
    """Raises Invalid for what is too deep (composing it could end the process), and perhaps for aliases."""
    depth = 0
    for event in yaml.parse(content, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise _refused(event.start_mark, "aliases are not allowed in blueprints")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _refused(event.start_mark, TOO_DEEP)


def _check(root: yaml.Node, loader: Any) -> None:
    """Raises Invalid for what YAML can say and JSON cannot."""
    nodes, known = [root], set[int]()
    while nodes:
        node = nodes.pop()
        if id(node) in known:  # by an alias
            continue
        known.add(id(node))
        if node.tag in _NOT_JSON:
            raise _refused(node.start_mark, f"!!{node.tag.removeprefix(_TAG)} is nothing that JSON can say")
        if isinstance(node, yaml.SequenceNode):
            nodes += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                _check_key(key, seen)
            nodes += [value for _, value in reversed(node.value)]
        elif node.tag == _FLOAT and not math.isfinite(loader.construct_yaml_float(node)):
            raise _refused(node.start_mark, f"{node.value} is no number that JSON can say")


def _check_key(key: yaml.Node, seen: set[str]) -> None:
    if not isinstance(key, yaml.ScalarNode):
        raise _refused(key.start_mark, "a key is a text, not a list or mapping")
    if key.tag not in _TEXTS:
        kind = key.tag.removeprefix(_TAG)
        raise _refused(key.start_mark, f"the key {key.value!r} is read as a {kind}, not as a text; put it in quotes")
    if key.value in seen:
        raise _refused(key.start_mark, f"the key {key.value!r} stands twice in one mapping")
    seen.add(key.value)


def _where(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "line 1, column 1"


def _refused(mark: Any, text: str) -> Invalid:
    return Invalid(text, [Problem(_where(mark), text)])
