"""Ladders: fault policies as data. Conditions are CEL, compiled once; evaluation is pure.

A ladder counts the faults it cares about and, on each one, lets the first rung act whose condition holds. A
rung adds one node, and only if it is absent. Conditions see ``fault`` (all fields of
:class:`~holdfast_model.events.Fault`), ``node`` (the id of the faulted node), ``count`` (this ladder's
count, this fault included) and ``review(id)``, which is ``""`` (absent), ``PENDING``, ``RESOLVED`` or
``UNRESOLVED``.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import cel
import msgspec

from .errors import HoldfastError, Invalid, Problem
from .events import Fault, FaultType
from .manifest import AddNode as RungNode
from .manifest import Ladder
from .mutations import AddNode, Mutation, declaration
from .named_rules import compile_each, problems_of
from .names import BUILT_IN_TYPES, check_node_id, check_type
from .rows import Gating
from .thresholds import Admission, NodeCounts, ReviewMark, Tally, admit, review_spec

ABSENT = ""
PENDING = "PENDING"
RESOLVED = "RESOLVED"
UNRESOLVED = "UNRESOLVED"
ANSWERS = frozenset({PENDING, RESOLVED, UNRESOLVED})

ON_RECOVERY = "on_recovery"
NEVER = "never"


class Review(msgspec.Struct, frozen=True):
    """A review node as a ladder sees it: the reason of its last observation, and the episode it was added
    for.
    """

    state: str = PENDING
    episode: str = ""

    def belongs_to(self, fault: Fault) -> bool:
        """False for the left-over of an episode that has ended: it says nothing about this one."""
        return not self.episode or not fault.episode or self.episode == fault.episode


class CompiledLadder:
    """A ladder whose conditions are compiled. Raises Invalid (pointers below ``path``) if it is not valid."""

    def __init__(self, ladder: Ladder, path: str = "") -> None:
        self.ladder = ladder
        self.path = path
        problems: list[Problem] = []
        self._asked: set[str] = set()
        self._programs = _compile(ladder, path, problems)
        problems += _shape_problems(ladder, path)
        if not problems:
            problems += self._trial()
        if problems:
            raise Invalid(f"ladder {ladder.name!r} is not valid: {problems[0].message}", problems)

    @property
    def name(self) -> str:
        """The ladder's name, which is also the namespace of its counts."""
        return self.ladder.name

    @property
    def owner(self) -> str:
        """Who declares what this ladder adds."""
        return f"policy:{self.ladder.name}"

    @property
    def resets(self) -> bool:
        """Whether recovery clears this ladder's counts."""
        return self.ladder.reset == ON_RECOVERY

    def covers(self, node_type: str) -> bool:
        """Whether faults of nodes of this type may climb this ladder."""
        if node_type in BUILT_IN_TYPES or node_type in self.ladder.skip_types:
            return False
        return not self.ladder.node_types or node_type in self.ladder.node_types

    def consults(self, node: str) -> tuple[str, ...]:
        """Ids of the nodes whose state a fault of ``node`` may depend on: what rungs add and conditions
        name.
        """
        added = [r.add.id for r in self.ladder.rungs if r.add]
        return tuple(dict.fromkeys(fill(i, node) for i in (*added, *sorted(self._asked))))

    def count(
        self, fault: Fault, node_type: str | None, counts: NodeCounts, reviews: Mapping[str, Review]
    ) -> NodeCounts:
        """The node's counts after this fault. ``node_type`` None: the node left, so its count goes.

        A count of an episode that has ended starts over where recovery resets it.
        """
        match self.admission(fault, node_type):
            case Admission.IGNORE:
                return counts
            case Admission.FORGET:
                return {n: t for n, t in counts.items() if n != self.name}
            case Admission.COUNT:
                old = counts.get(self.name, Tally(0))
                if old.episode != fault.episode:
                    old = Tally(0 if self.resets else old.count)
                marks = {
                    i: ReviewMark(m.added, m.resolved or old.count) if _resolved(reviews.get(i), fault) else m
                    for i, m in old.reviews.items()
                }
                return {**counts, self.name: Tally(old.count + 1, fault.episode, marks, not self.resets)}

    def admission(self, fault: Fault, node_type: str | None) -> Admission:
        """Whether this fault counts here. Review nodes never climb a ladder."""
        return admit(
            fault.type.value,
            node_type,
            faults=self.ladder.faults,
            node_types=self.ladder.node_types,
            ignored=BUILT_IN_TYPES.union(self.ladder.skip_types),
        )

    def climb(
        self,
        fault: Fault,
        counts: NodeCounts,
        reviews: Mapping[str, Review],
        present: Container[str],
        declared: Callable[[str], str | None] = lambda _: None,
    ) -> tuple[list[Mutation], NodeCounts]:
        """What this fault asks for once it is counted, and the counts with a mark for the review it adds.

        ``present`` holds the ids in the graph, ``declared`` says of which type blueprints declare one of them. Raises
        Invalid when a condition fails or is no boolean, and when the id of what is to be added is taken.
        """
        tally = counts[self.name]
        context = self._context(fault, tally, reviews)
        for i, rung in enumerate(self.ladder.rungs):
            if not self._true(i, context):
                continue
            if rung.add is None:
                return [], counts
            node = check_node_id(fill(rung.add.id, fault.node), f"{self.path}/rungs/{i}/add/id")
            if (taken := declared(node)) not in (None, rung.add.type):
                text = f"ladder {self.name!r} would add {node!r} ({rung.add.type}); a blueprint declares it as {taken}"
                raise Invalid(text, [Problem(f"{self.path}/rungs/{i}/add/id", text)])
            known = reviews.get(node)
            if node in present and (known is None or known.belongs_to(fault)):
                return [], counts
            marks = {**tally.reviews, node: ReviewMark(added=tally.count)}
            marked = msgspec.structs.replace(tally, reviews=marks)
            return [AddNode(_node(rung.add, node, fault))], {**counts, self.name: marked}
        return [], counts

    def _context(self, fault: Fault, tally: Tally, reviews: Mapping[str, Review]) -> cel.Context:
        def review(node: Any) -> str:
            found = reviews.get(str(node))
            if found is None or not found.belongs_to(fault):
                return ABSENT
            if found.state == RESOLVED and _has_failed(tally, str(node), fault):
                return UNRESOLVED
            return found.state

        variables = {"fault": _fields(fault), "node": fault.node, "count": tally.count}
        return cel.Context(variables, {"review": review})

    def _true(self, rung: int, context: cel.Context) -> bool:
        """Evaluate one condition; every way in which CEL can fail becomes Invalid with the rung's pointer."""
        at = f"{self.path}/rungs/{rung}/when"
        try:
            value = self._programs[rung].execute(context)
        except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError) as e:
            text = f"ladder {self.name!r}, rung {rung}: {type(e).__name__}: {e}"
            raise Invalid(text, [Problem(at, text)]) from e
        if not isinstance(value, bool):
            text = f"ladder {self.name!r}, rung {rung}: the condition is {value!r}, not true or false"
            raise Invalid(text, [Problem(at, text)])
        return value

    def _trial(self) -> list[Problem]:
        """Evaluate every condition on sample faults: finds misspelt names, and the reviews it asks about.

        The sample's node is called ``{node}``, so that the ids asked for are templates like those of the
        rungs.
        """
        problems: dict[str, Problem] = {}
        for state in (ABSENT, PENDING, RESOLVED, UNRESOLVED):
            for permanent in (False, True):
                for count in (0, 1_000_000):
                    fault = msgspec.structs.replace(_SAMPLE, permanent=permanent)
                    context = self._context(fault, Tally(count), _Everywhere(state, self._asked))
                    for i in range(len(self._programs)):
                        try:
                            self._true(i, context)
                        except Invalid as e:
                            problems.update((p.path, p) for p in e.problems)
        return list(problems.values())


