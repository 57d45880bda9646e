"""Checks of what goes into a WorkItem and what comes out: choices, their conditions (CEL), and JSON
Schemas."""

from __future__ import annotations

import json
from typing import Any

import cel
import msgspec

from .errors import Invalid, Problem
from .json_schemas import compile_schema
from .work_items import CreateWorkItem, PermittedOutcome, WorkItem, WorkItemCommand
from .work_items_access import Actor

_CEL_ERRORS = (ValueError, TypeError, RuntimeError, LookupError, ArithmeticError)
"""What the CEL library raises, depending on what is wrong with an expression or its variables."""


def declaration_problems(request: CreateWorkItem) -> list[Problem]:
    """What is wrong with the outcomes, schemas and payload of a request."""
    problems: list[Problem] = []
    names: set[str] = set()
    for i, outcome in enumerate(request.permitted_outcomes):
        at = f"/permittedOutcomes/{i}"
        if not outcome.name.strip():
            problems.append(Problem(f"{at}/name", "an outcome needs a name"))
        if outcome.name in names:
            problems.append(Problem(f"{at}/name", f"outcome {outcome.name!r} is named twice"))
        names.add(outcome.name)
        if outcome.condition:
            try:
                cel.compile(outcome.condition)
            except _CEL_ERRORS as error:
                problems.append(Problem(f"{at}/condition", f"not a CEL expression: {error}"))
    for key, schema in (
        ("inputDataSchema", request.input_data_schema),
        ("outputDataSchema", request.output_data_schema),
    ):
        if schema is not None and (why := _schema_error(schema)):
            problems.append(Problem(f"/{key}", why))
    if request.input_data_schema is not None and not problems:
        try:
            payload = json.loads(request.payload or "null")
        except ValueError as error:
            problems.append(Problem("/payload", f"not JSON: {error}"))
        else:
            problems += _violations(request.input_data_schema, payload, "/payload")
    return problems


def check_decision(item: WorkItem, command: WorkItemCommand, actor: Actor) -> None:
    """Raise Invalid unless outcome and data of a decision are permitted.

    No outcome at all is permitted, and means that the work was done (or refused) without a choice.
    """
    if command.outcome and item.permitted_outcomes:
        choices = ", ".join(o.name for o in item.permitted_outcomes)
        chosen = next((o for o in item.permitted_outcomes if o.name == command.outcome), None)
        if chosen is None:
            text = f"outcome {command.outcome!r} is not one of: {choices}"
            raise Invalid(text, [Problem("/outcome", text)], hint=f"choose one of: {choices}")
        _check_condition(chosen, item, command, actor)


def check_output(item: WorkItem, data: dict[str, Any] | None) -> None:
    """Raise Invalid unless the data of a completion follows the item's schema."""
    if item.output_data_schema is None:
        return
    problems = _violations(item.output_data_schema, data if data is not None else {}, "/data")
    if problems:
        raise Invalid(f"the data does not follow the schema of WorkItem {item.id}", problems)


def _check_condition(outcome: PermittedOutcome, item: WorkItem, command: WorkItemCommand, actor: Actor) -> None:
    if not outcome.condition:
        return
    variables = {
        "item": msgspec.to_builtins(item),
        "payload": _json_or_text(item.payload),
        "data": command.data or {},
        "actor": actor.name,
        "groups": sorted(actor.groups),
    }
    try:
        holds = cel.evaluate(outcome.condition, variables)
    except _CEL_ERRORS as error:
        text = f"the condition of outcome {outcome.name!r} cannot be evaluated: {error}"
        raise Invalid(text, [Problem("/outcome", text)], hint=outcome.condition) from error
    if holds is not True:
        text = f"outcome {outcome.name!r} is not available: {outcome.condition} does not hold"
        raise Invalid(text, [Problem("/outcome", text)])


def _json_or_text(payload: str) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload


def _schema_error(schema: dict[str, Any]) -> str:
    try:
        compile_schema(schema)
    except ValueError as error:
        return f"not a JSON Schema: {str(error).splitlines()[0]}"
    return ""


def _violations(schema: dict[str, Any], value: Any, at: str) -> list[Problem]:
    validator = compile_schema(schema)
    return [
        Problem(at + "".join(f"/{part}" for part in error.instance_path), error.message)
        for error in validator.iter_errors(value)
    ]
