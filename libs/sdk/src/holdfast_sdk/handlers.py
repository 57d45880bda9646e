"""Handlers: an author's methods, found on the instances that are passed in, with their spec types."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from holdfast_model.errors import Invalid, Problem
from holdfast_model.manifest import NodeType

from .context import Context
from .nodes import Node
from .specs import SpecCodec

ROLES = ("observe", "observe_many", "provision", "deprovision", "discover", "watch")

Act = Callable[[Node[Any], Context], Awaitable[object]]
ObserveMany = Callable[[Sequence[Node[Any]], Context], Awaitable[Mapping[str, object]]]
Discover = Callable[[Context], Awaitable[Iterable["str | Found"]]]
Watcher = Callable[[], AsyncIterator["Changed"]]


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ``watch`` yields: a node changed outside. The planner observes it and what depends on it.

    ``status``, ``fault`` (a fault type) and ``detail`` are what is known already; all may stay empty.
    """

    tenant: str
    graph: str
    node: str
    status: str = ""
    fault: str = ""
    detail: str = ""


class Found(msgspec.Struct, frozen=True):
    """What ``discover`` may return instead of an id alone: with its ``spec`` (of the type, or plain data), it can be
    taken into a blueprint by ``holdfast import``, and is told to ``deprovision`` where leftovers are removed.

    ``depends_on`` and ``gating`` (``"PROVISION_ONLY"``, ``"DEPROVISION_ONLY"``, ``"ALL"``: steps that a person must
    agree to) are those of that blueprint; a gated removal asks first, too.
    """

    id: str
    spec: object = None
    depends_on: Sequence[str] = ()
    gating: str = "NONE"


class Bound(msgspec.Struct, frozen=True):
    """One node type with the handler instance that serves it."""

    type: NodeType
    codec: SpecCodec[Any]
    provision: Act | None = None
    deprovision: Act | None = None
    observe: Act | None = None
    observe_many: ObserveMany | None = None
    discover: Discover | None = None
    watch: Watcher | None = None


def has_role(cls: type[Any], role: str) -> bool:
    """Whether a handler class has the method; raises Invalid when it is not async."""
    method = getattr(cls, role, None)
    if method is None:
        return False
    if not (inspect.iscoroutinefunction(method) or (role == "watch" and inspect.isasyncgenfunction(method))):
        kind = "an async generator" if role == "watch" else "async"
        raise Invalid(f"{cls.__name__}.{role} must be {kind}")
    return True


def spec_type(cls: type[Any]) -> type[Any] | None:
    """``S`` of the ``Node[S]`` in the annotations of a handler class; None where nothing is annotated.

    Raises Invalid when annotations cannot be resolved or disagree.
    """
    found: dict[str, Any] = {}
    for role in ("provision", "observe", "deprovision", "observe_many"):
        method = getattr(cls, role, None)
        if method is None:
            continue
        annotation = _first_annotation(cls, method)
        spec = _spec_of(annotation)
        if spec is not None:
            found[role] = spec
    kinds = list(dict.fromkeys(found.values()))
    if len(kinds) > 1:
        named = ", ".join(f"{role}: {getattr(kind, '__name__', kind)}" for role, kind in found.items())
        raise Invalid(f"{cls.__name__} is annotated with different spec types ({named})")
    return kinds[0] if kinds else None


def codec_for(cls: type[Any], spec: type[Any] | None) -> SpecCodec[Any]:
    """The codec of a handler class's spec; ``spec`` (if given) overrides its annotations."""
    kind = spec or spec_type(cls)
    try:
        return SpecCodec(None if kind is None or get_origin(kind) is dict else kind)
    except (TypeError, ValueError) as e:
        raise Invalid(f"the spec type of {cls.__name__} cannot be read from JSON: {e}") from e


def bind(
    declared: Mapping[str, tuple[type[Any], NodeType, SpecCodec[Any]]], handlers: Sequence[object]
) -> dict[str, Bound]:
    """Pair every declared type with the instance of its class; a class without arguments is made here.

    Raises Invalid naming what is missing or too much.
    """
    bound: dict[str, Bound] = {}
    used: set[int] = set()
    made: dict[type[Any], object] = {}
    for name, (cls, node_type, codec) in declared.items():
        matches = [h for h in handlers if type(h) is cls] or [h for h in handlers if isinstance(h, cls)]
        if len(matches) > 1:
            raise Invalid(f"{len(matches)} instances of {cls.__name__} were passed for type {name!r}")
        if not matches and cls not in made:
            made[cls] = _make(cls, name)
        instance = matches[0] if matches else made[cls]
        used.add(id(instance))
        methods = {role: getattr(instance, role) for role in ROLES if has_role(cls, role)}
        bound[name] = Bound(node_type, codec, **methods)
    strange = [type(h).__name__ for h in handlers if id(h) not in used]
    if strange:
        raise Invalid(f"{', '.join(strange)} handles no type of this domain", [Problem("", ", ".join(strange))])
    return bound


def _make(cls: type[Any], name: str) -> object:
    try:
        inspect.signature(cls).bind()
    except TypeError as e:
        text = f"no handler for type {name!r}: pass an instance of {cls.__name__} (it {e})"
        raise Invalid(text, [Problem("", text)]) from e
    return cls()


def _first_annotation(cls: type[Any], method: Callable[..., Any]) -> Any:
    parameters = list(inspect.signature(method).parameters)
    names = [p for p in parameters if p != "self"]
    if not names or names[0] not in getattr(method, "__annotations__", {}):
        return None
    try:
        return get_type_hints(method).get(names[0])
    except NameError as e:
        raise Invalid(
            f"the annotations of {cls.__name__}.{method.__name__} cannot be resolved ({e}); "
            "define the spec type at module level or pass node_type(..., spec=...)"
        ) from e


def _spec_of(annotation: Any) -> Any:
    if annotation is None:
        return None
    if get_origin(annotation) is Node:
        (spec,) = get_args(annotation)
        return None if spec is Any else spec
    for argument in get_args(annotation):
        spec = _spec_of(argument)
        if spec is not None:
            return spec
    return None
