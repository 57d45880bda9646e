"""Reading what a person wrote: blueprints (YAML or JSON) and data of decisions (JSON)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from holdfast_model.errors import Problem

from .exits import CommandError, Exit


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
    hint = "write {domain: ..., spec: {...}} or {nodes: [...]}, as YAML or JSON"
    try:
        found = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else name
        said = getattr(error, "problem", None) or str(error)
        raise CommandError(
            f"{name} is neither YAML nor JSON", problems=[Problem(place, said)], hint=hint, code="invalid"
        ) from error
    documents = [document for document in found if document is not None]
    if len(documents) != 1:
        raise CommandError(
            f"{name} holds {len(documents)} documents, one is needed", hint=hint, code="invalid",
        )  # fmt: skip
    if not isinstance(documents[0], dict):
        kind = type(documents[0]).__name__
        raise CommandError(f"{name} is a {kind}, not a mapping", hint=hint, code="invalid")
    return documents[0]


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
