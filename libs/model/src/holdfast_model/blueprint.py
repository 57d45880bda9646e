"""Blueprints as users write them: JSON or YAML in, one checked document out, every problem with its place.

A body is a domain's blueprint ``{"domain", "spec"}``, a raw graph ``{"nodes": [...]}``, several of them
``{"parts": [...], "compose": "overlay" | "connect"}``, a list of phases ``{"phases": [{"id", "graph"}, ...]}``, or
``{"delete": true}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from .blueprint_parts import (
    MODES,
    Compose,
    Mode,
    Move,
    Part,
    PhasePart,
    RawNode,
    moves_problems,
    part_problems,
    parts_problems,
    pattern_problems,
    phases_problems,
    policy_problems,
)
from .desired import LAST_WRITER, STRATEGIES
from .errors import Invalid, Problem
from .manifest import Ladder, Rung
from .messages import NodeDeclaration
from .names import BUILT_IN_TYPES, check_label, check_node_id, check_type
from .plain import Unreadable, repeated_key, too_deep_at
from .rows import Declaration, Gating, declare, declares
from .yaml_text import MAX_YAML, from_yaml

NEWLINE = b"\n"
MAX_SPEC = 4_000_000
"""Bytes of one node's spec: it must fit into a message, with what travels along."""
_MAX_PROBLEMS = 20
DEFAULT_OWNER = "main"
ANY_OWNER = "*"
"""The name of a deletion that names nobody: it is meant for everything."""
_GATINGS = frozenset(Gating.__members__)


class Blueprint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"omit": "except"}):
    """One document. ``name`` is the owner whose declaration it replaces.

    ``only`` and ``omit`` (in the document: ``except``) select by id, glob or ``type:<type>`` what of it is declared;
    the rest of the owner's nodes stays as it was. ``mode`` and ``ladders`` hold for this owner's nodes.
    ``deadline`` is a duration or an instant (RFC 3339).
    """

    domain: str = ""
    spec: Raw = Raw(b"")
    nodes: list[RawNode] | None = None
    parts: list[Part] | None = None
    phases: list[PhasePart] | None = None
    deadline: str | float | None = None
    compose: str = Compose.OVERLAY.value
    name: str = DEFAULT_OWNER
    conflict: str = LAST_WRITER
    allow_removals: bool = False
    delete: bool = False
    moved: tuple[Move, ...] = ()
    only: tuple[str, ...] | None = None
    omit: tuple[str, ...] = ()
    mode: str = Mode.ENFORCE.value
    ladders: tuple[Ladder, ...] = ()

    @property
    def sources(self) -> list[tuple[str, Part]]:
        """Where its nodes come from, each with its place in the document."""
        if self.phases is not None:
            return [phase.source(f"/phases/{i}") for i, phase in enumerate(self.phases)]
        if self.parts is None:
            return [("", Part(self.domain, self.spec, self.nodes))]
        return [(f"/parts/{i}", part) for i, part in enumerate(self.parts)]

    @property
    def domains(self) -> list[str]:
        """The domains it needs to be compiled by, in the order in which it names them."""
        if self.delete:
            return []
        return list(dict.fromkeys(part.domain for _, part in self.sources if part.domain))


class _Named(msgspec.Struct):
    """The part of a deletion that says whose nodes go."""

    name: str | None = None


_decode = msgspec.json.Decoder(Blueprint).decode
_WHERE = re.compile(r" - at `(?:key in )?\$(.*)`$")
_TOKENS = re.compile(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]")
_BYTE = re.compile(r"\(byte (\d+)\)")


def parse_blueprint(body: bytes) -> Blueprint:
    """The blueprint in ``body``; raises Invalid with JSON pointers, or line and column where it cannot be read."""
    text = body.lstrip()
    document = body if text[:1] in (b"{", b"[") else msgspec.json.encode(from_yaml(body))
    blueprint = _from_json(document)
    if len(document) <= MAX_YAML and (twice := repeated_key(document)) is not None:
        message = f"the key {twice.rpartition('/')[2]!r} stands twice in one object"
        raise Invalid(message, [Problem(twice, message)])
    _check(blueprint)
    if blueprint.delete and msgspec.json.decode(document, type=_Named).name is None:
        return msgspec.structs.replace(blueprint, name=ANY_OWNER)
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
            pointer = _first_bad_item(body, pointer)
        unknown = re.search(r"contains unknown field `([^`]*)`", message)
        if unknown:
            pointer = f"{pointer}/{unknown.group(1)}"
        raise Invalid(f"the blueprint is not valid: {message}", [Problem(pointer, message)]) from e
    except msgspec.DecodeError as e:
        where = _position(body, str(e))
        raise Invalid(f"the blueprint is not JSON ({where}): {e}", [Problem(where, str(e))]) from e
    except RecursionError as e:
        at, text = too_deep_at(body)
        where = _line_and_column(body, at)
        raise Invalid(f"the blueprint is not valid ({where}): {text}", [Problem(where, text)]) from e