class _Everywhere(dict[str, Review]):
    """Reviews of a trial: every id is in the same state, and the ids that are looked up are noted."""

    def __init__(self, state: str, asked: set[str]) -> None:
        super().__init__()
        self._review = Review(state) if state else None
        self._asked = asked

    def get(self, key: str, default: Any = None) -> Any:
        self._asked.add(key)
        return self._review or default


_SAMPLE = Fault("f", "i", "t", "g", "{node}", FaultType.NODE_DEGRADED, "t", 0.0)


def fill(template: str, node: str) -> str:
    """``{node}`` replaced by the faulted node's id; nothing else is special."""
    return template.replace("{node}", node)


def compile_ladders(ladders: Sequence[Ladder], path: str = "/ladders") -> tuple[CompiledLadder, ...]:
    """Compile the ladders of one manifest or blueprint. Raises Invalid with the problems of all of them."""
    twice = "two ladders are called {name}; a name is the namespace of its counts"
    return compile_each(ladders, path, CompiledLadder, twice)


def ladder_problems(ladders: Sequence[Ladder], path: str = "/ladders") -> list[Problem]:
    """Everything that is wrong with these ladders, with JSON pointers; empty when they are valid."""
    return problems_of(lambda: compile_ladders(ladders, path))


def covered(ladders: Iterable[Ladder], node_type: str) -> bool:
    """Whether any of these ladders looks after nodes of this type (they are never poison-quarantined)."""
    return any(
        node_type not in BUILT_IN_TYPES
        and node_type not in ladder.skip_types
        and (not ladder.node_types or node_type in ladder.node_types)
        for ladder in ladders
    )


