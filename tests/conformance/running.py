"""Running a case: which adapter knows its shape, what came of it, and what that is called."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from holdfast_model.errors import Claimed, Cycle, Dangling, Disagreement, HoldfastError
from holdfast_model.graph import NoSuchNode
from holdfast_pipeline.wiring import LayerViolation

from .comparing import Mismatch, mismatches
from .deviations import Rule, followed
from .vectors import NORMATIVE, Case, Json


@dataclass
class Run:
    """The outcome of a case in the notation of the vectors, and what its run has shown besides."""

    actual: Json
    facts: set[str] = field(default_factory=set)


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


def judge(case: Case, adapter: Adapter | None, rules: Sequence[Rule]) -> Judged:
    """Run a case and compare. A case that is not normative fails nothing, whatever comes of it."""
    if adapter is None:
        return Judged(case, Verdict.PENDING, f"nothing corresponds to {case.file}.json {case.kind!r} yet")
    try:
        run = _outcome(case, adapter)
    except Exception:  # noqa: BLE001 - one case that cannot be run must not hide the others
        verdict = Verdict.FAILED if case.status == NORMATIVE else Verdict.QUIRK
        return Judged(case, verdict, f"it could not be run:\n{traceback.format_exc(limit=-4)}")
    found = list(mismatches(run.actual, case.then))
    text = "\n".join(str(m) for m in found)
    if case.status != NORMATIVE:
        return Judged(case, Verdict.QUIRK, text)
    # A rule is about a case if the case asks for something of which the rule speaks.
    asked = [Mismatch(place, "") for place in _asked(case.then)]
    about = tuple(r.name for r in rules if r.is_about(case, run.facts) and any(r.covers(m) for m in asked))
    if not found:
        return Judged(case, Verdict.PASSED, about=about)
    explained = followed(rules, case, run.facts, found)
    if explained is None:
        return Judged(case, Verdict.FAILED, f"{text}\nfacts: {sorted(run.facts)}", about)
    decisions = "; ".join(r.decision for r in explained)
    return Judged(case, Verdict.DEVIATION, decisions, about, tuple(r.name for r in explained))


def _outcome(case: Case, adapter: Adapter) -> Run:
    try:
        return adapter(case)
    except HoldfastError as error:
        return Run({"error": plain_error(error)})


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
