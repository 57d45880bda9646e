"""deviations.toml: where a decision is followed instead of the vector, as rules about kinds of cases.

A rule names the cases it is about (a CEL condition over ``file``, ``kind``, ``name``, ``given``, ``when``, ``then``
and ``facts``), the places of the outcome that follow the decision instead (patterns of paths like
``steps.*.events``), and the decision. Everything else of such a case must still be as the vector says.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import cel

from .comparing import Mismatch
from .vectors import Case

FILE = Path(__file__).parent / "deviations.toml"


@dataclass(frozen=True)
class Rule:
    """``cases``: the condition. ``instead``: which places differ. ``decision``: what is followed there, and where it
    is written."""

    name: str
    cases: str
    instead: tuple[str, ...]
    decision: str

    def is_about(self, case: Case, facts: Collection[str]) -> bool:
        """Whether the condition holds; ``facts`` are what the run of the case has shown.

        A condition that asks for what the case does not have does not hold.
        """
        variables: dict[str, Any] = {
            "file": case.file, "kind": case.kind, "name": case.name, "given": whole(case.given),
            "when": whole(case.when), "then": case.then, "facts": sorted(facts),
        }  # fmt: skip
        try:
            found = cel.evaluate(self.cases, variables)
        except (ValueError, TypeError, LookupError, RuntimeError):
            return False
        if not isinstance(found, bool):
            raise TypeError(f"rule {self.name!r}: {self.cases!r} is {found!r}, not true or false")
        return found

    def covers(self, mismatch: Mismatch) -> bool:
        """Whether the decision explains this place; a place covers everything below it."""
        parts = mismatch.path.split(".")
        return any(
            fnmatchcase(".".join(parts[: i + 1]), pattern) for pattern in self.instead for i in range(len(parts))
        )


def whole(given: Any) -> Any:
    """What a vector gives, with all nodes written as objects with their type."""
    if isinstance(given, list):
        return [whole(g) for g in given]
    if not isinstance(given, dict):
        return given
    out = {key: whole(value) for key, value in given.items()}
    if isinstance(given.get("nodes"), list):
        out["nodes"] = [{"type": "t", **({"id": n} if isinstance(n, str) else n)} for n in given["nodes"]]
    return out


def read_rules(path: Path = FILE) -> list[Rule]:
    """The rules of the file. Raises ValueError for one that is not complete, or a name used twice."""
    rules = [
        Rule(r["name"], r["cases"], tuple(r["instead"]), r["decision"])
        for r in tomllib.loads(path.read_text()).get("rule", [])
    ]
    names = [r.name for r in rules]
    if len(set(names)) < len(names):
        raise ValueError(f"{path.name}: a rule's name is used twice")
    for rule in rules:
        if not rule.instead or not rule.decision.startswith("§"):
            raise ValueError(f"{path.name}: rule {rule.name!r} needs places, and a decision with its section in front")
        cel.compile(rule.cases)
    return rules


def followed(rules: Iterable[Rule], case: Case, facts: Collection[str], found: list[Mismatch]) -> list[Rule] | None:
    """The rules that explain every mismatch, or None if one of them is not explained."""
    about = [r for r in rules if r.is_about(case, facts)]
    if not all(any(r.covers(m) for r in about) for m in found):
        return None
    return [r for r in about if any(r.covers(m) for m in found)]
