"""Reading what a person wrote: blueprints (YAML or JSON) and data of decisions (JSON)."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from holdfast_model.errors import Problem

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


def _documents(text: str, name: str) -> list[Any]:
    """What the text holds. JSON is tried first: it is read a hundred times faster, and may be large."""
    if text.lstrip()[:1] == "{":
        with contextlib.suppress(msgspec.DecodeError):
            return [msgspec.json.decode(text)]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return [document for document in yaml.load_all(text, Loader=loader) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else name
        said = getattr(error, "problem", None) or str(error)
        problems = [Problem(place, said)]
        raise CommandError(f"{name} is neither YAML nor JSON", problems=problems, hint=FORM, code="invalid") from error


def read_data(text: str) -> dict[str, Any]:
    """The object given with ``--data``: JSON text, or ``@file``."""
    source = read_text(text[1:]) if text.startswith("@") else text
    try:
        value = json.loads(source)
    except json.JSONDecodeError as error:
        raise CommandError(
            "--data is not JSON",
            problems=[Problem(f"line {error.lineno}, column {error.colno}", error.msg)],
            hint="""write it like --data '{"rename": {"old": "new"}}', or --data @file.json""",
            exit=Exit.USAGE,
            code="usage",
        ) from error
    if not isinstance(value, dict):
        raise CommandError("--data must be a JSON object", exit=Exit.USAGE, code="usage")
    return value
