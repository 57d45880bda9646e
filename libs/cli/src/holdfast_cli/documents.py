"""Reading what a person wrote: blueprints (YAML or JSON) and data of decisions (JSON)."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from holdfast_model.errors import Invalid, Problem
from holdfast_model.plain import Unreadable, plain, repeated_key
from holdfast_model.yaml_text import MAX_YAML, documents

from .exits import CommandError, Exit

FORM = "write {domain: ..., spec: {...}} or {nodes: [...]}, as YAML or JSON"


def read_text(file: str) -> str:
    """The text of a file, or of standard input for ``-``."""
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}", exit=Exit.USAGE, code="usage") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{file} is not UTF-8 text (byte {error.start})", code="invalid") from error


def read_blueprint(file: str) -> dict[str, Any]:
    """The one mapping that a blueprint file holds; raises CommandError naming line and column otherwise."""
    text, name = read_text(file), "standard input" if file == "-" else file
    documents = _documents(text, name)
    if len(documents) != 1:
        raise CommandError(f"{name} holds {len(documents)} documents, one is needed", hint=FORM, code="invalid")
    if not isinstance(documents[0], dict):
        kind = type(documents[0]).__name__
        raise CommandError(f"{name} is a {kind}, not a mapping", hint=FORM, code="invalid")
    return documents[0]


def declared(
    file: str, name: str, only: Sequence[str] | None, omit: Sequence[str] | None, **flags: bool
) -> dict[str, Any]:
    """The blueprint of a file with what the command line adds: its owner, a selection, and flags that are set."""
    blueprint = read_blueprint(file)
    given: dict[str, Any] = {"name": name, "only": list(only or ()), "except": list(omit or ()), **flags}
    return {**blueprint, **{key: value for key, value in given.items() if value}}


def once_more(document: str, **flags: bool) -> dict[str, Any]:
    """A blueprint that was kept, as it was published, but for consent: that was to what it removed then."""
    (blueprint,) = _documents(document, "the blueprint that is kept")
    return {**{k: v for k, v in blueprint.items() if k != "allow_removals"}, **{k: v for k, v in flags.items() if v}}


def _documents(text: str, name: str) -> list[Any]:
    """What the text holds. JSON is tried first: it is read a hundred times faster, and may be large."""
    if text.lstrip()[:1] == "{":
        with contextlib.suppress(msgspec.DecodeError):
            return [_json(text.encode(), name)]
    try:
        return [document for document in documents(text) if document is not None]
    except Invalid as error:
        problems = list(error.problems)
        raise CommandError(f"{name}: {error.message}", problems=problems, hint=FORM, code="invalid") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else name
        said = getattr(error, "problem", None) or str(error)
        problems = [Problem(place, said)]
        raise CommandError(f"{name} is neither YAML nor JSON", problems=problems, hint=FORM, code="invalid") from error


def _json(body: bytes, name: str) -> Any:
    """The value of JSON text, refused where the planner would refuse it. Raises msgspec.DecodeError if it is none."""
    try:
        value = plain(body)
    except Unreadable as error:
        problems = [Problem(error.place, str(error))]
        raise CommandError(f"{name} cannot be read", problems=problems, code="invalid") from error
    _refuse_repeated(body, name)
    return value


def _refuse_repeated(body: bytes, name: str, exit: Exit = Exit.FAILED) -> None:
    """A key that stands twice in one object: one of the two values would go without a word."""
    if len(body) <= MAX_YAML and (place := repeated_key(body)) is not None:
        problems = [Problem(place, f"the key {place.rpartition('/')[2]!r} stands twice in one object")]
        raise CommandError(f"{name} says two things at once", problems=problems, code="invalid", exit=exit)


def read_data(text: str) -> dict[str, Any]:
    """The object given with ``--data``: JSON text, or ``@file``."""
    source = read_text(text[1:]) if text.startswith("@") else text
    try:
        value = json.loads(source)
    except RecursionError as error:
        raise CommandError("--data is nested too deeply", exit=Exit.USAGE, code="usage") from error
    except json.JSONDecodeError as error:
        raise CommandError(
            "--data is not JSON",
            problems=[Problem(f"line {error.lineno}, column {error.colno}", error.msg)],
            hint="""write it like --data '{"rename": {"old": "new"}}', or --data @file.json""",
            exit=Exit.USAGE,
            code="usage",
        ) from error
    _refuse_repeated(source.encode(), "--data", Exit.USAGE)
    if not isinstance(value, dict):
        raise CommandError("--data must be a JSON object", exit=Exit.USAGE, code="usage")
    return value


def readable(document: str) -> str:
    """A blueprint for people: YAML as it was written, JSON as YAML."""
    if document.lstrip()[:1] != "{":
        return document.rstrip()
    return yaml.safe_dump(msgspec.json.decode(document), sort_keys=False, allow_unicode=True).rstrip()
