"""Running a case: which adapter knows its shape, what came of it, and what that is called."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from holdfast_model.errors import Claimed, Cycle, Dangling, Disagreement, HoldfastError
from holdfast_model.graph import NoSuchNode
from holdfast_pipeline.wiring import LayerViolation

from .comparing import Mismatch, mismatches, unexpected_errors
from .deviations import Rule, followed
from .fields import may_stay_unread
from .reading import Reading, unread, watched
from .vectors import NORMATIVE, Case, Json


@dataclass
class Run:
    """The outcome of a case in the notation of the vectors, and what its run has shown besides.

    ``aside``: nothing was run, since what the case is about has no counterpart here; its fields stay unread.
    """

    actual: Json
    facts: set[str] = field(default_factory=set)
    aside: bool = False


Adapter = Callable[[Case], Run]


class Verdict(StrEnum):
    """What became of a case, in the order in which they are counted."""

    PASSED = "passed"
    DEVIATION = "deviations"
    PENDING = "pending"
    QUIRK = "quirk"
    FAILED = "failed"


@dataclass(frozen=True)
class Judged:
    """A case, its verdict and why. ``about``: the rules that speak of it; ``needed``: those that explain it."""

    case: Case
    verdict: Verdict
    why: str = ""
    about: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


PENDING_FILES = frozenset({"cbr"})
"""Files whose kinds have no counterpart yet. A kind of any other file that nobody runs is a failure."""


def judge(case: Case, adapter: Adapter | None, rules: Sequence[Rule]) -> Judged:
    """Run a case and compare. A case that is not normative fails nothing, whatever comes of it."""
    failed = Verdict.FAILED if case.status == NORMATIVE else Verdict.QUIRK
    if adapter is None:
        why = f"nothing corresponds to {case.file}.json {case.kind!r} yet"
        return Judged(case, Verdict.PENDING if case.file in PENDING_FILES else failed, why)
    read = replace(case, given=watched(case.given), when=watched(case.when))
    assert read.kind == case.kind  # the kind has chosen the adapter: it is read
    try:
        run = _outcome(read, adapter)
        found = list(mismatches(run.actual, case.then))
    except Exception:  # noqa: BLE001 - one case that cannot be run must not hide the others
        return Judged(case, failed, f"it could not be run:\n{traceback.format_exc(limit=-4)}")
    ignored = [] if run.aside else _ignored(read, run)
    found += [] if run.aside else unexpected_errors(run.actual, case.then)
    text = "\n".join([*(str(m) for m in found), *(f"{place}: nobody knows this field" for place in ignored)])
    if case.status != NORMATIVE:
        return Judged(case, Verdict.QUIRK, text)
    # A rule is about a case if the case asks for something of which the rule speaks.
    asked = [Mismatch(place, "") for place in _asked(case.then)]
    about = tuple(r.name for r in rules if r.is_about(case, run.facts) and any(r.covers(m) for m in asked))
    if not found and not ignored:
        return Judged(case, Verdict.PASSED, about=about)
    explained = None if ignored else followed(rules, case, run.facts, found)
    if explained is None:
        return Judged(case, Verdict.FAILED, f"{text}\nfacts: {sorted(run.facts)}", about)
    decisions = "; ".join(r.decision for r in explained)
    return Judged(case, Verdict.DEVIATION, decisions, about, tuple(r.name for r in explained))


def _outcome(case: Case, adapter: Adapter) -> Run:
    try:
        return adapter(case)
    except HoldfastError as error:
        return Run({"error": plain_error(error)})


def _ignored(case: Case, run: Run) -> list[str]:
    """Fields of the vector that its adapter did not look at. Where an error ended the run, later operations were not
    reached."""
    ended = "error" in run.actual and "steps" not in run.actual
    places = list(unread(case.given, "given"))
    for i, op in enumerate(case.when):
        if not (ended and isinstance(op, Reading) and not op.seen):
            places += unread(op, f"when.{i}")
    if ended:
        places = [p for p in places if not p.startswith("given.")]
    return [p for p in places if not may_stay_unread(case.file, p)]


def _asked(expected: Any, path: str = "") -> list[str]:
    """Every place of which a vector says something."""
    items: Iterable[tuple[Any, Any]] = enumerate(expected) if isinstance(expected, list) else ()
    if isinstance(expected, dict):
        items = expected.items()
    below = [p for key, value in items for p in _asked(value, f"{path}.{key}" if path else str(key))]
    return [path, *below] if path else below


def plain_error(error: HoldfastError) -> Json:
    """An error as vectors name it."""
    match error:
        case Cycle():
            return {"kind": "CYCLE", "cycle": list(error.path)}
        case Dangling():
            return {"kind": "DANGLING", "edge": list(error.edge)}
        case Disagreement():
            return {"kind": "OVERLAY_CONFLICT", "node": error.nodes[0]}
        case Claimed():
            return {"kind": "DUPLICATE_TYPE", "type": error.type}
        case LayerViolation():
            return {
                "kind": "LAYER_VIOLATION", "node": error.node, "node_layer": error.node_layer.name,
                "dependency": error.dependency, "dependency_layer": error.dependency_layer.name,
                "violation": error.violation,
            }  # fmt: skip
        case NoSuchNode():
            return {"kind": "UNKNOWN_NODE", "node": error.node}
        case _:
            return {"kind": error.code.upper(), "message": error.message}


def stale_rules(judged: Sequence[Judged], rules: Sequence[Rule]) -> list[str]:
    """Rules that speak of cases, none of which needs them any more."""
    about = {name for j in judged for name in j.about}
    needed = {name for j in judged for name in j.needed}
    return [r.name for r in rules if r.name in about - needed]


def table(judged: Sequence[Judged]) -> list[str]:
    """The counts per file and in total, as lines of text."""
    files: dict[str, Counter[Verdict]] = {}
    for j in judged:
        files.setdefault(f"{j.case.file}.json", Counter())[j.verdict] += 1
    total: Counter[Verdict] = sum(files.values(), Counter())
    width = max((len(f) for f in files), default=0)
    lines = [" " * width + "".join(f"{v:>12}" for v in Verdict)]
    for name, counts in [*files.items(), ("total", total)]:
        lines.append(name.ljust(width) + "".join(f"{counts[v]:>12}" for v in Verdict))
    return lines
