"""From blueprint to declared nodes. Pure: data in, declarations or Invalid (with JSON pointers) out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from msgspec import Raw

from holdfast_model.errors import HoldfastError, Invalid, Problem
from holdfast_model.messages import CompiledPhase, CompileReply, NodeDeclaration
from holdfast_model.names import check_node_id
from holdfast_model.phases import CompleteWhen
from holdfast_model.rows import Gating

from .refs import Ref, refs_in
from .specs import SpecCodec, encode, plain

COMPLETE_WHEN = tuple(c.value for c in CompleteWhen)
Compiler = Callable[[Any, "GraphBuilder"], None]


class Added:
    """A node that was added; ``ref`` makes references to what it will publish."""

    __slots__ = ("id",)

    def __init__(self, id: str) -> None:
        self.id = id

    def ref(self, *tokens: str | int) -> Ref:
        """``web.ref("ports", 0)`` stands for ``/ports/0`` of this node's outputs."""
        return Ref.to(self.id, *tokens)


class GraphBuilder:
    """Collects the nodes a blueprint stands for, and everything that is wrong with it.

    ``tenant`` and ``graph`` say for whom it is compiled. Problems are collected, so that one answer names
    them all.
    """

    def __init__(
        self,
        types: Mapping[str, SpecCodec[Any]],
        tenant: str = "",
        graph: str = "",
        foreign: Collection[str] = (),
    ) -> None:
        self.tenant = tenant
        self.graph = graph
        self._types = types
        self._foreign = frozenset(foreign)
        self._nodes: dict[str, NodeDeclaration] = {}
        self._target = self._nodes
        self._phases: dict[str, CompiledPhase] = {}
        self._problems: list[Problem] = []
        self._warnings: list[str] = []

    def add(
        self,
        id: str,
        type: str,
        spec: object = None,
        depends_on: Iterable[str | Added] = (),
        gating: str = "NONE",
        *,
        spec_gating: str = "NONE",
        at: str = "",
    ) -> Added:
        """Declare a node. ``spec`` is a pydantic model, a msgspec struct, a dataclass or a dict; a
        :class:`Ref` in it adds its edge. ``gating`` (NONE, PROVISION_ONLY, DEPROVISION_ONLY, ALL) asks a
        person first. ``at`` is the JSON pointer of the place in the blueprint that this node comes from;
        errors name it. Outside of :meth:`phase`, it is part of every phase, and none waits for it.
        """
        edges = [d.id if isinstance(d, Added) else d for d in depends_on]
        try:
            check_node_id(id, at)
            if id in self:
                raise Invalid(f"node {id!r} is declared twice", [Problem(at, f"node {id!r} is declared twice")])
            raw, refs = self._spec(id, type, spec, at)
            edges.extend(r.node for r in refs)
            if id in edges:
                raise Invalid(f"node {id!r} depends on itself", [Problem(at, f"node {id!r} depends on itself")])
            for what in (gating, spec_gating):
                if what not in Gating.__members__:
                    text = f"gating {what!r} of node {id!r} is none of {', '.join(Gating)}"
                    raise Invalid(text, [Problem(at, text)])
            self._target[id] = NodeDeclaration(id, type, raw, gating, spec_gating, tuple(dict.fromkeys(edges)))
        except Invalid as e:
            self._problems.extend(e.problems or [Problem(at, e.message)])
        return Added(id)

    def __contains__(self, id: str) -> bool:
        return id in self._nodes or id in self._target

    @contextmanager
    def phase(
        self, id: str, complete_when: str = "all_present", deadline: str | float | None = None, *, at: str = ""
    ) -> Iterator[Self]:
        """``with graph.phase("build"): graph.add(...)``: a phase after those before it, and the nodes it has.

        The next one begins when all of them are there (``all_present``); one that lasts is the last (``never``).
        ``deadline`` is a duration from the start of the phase (``"10m"``) or an instant (RFC 3339). A node may be in
        several phases: where it is declared alike, nothing happens to it in between.
        """
        if id in self._phases:
            self.problem(at, f"phase {id!r} is declared twice")
        if complete_when not in COMPLETE_WHEN:
            self.problem(at, f"complete_when {complete_when!r} is none of {', '.join(COMPLETE_WHEN)}")
        if self._target is not self._nodes:
            raise Invalid(f"phase {id!r} is declared inside of another", [Problem(at, "phases do not nest")])
        self._target = {}
        try:
            yield self
        finally:
            self._phases[id] = CompiledPhase(id, list(self._target.values()), complete_when, deadline)
            self._target = self._nodes

    def problem(self, pointer: str, message: str) -> None:
        """Refuse the blueprint, naming a place in it; compiling may go on to find more."""
        self._problems.append(Problem(pointer, message))

    def warn(self, text: str) -> None:
        """Accept the blueprint, but tell its author something."""
        self._warnings.append(text)

    def build(self) -> CompileReply:
        """What was added. Raises Invalid with everything that is wrong."""
        if self._problems:
            first = self._problems[0]
            more = f" (and {len(self._problems) - 1} more)" if len(self._problems) > 1 else ""
            raise Invalid(f"{first.path or '/'}: {first.message}{more}", self._problems)
        return CompileReply(list(self._nodes.values()), self._warnings, list(self._phases.values()))

    def _spec(self, id: str, type: str, spec: object, at: str) -> tuple[Raw, list[Ref]]:
        codec = self._types.get(type)
        if codec is None and type not in self._foreign:
            known = ", ".join(sorted(self._types)) or "none"
            text = f"node {id!r} has the type {type!r}; this domain has {known}"
            raise Invalid(text, [Problem(at, text)])
        try:
            raw = encode({} if spec is None else spec)
        except (TypeError, ValueError) as e:
            raise Invalid(f"the spec of node {id!r} is no JSON: {e}", [Problem(at, str(e))]) from e
        if codec is not None:
            codec.check({} if spec is None else spec, at)
        if b'"$ref"' not in raw:
            return Raw(raw), []
        try:
            return Raw(raw), [ref for _, ref in refs_in(plain(spec))]
        except ValueError as e:
            raise Invalid(f"node {id!r}: {e}", [Problem(at, str(e))]) from e


def compile_blueprint(
    compiler: Compiler,
    blueprint: SpecCodec[Any],
    types: Mapping[str, SpecCodec[Any]],
    spec: bytes | Raw,
    tenant: str = "",
    graph: str = "",
    foreign: Collection[str] = (),
) -> CompileReply:
    """Validate a blueprint's ``spec`` and run the author's compiler. Raises Invalid; pointers are inside
    ``spec``.

    An exception that the compiler did not mean to raise is Invalid as well: the blueprint cannot be used, and
    the running graph must not suffer.
    """
    value = blueprint.decode(spec)
    builder = GraphBuilder(types, tenant, graph, foreign)
    try:
        compiler(value, builder)
    except HoldfastError:
        raise
    except Exception as e:
        text = f"the compiler failed: {type(e).__name__}: {e}"
        raise Invalid(text, [Problem("", text)]) from e
    return builder.build()


__all__ = ["Added", "Compiler", "GraphBuilder", "compile_blueprint"]
