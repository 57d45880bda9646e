"""Reviews of failing stages: the port, the rule that reads a reply, and a reviewer that knows common causes.

A reviewer only ever proposes. It says RESOLVED when trying again is enough (or its fix is), UNRESOLVED when a
person is needed; the text is for that person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

from holdfast_sdk import PENDING, RESOLVED, UNRESOLVED, Verdict


@dataclass(frozen=True)
class Case:
    """What failed. ``reason`` is the fault's code, ``error`` its text, ``context`` what came with the
    fault.
    """

    target: str
    reason: str = ""
    error: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A reviewer's words. ``confidence`` is 0 to 1; ``fix`` is a JSON Patch (RFC 6902) of the stage's
    spec.
    """

    text: str
    confidence: float | None = None
    fix: list[dict[str, Any]] = field(default_factory=list)


class Reviewer(Protocol):
    """The port. An adapter maps what its client raises to the tree of ``holdfast_model.errors``."""

    async def review(self, case: Case) -> Reply: ...


def verdict(text: str) -> Verdict:
    """What a reply means: RESOLVED without UNRESOLVED is resolved, empty is pending, all else is
    unresolved.
    """
    words = text.upper()
    if not words.strip():
        return PENDING
    return RESOLVED if "RESOLVED" in words and "UNRESOLVED" not in words else UNRESOLVED


class RuleReviewer:
    """Knows the common causes; the first rule that recognises a case answers it."""

    async def review(self, case: Case) -> Reply:
        text = f"{case.reason} {case.error}"
        for pattern, answer in _RULES:
            found = pattern.search(text)
            if found is not None:
                return answer(case, found)
        return Reply(
            f"UNRESOLVED: {case.target} failed for a reason that is not known here: "
            f"{case.error or case.reason or 'no detail'}. A person must look at it.",
            confidence=0.2,
        )


def _disk(case: Case, _: re.Match[str]) -> Reply:
    return Reply(
        f"UNRESOLVED: the disk is full, so {case.target} cannot write. Free space where the warehouse and the "
        "scratch folder are, then choose retry.",
        confidence=0.95,
    )


def _permission(case: Case, _: re.Match[str]) -> Reply:
    return Reply(
        f"UNRESOLVED: {case.target} may not read or write a file. Give the service's user access to the path "
        f"in the error ({case.error}), then choose retry.",
        confidence=0.9,
    )


def _missing_column(case: Case, found: re.Match[str]) -> Reply:
    missing = found["column"]
    known = re.findall(r"[\"'`]([^\"'`]+)[\"'`]", case.error[found.end() :])
    near = get_close_matches(missing, known, n=1)
    if not near:
        return Reply(
            f"UNRESOLVED: {case.target} asks for column {missing!r}, which is not there. Correct the blueprint, "
            "or bring the column back.",
            confidence=0.8,
        )
    return Reply(
        f"UNRESOLVED: {case.target} asks for column {missing!r}; it seems to be called {near[0]!r} now. The "
        "proposed fix puts the new name into the stage; a person must agree.",
        confidence=0.7,
        fix=_renamed(case.context.get("spec"), missing, near[0]),
    )


def _missing_file(case: Case, _: re.Match[str]) -> Reply:
    return Reply(
        f"UNRESOLVED: the files of {case.target} are not where its source looks ({case.error}). Put them there, "
        "or correct the uri in the blueprint. The stage goes on by itself once they appear.",
        confidence=0.9,
    )


def _changed_type(case: Case, _: re.Match[str]) -> Reply:
    return Reply(
        f"UNRESOLVED: values do not have the type that {case.target} expects ({case.error}). Correct the schema "
        "or the data; where a few values are wrong, a validator can quarantine them.",
        confidence=0.7,
    )


def _passing(case: Case, _: re.Match[str]) -> Reply:
    return Reply(
        f"RESOLVED: this looks like a passing condition ({case.error or case.reason}). Trying {case.target} "
        "again is enough.",
        confidence=0.6,
    )


def _slow(case: Case, _: re.Match[str]) -> Reply:
    return Reply(
        f"UNRESOLVED: {case.target} does not finish in time. Give steps more time (HOLDFAST_PIPELINE_STEP_TIMEOUT) "
        "or the service more memory and processors.",
        confidence=0.6,
    )


def _renamed(spec: object, old: str, new: str) -> list[dict[str, Any]]:
    """A JSON Patch that puts ``new`` for the column ``old`` wherever the stage's spec names it."""
    word = re.compile(rf"(?<![\w]){re.escape(old)}(?![\w])")
    patch: list[dict[str, Any]] = []

    def walk(value: object, path: str) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(part, f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}")
        elif isinstance(value, list):
            for i, part in enumerate(value):
                walk(part, f"{path}/{i}")
        elif isinstance(value, str) and word.search(value):
            patch.append({"op": "replace", "path": path, "value": word.sub(lambda _: new, value)})

    walk(spec, "")
    return patch


def _rule(pattern: str, answer: Callable[[Case, re.Match[str]], Reply]) -> tuple[re.Pattern[str], Callable[..., Reply]]:
    return re.compile(pattern, re.IGNORECASE), answer


_COLUMN = r"[\"'`]?(?P<column>[\w.-]+)[\"'`]?"
_RULES = (
    _rule(r"no space left|disk (is )?full|disk quota|enospc|out of disk", _disk),
    _rule(r"permission denied|access denied|eacces|operation not permitted|\bforbidden\b", _permission),
    _rule(rf"(?:unable to find|no such|no|unknown|missing) column:? {_COLUMN}", _missing_column),
    _rule(rf"column {_COLUMN} (?:is missing|was not found|not found|does not exist|is not there)", _missing_column),
    _rule(
        r"no such file|file not found|does not exist|not listable|no files|path .* is not there|enoent",
        _missing_file,
    ),
    _rule(
        r"cannot (cast|convert|parse)|conversion .* failed|type (changed|mismatch)|schema ?error|not allowed on dtype",
        _changed_type,
    ),
    _rule(r"did not finish within|took longer than|\btimeout\b|out of memory", _slow),
    _rule(r"another writer|lost a race|conflict|concurrent|plan again|connection|unavailable|temporarily", _passing),
)
