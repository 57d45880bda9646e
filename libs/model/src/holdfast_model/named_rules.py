"""Rules that a manifest or blueprint lists by name (ladders, situations): compiled together, problems told together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from .errors import Invalid, Problem


class Named(Protocol):
    @property
    def name(self) -> str: ...


Rule = TypeVar("Rule", bound=Named)
Compiled = TypeVar("Compiled")


def compile_each(
    rules: Sequence[Rule], path: str, compiled: Callable[[Rule, str], Compiled], twice: str
) -> tuple[Compiled, ...]:
    """Each rule as ``compiled(rule, JSON pointer)`` makes it.

    ``twice`` says, with ``{name}``, what is wrong with a name that is used again. Raises Invalid with the problems of
    all rules.
    """
    done: list[Compiled] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for i, rule in enumerate(rules):
        if rule.name in seen:
            problems.append(Problem(f"{path}/{i}/name", twice.format(name=repr(rule.name))))
        seen.add(rule.name)
        try:
            done.append(compiled(rule, f"{path}/{i}"))
        except Invalid as error:
            problems.extend(error.problems)
    if problems:
        raise Invalid(f"not valid: {problems[0].message}", problems)
    return tuple(done)


def problems_of(compile_all: Callable[[], object]) -> list[Problem]:
    """Everything that is wrong, with JSON pointers; empty when it compiles."""
    try:
        compile_all()
    except Invalid as error:
        return list(error.problems)
    return []
