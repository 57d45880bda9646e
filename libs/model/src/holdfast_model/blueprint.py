"""Blueprints as users write them: JSON or YAML in, one checked document out, every problem with its place.

A body is a domain's blueprint ``{"domain", "spec"}``, a raw graph ``{"nodes": [...]}``, or ``{"delete": true}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml
from msgspec import Raw

from .desired import LAST_WRITER, STRATEGIES
from .errors import Invalid, Problem
from .messages import NodeDeclaration
from .names import BUILT_IN_TYPES, check_label, check_node_id, check_type
from .rows import Declaration, Gating, declare, declares

NEWLINE = b"\n"
MAX_YAML = 1_000_000
MAX_NODES = 1_000_000
_MAX_PROBLEMS = 20
DEFAULT_OWNER = "main"
_GATINGS = frozenset(Gating.__members__)


class RawNode(NodeDeclaration, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node as people write it: a misspelt key is an error."""


class Blueprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One document. ``name`` is the owner whose declaration it replaces."""

    domain: str = ""
    spec: Raw = Raw(b"")
    nodes: list[RawNode] | None = None
    name: str = DEFAULT_OWNER
    conflict: str = LAST_WRITER
    allow_removals: bool = False
    delete: bool = False


_decode = msgspec.json.Decoder(Blueprint).decode
_WHERE = re.compile(r" - at `(?:key in )?\$(.*)`$")
_TOKENS = re.compile(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]")
_BYTE = re.compile(r"\(byte (\d+)\)")


def parse_blueprint(body: bytes) -> Blueprint:
    """The blueprint in ``body``; raises Invalid with JSON pointers, or line and column where it cannot be read."""
    text = body.lstrip()
    document = body if text[:1] in (b"{", b"[") else msgspec.json.encode(_from_yaml(body))
    blueprint = _from_json(document)
    _check(blueprint)
    return blueprint


def _from_json(body: bytes) -> Blueprint:
    try:
        return _decode(body)
    except msgspec.ValidationError as e:
        message, pointer = str(e), ""
        found = _WHERE.search(message)
        if found:
            message, pointer = message[: found.start()], _pointer(found.group(1))
        if "/..." in pointer:
            pointer = pointer.replace("/...", f"/{_first_bad_node(body)}", 1)
        unknown = re.search(r"contains unknown field `([^`]*)`", message)
        if unknown:
            pointer = f"{pointer}/{unknown.group(1)}"
        raise Invalid(f"the blueprint is not valid: {message}", [Problem(pointer, message)]) from e
    except msgspec.DecodeError as e:
        # A flow mapping of YAML begins like JSON: what JSON cannot read may still be that, if it is small.
        where = _position(body, str(e))
        raise Invalid(f"the blueprint is not JSON ({where}): {e}", [Problem(where, str(e))]) from e


class _Outline(msgspec.Struct):
    """A document whose nodes are left unread."""

    nodes: list[Raw] = []


def _first_bad_node(body: bytes) -> int:
    """msgspec does not say which item of a list is wrong: look again, one by one."""
    nodes = msgspec.json.decode(body, type=_Outline).nodes
    for i, node in enumerate(nodes):
        try:
            msgspec.json.decode(node, type=RawNode)
        except msgspec.ValidationError:
            return i
    return 0


def _pointer(path: str) -> str:
    return "".join(f"/{name or index}" for name, index in _TOKENS.findall(path))


def _position(body: bytes, message: str) -> str:
    found = _BYTE.search(message)
    at = min(int(found.group(1)), len(body)) if found else len(body)
    line = body.count(NEWLINE, 0, at) + 1
    return f"line {line}, column {at - body.rfind(NEWLINE, 0, at)}"


def _from_yaml(body: bytes) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if len(body) > MAX_YAML:
        text = f"{len(body)} bytes that are not JSON: YAML is read up to {MAX_YAML} bytes"
        raise Invalid(text, [Problem("line 1, column 1", text)], hint="publish large blueprints as JSON")
    try:
        content = body.decode()
        for event in yaml.parse(content, Loader=loader):
            if isinstance(event, yaml.AliasEvent):
                mark = event.start_mark
                where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "line 1, column 1"
                text = "aliases are not allowed in blueprints"
                raise Invalid(text, [Problem(where, text)])
        value = yaml.load(content, Loader=loader)
    except UnicodeDecodeError as e:
        text = f"neither JSON nor YAML: byte {e.start} is not UTF-8"
        raise Invalid(text, [Problem("line 1, column 1", text)]) from e
    except yaml.MarkedYAMLError as e:
        at = e.problem_mark or e.context_mark
        where = f"line {at.line + 1}, column {at.column + 1}" if at else "line 1, column 1"
        text = f"neither JSON nor YAML: {e.problem or e}"
        raise Invalid(f"{text} ({where})", [Problem(where, text)]) from e
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        text = f"neither JSON nor YAML: {e}"
        raise Invalid(text, [Problem("line 1, column 1", text)]) from e
    if not isinstance(value, dict):
        text = "a blueprint is a mapping with 'domain' and 'spec', or with 'nodes'"
        raise Invalid(text, [Problem("line 1, column 1", text)])
    return value


def _check(blueprint: Blueprint) -> None:
    problems: list[Problem] = []
    check_label(blueprint.name, "name", "/name")
    if blueprint.conflict not in STRATEGIES:
        pass  # accepted, with a warning: see warnings_of
    if blueprint.delete:
        return
    if (blueprint.nodes is None) == (not blueprint.domain):
        text = "give either 'domain' with 'spec', or 'nodes'"
        problems.append(Problem("", text))
    elif blueprint.domain:
        check_label(blueprint.domain, "domain", "/domain")
        if not bytes(blueprint.spec):
            problems.append(Problem("/spec", "a domain's blueprint needs a 'spec'"))
    elif blueprint.nodes is not None and len(blueprint.nodes) > MAX_NODES:
        problems.append(Problem("/nodes", f"{len(blueprint.nodes)} nodes; at most {MAX_NODES}"))
    if problems:
        raise Invalid(f"the blueprint is not valid: {problems[0].message}", problems)


def warnings_of(blueprint: Blueprint) -> list[str]:
    """What was accepted although it is probably not meant."""
    if blueprint.conflict in STRATEGIES:
        return []
    return [f"unknown conflict strategy {blueprint.conflict!r}: {LAST_WRITER} is used"]


def declarations(
    nodes: Sequence[NodeDeclaration],
    pointer: str = "/nodes",
    known: Callable[[str], Declaration | None] | None = None,
) -> list[tuple[str, Declaration]]:
    """Checked declarations of raw nodes: ids, types, gatings, no id twice, no node that depends on itself.

    What ``known`` says of a node already is used again where the document says the same, letter by letter: a document
    that was edited in few places costs little more than reading it. Then the new specs are copied, so that they do
    not keep the whole document in memory.
    """
    problems: list[Problem] = []
    seen: set[str] = set()
    out: list[tuple[str, Declaration]] = []
    types: set[str] = set()
    names: dict[str, str] = {}
    fresh: list[int] = []
    for i, node in enumerate(nodes):
        try:
            if node.id in seen:
                _raise(f"node id {node.id!r} is used twice", f"{pointer}/{i}/id")
            seen.add(node.id)
            old = known(node.id) if known is not None else None
            if old is not None and declares(old, node):
                out.append((node.id, old))
                continue
            check_node_id(node.id, f"{pointer}/{i}/id")
            if node.type not in types:
                check_type(node.type, f"{pointer}/{i}/type")
                if node.type in BUILT_IN_TYPES:
                    _raise(f"type {node.type!r} is built in: only policies add such nodes", f"{pointer}/{i}/type")
                types.add(node.type)
            for name, value in (("gating", node.gating), ("spec_gating", node.spec_gating)):
                if value not in _GATINGS:
                    _raise(f"{name} {value!r} is not one of {', '.join(Gating)}", f"{pointer}/{i}/{name}")
            fresh.append(len(out))
            out.append((names.setdefault(node.id, node.id), declare(node, names)))
        except Invalid as e:
            problems.extend(e.problems)
            if len(problems) >= _MAX_PROBLEMS:
                break
    if problems:
        raise Invalid(f"the blueprint is not valid: {problems[0].message}", problems)
    if 2 * len(fresh) < len(out):
        for at in fresh:
            node_id, new = out[at]
            out[at] = (node_id, msgspec.structs.replace(new, spec=new.spec.copy()))
    return out


def _raise(text: str, pointer: str) -> None:
    raise Invalid(text, [Problem(pointer, text)])


def pointers(nodes: Sequence[NodeDeclaration], pointer: str = "/nodes") -> Mapping[str, str]:
    """Where each node stands in the document, for errors that are found later; worked out when one is."""
    return _Places([node.id for node in nodes], pointer)


class _Places(Mapping[str, str]):
    def __init__(self, ids: list[str], pointer: str) -> None:
        self._ids = ids
        self._pointer = pointer

    def __getitem__(self, node: str) -> str:
        try:
            return f"{self._pointer}/{self._ids.index(node)}"
        except ValueError:
            raise KeyError(node) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def removes_too_much(removed: int, before: int, *, least: int = 10, share: float = 0.5) -> bool:
    """Blast radius: at least ``least`` nodes and more than ``share`` of the graph would go."""
    return removed >= least and removed > before * share
