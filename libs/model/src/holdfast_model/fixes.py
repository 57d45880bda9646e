"""Fixes that reviewers propose: a JSON Patch (RFC 6902) of the target's spec.

How a fix travels: an AI review's answer carries it in its ``info`` as ``fix: {"patch": [{"op", "path", "value"}],
"note"?}``. The planner checks that it applies to the spec that is declared and that the type's schema takes the result.
A human review then shows it as ``advice`` and offers the outcome ``apply-fix``; where the AI review's spec says
``auto_apply`` it is carried out at once. Either way it becomes an UpdateNode of the owner ``policy:ai-review``, which
holds until a blueprint changes that node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .errors import Invalid, Problem
from .json_schemas import compile_schema
from .messages import NodeDeclaration
from .mutations import UpdateNode
from .names import AI_REVIEW
from .reasons import FailureKind
from .rows import Node

APPLY_FIX = "apply-fix"
"""The outcome of a human review that agrees to the proposed fix."""
FIXER = f"policy:{AI_REVIEW}"
"""Who declares what a fix has changed."""
FIX_INVALID = FailureKind.FIX_INVALID
"""The kind of a ``policy_failed`` about a fix that cannot be carried out."""
MAX_OPERATIONS = 100
MAX_PROBLEMS = 20


class Operation(msgspec.Struct, frozen=True, omit_defaults=True, rename={"source": "from"}):
    """One operation of a patch. ``path`` and ``source`` (in the document: ``from``) are JSON pointers."""

    op: str
    path: str
    value: Any = None
    source: str = ""


class Fix(msgspec.Struct, frozen=True, omit_defaults=True):
    """A proposal. ``note`` is for the person who decides."""

    patch: list[Operation]
    note: str = ""


def read_fix(info: Mapping[str, object] | None) -> Fix | None:
    """The fix in the answer of a review, if it holds one. Raises Invalid for one that cannot be read."""
    given = (info or {}).get("fix")
    if given is None:
        return None
    try:
        return msgspec.convert(given, Fix)
    except msgspec.ValidationError as e:
        raise Invalid(f"the fix cannot be read: {e}", [Problem("/fix", str(e))]) from e


def mended(node: Node, fix: Fix) -> UpdateNode:
    """``node`` with its declared spec patched. Raises Invalid, naming the operation, if the patch does not apply."""
    spec = patched(msgspec.json.decode(node.spec), fix.patch)
    if not isinstance(spec, dict):
        raise Invalid("the fix leaves no object as spec", [Problem("/fix/patch", "the result is no object")])
    raw = msgspec.Raw(msgspec.json.encode(spec, order="deterministic"))
    if spec == msgspec.json.decode(node.spec):
        raise Invalid("the fix changes nothing", [Problem("/fix/patch", "the result is the spec as it is")])
    return UpdateNode(node.id, NodeDeclaration(node.id, node.type, raw, node.gating.value, node.spec_gating.value))


def check_spec(spec: msgspec.Raw, schema: dict[str, Any] | None) -> None:
    """Raises Invalid, with pointers, for a spec that its type's schema refuses.

    One with references is left to its provisioner: what they stand for is not known here.
    """
    if schema is None or b'"$ref"' in bytes(spec):
        return
    try:
        validator = compile_schema(schema)
    except ValueError:
        return  # its domain checks again
    found = [(pointer_to(e.instance_path), e.message) for e in validator.iter_errors(msgspec.json.decode(spec))]
    if found:
        problems = [Problem(f"/spec{place}", message) for place, message in found[:MAX_PROBLEMS]]
        raise Invalid(f"the fix makes a spec that is not valid: {problems[0].path}: {problems[0].message}", problems)


def pointer_to(tokens: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in tokens)


def patched(document: Any, patch: list[Operation]) -> Any:
    """``document`` (plain JSON data; it may be changed) after all operations. Raises Invalid; see :func:`mended`."""
    if len(patch) > MAX_OPERATIONS:
        raise Invalid(f"{len(patch)} operations; at most {MAX_OPERATIONS}", [Problem("/fix/patch", "too long")])
    root = [document]  # so that the whole document is a member of something as well
    for i, operation in enumerate(patch):
        try:
            _carry_out(root, operation)
        except (KeyError, IndexError, ValueError, TypeError) as e:
            text = f"{operation.op} {operation.path}: {e}"
            raise Invalid(f"the fix does not apply: {text}", [Problem(f"/fix/patch/{i}", text)]) from e
    return root[0]


def _carry_out(root: list[Any], operation: Operation) -> None:
    match operation.op:
        case "add":
            _add(root, operation.path, operation.value)
        case "remove":
            _remove(root, operation.path)
        case "replace":
            parent, key = _member(root, operation.path)
            parent[key] = operation.value
        case "move":
            _add(root, operation.path, _remove(root, operation.source))
        case "copy":
            parent, key = _member(root, operation.source)
            _add(root, operation.path, msgspec.json.decode(msgspec.json.encode(parent[key])))
        case "test":
            parent, key = _member(root, operation.path)
            if parent[key] != operation.value:
                raise ValueError(f"it is {parent[key]!r}, not {operation.value!r}")
        case _:
            raise ValueError("not one of add, remove, replace, move, copy, test")


def _add(root: list[Any], path: str, value: Any) -> None:
    parent, token = _parent(root, path)
    if isinstance(parent, list) and parent is not root:
        at = len(parent) if token == "-" else _index(token)
        if at > len(parent):
            raise IndexError(f"{token} is beyond the end of the list")
        parent.insert(at, value)
    else:
        parent[0 if parent is root else token] = value


def _remove(root: list[Any], path: str) -> Any:
    parent, key = _member(root, path)
    if parent is root:
        raise ValueError("the whole spec cannot go")
    return parent.pop(key)


def _member(root: list[Any], path: str) -> tuple[Any, Any]:
    """Where a value is: its parent and its key there. Raises LookupError when it is not there."""
    parent, token = _parent(root, path)
    key = (0 if parent is root else _index(token)) if isinstance(parent, list) else token
    parent[key]
    return parent, key


def _parent(root: list[Any], path: str) -> tuple[Any, str]:
    if path == "":
        return root, ""
    if not path.startswith("/"):
        raise ValueError("a JSON pointer begins with /")
    tokens = [t.replace("~1", "/").replace("~0", "~") for t in path.split("/")[1:]]
    parent = root[0]
    for token in tokens[:-1]:
        parent = parent[_index(token) if isinstance(parent, list) else token]
    if not isinstance(parent, dict | list):
        raise ValueError("nothing can be a member of a plain value")
    return parent, tokens[-1]


def _index(token: str) -> int:
    if not token.isdecimal() or (len(token) > 1 and token[0] == "0"):
        raise ValueError(f"{token!r} is no index of a list")
    return int(token)