def _compile(ladder: Ladder, path: str, problems: list[Problem]) -> list[cel.Program]:
    programs = []
    for i, rung in enumerate(ladder.rungs):
        try:
            programs.append(cel.compile(rung.when))
        except ValueError as e:
            problems.append(Problem(f"{path}/rungs/{i}/when", f"ladder {ladder.name!r}, rung {i}: {e}"))
    return programs


def _shape_problems(ladder: Ladder, path: str) -> list[Problem]:
    problems: list[Problem] = []
    if not ladder.name:
        problems.append(Problem(f"{path}/name", "a ladder needs a name"))
    if not ladder.rungs:
        problems.append(Problem(f"{path}/rungs", f"ladder {ladder.name!r} has no rungs"))
    if not ladder.faults:
        problems.append(Problem(f"{path}/faults", f"ladder {ladder.name!r} names no faults"))
    known = {t.value for t in FaultType}
    for i, fault in enumerate(ladder.faults):
        if fault not in known:
            text = f"unknown fault type {fault!r}; one of {', '.join(sorted(known))}"
            problems.append(Problem(f"{path}/faults/{i}", text))
    if ladder.reset not in (ON_RECOVERY, NEVER):
        problems.append(Problem(f"{path}/reset", f"reset is {ON_RECOVERY!r} or {NEVER!r}"))
    for i, rung in enumerate(ladder.rungs):
        if rung.add is None:
            continue
        at = f"{path}/rungs/{i}/add"
        try:
            check_type(rung.add.type, f"{at}/type")
            check_node_id(fill(rung.add.id, "n"), f"{at}/id")
        except HoldfastError as e:
            problems.append(Problem(at, e.message))
        if rung.add.gating not in Gating.__members__:
            text = f"gating {rung.add.gating!r}; one of {', '.join(Gating.__members__)}"
            problems.append(Problem(f"{at}/gating", text))
    return problems


def _node(add: RungNode, node: str, fault: Fault) -> Any:
    """A rung's node. Reviews learn what they are about; other types get the spec as the ladder states it."""
    spec = review_spec(fault, add.spec) if add.type in BUILT_IN_TYPES else add.spec
    return declaration(node, add.type, spec, add.gating)


def _resolved(review: Review | None, fault: Fault) -> bool:
    return review is not None and review.state == RESOLVED and review.belongs_to(fault)


def _has_failed(tally: Tally, node: str, fault: Fault) -> bool:
    """Whether a resolved review did not help: as many failures since as led to it, or a permanent one."""
    mark = tally.reviews.get(node)
    if fault.permanent:
        return True
    return mark is not None and mark.resolved > 0 and tally.count - mark.resolved >= mark.added


def _fields(fault: Fault) -> dict[str, Any]:
    """All fields of a fault as plain data, defaults included, so that conditions may name each of them."""
    return {f: msgspec.to_builtins(getattr(fault, f)) for f in Fault.__struct_fields__}