_ITEMS: dict[str, Any] = {
    "nodes": RawNode, "parts": Part, "phases": PhasePart, "moved": Move, "only": str, "except": str, "ladders": Ladder,
    "faults": str, "rungs": Rung, "node_types": str, "skip_types": str, "depends_on": str,
}  # fmt: skip


def _first_bad_item(body: bytes, pointer: str) -> str:
    """msgspec does not say which item of a list is wrong: look again, one by one."""
    value: Raw = Raw(body)
    done: list[str] = []
    for token in pointer.split("/")[1:]:
        if token == "...":
            items = msgspec.json.decode(value, type=list[Raw])
            kind = _ITEMS.get(done[-1], Any)
            bad = next((i for i, item in enumerate(items) if not _fits(item, kind)), 0)
            token, value = str(bad), items[bad]
        else:
            value = msgspec.json.decode(value, type=dict[str, Raw]).get(token, Raw(b"null"))
        done.append(token)
    return "".join(f"/{token}" for token in done)


def _fits(item: Raw, kind: Any) -> bool:
    try:
        msgspec.json.decode(item, type=kind)
    except msgspec.ValidationError:
        return False
    return True


def _pointer(path: str) -> str:
    return "".join(f"/{name or index}" for name, index in _TOKENS.findall(path))


def _position(body: bytes, message: str) -> str:
    found = _BYTE.search(message)
    return _line_and_column(body, min(int(found.group(1)), len(body)) if found else len(body))


def _line_and_column(body: bytes, at: int) -> str:
    line = body.count(NEWLINE, 0, at) + 1
    return f"line {line}, column {at - body.rfind(NEWLINE, 0, at)}"


def _check(blueprint: Blueprint) -> None:
    check_label(blueprint.name, "name", "/name")
    if blueprint.delete:
        named = [(field, given) for field, given in (("only", blueprint.only), ("except", blueprint.omit)) if given]
        if named:  # taken for nothing, it would remove everything
            text = f"a deletion takes no {named[0][0]!r}"
            hint = "to remove some nodes, publish a version without them, with these in 'only'"
            raise Invalid(text, [Problem(f"/{field}", text) for field, _ in named], hint=hint)
        return
    if blueprint.phases is not None:
        problems = _phased(blueprint, blueprint.phases)
    elif blueprint.parts is None:
        problems = part_problems(Part(blueprint.domain, blueprint.spec, blueprint.nodes), "")
    elif blueprint.domain or bytes(blueprint.spec) or blueprint.nodes is not None:
        problems = [Problem("/parts", "a blueprint in parts has no 'domain', 'spec' or 'nodes' of its own")]
    else:
        problems = parts_problems(blueprint.parts, blueprint.compose)
    problems += _selecting(blueprint) + pattern_problems(blueprint.omit, "/except")
    problems += moves_problems(blueprint.moved) + policy_problems(blueprint.ladders)
    if blueprint.mode not in MODES:
        problems.append(Problem("/mode", f"{blueprint.mode!r} is not one of {', '.join(sorted(MODES))}"))
    if problems:
        raise Invalid(f"the blueprint is not valid: {problems[0].message}", problems)


def _selecting(blueprint: Blueprint) -> list[Problem]:
    if blueprint.only is None:
        return []
    if not blueprint.only:  # perhaps worked out by a program: taken for "everything", it would do the opposite
        return [Problem("/only", "it selects nothing; leave 'only' out to declare every node")]
    return pattern_problems(blueprint.only, "/only")


def _phased(blueprint: Blueprint, phases: Sequence[PhasePart]) -> list[Problem]:
    problems = phases_problems(phases)
    if blueprint.domain or bytes(blueprint.spec) or blueprint.nodes is not None or blueprint.parts is not None:
        problems.append(Problem("/phases", "a blueprint in phases has no 'domain', 'spec', 'nodes' or 'parts'"))
    for name, patterns in (("only", blueprint.only), ("except", blueprint.omit)):
        if patterns:
            problems.append(Problem(f"/{name}", "a blueprint in phases is declared as a whole"))
    return problems


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
            if (size := memoryview(node.spec).nbytes) > MAX_SPEC:
                _raise(f"the spec has {size:,} bytes; at most {MAX_SPEC:,}", f"{pointer}/{i}/spec")
            for name, value in (("gating", node.gating), ("spec_gating", node.spec_gating)):
                if value not in _GATINGS:
                    _raise(f"{name} {value!r} is not one of {', '.join(Gating)}", f"{pointer}/{i}/{name}")
            fresh.append(len(out))
            out.append((names.setdefault(node.id, node.id), declare(node, names)))
        except Invalid as e:
            problems.extend(e.problems)
        except Unreadable as e:
            problems.append(Problem(f"{pointer}/{i}/spec{e.place}", str(e)))
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
