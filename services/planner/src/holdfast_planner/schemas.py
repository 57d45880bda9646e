"""Specs checked against the schemas that domains announce (JSON Schema, compiled once per schema)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jsonschema_rs
import msgspec

from holdfast_model.errors import Invalid, Problem
from holdfast_model.json_schemas import compile_schema
from holdfast_model.messages import NodeDeclaration
from holdfast_model.plain import Unreadable, plain
from holdfast_model.references import find, pointer_of

_MAX_PROBLEMS = 20


class SpecSchemas:
    """Validators by schema; a schema that is itself not valid checks nothing, for its domain checks again."""

    def __init__(self) -> None:
        self._compiled: dict[bytes, jsonschema_rs.Validator | None] = {}

    def check_nodes(
        self,
        nodes: Sequence[NodeDeclaration],
        schemas: Mapping[str, dict[str, object] | None],
        place: str = "/nodes",
    ) -> None:
        """Raises Invalid with a pointer for each spec that its type's schema refuses. The nodes stand at ``place``.

        What a reference will be replaced by is left to the domain.
        """
        problems: list[Problem] = []
        validators = {name: self._validator(schema) for name, schema in schemas.items() if schema}
        for i, node in enumerate(nodes):
            validator = validators.get(node.type)
            if validator is None:
                continue
            try:
                spec = plain(node.spec)
            except Unreadable as wrong:
                problems.append(Problem(f"{place}/{i}/spec{wrong.place}", str(wrong)))
                continue
            if validator.is_valid(spec):
                continue
            references = tuple(f"{at}/" for at, _ in find(spec))
            for error in validator.iter_errors(spec):
                path = pointer_of(error.instance_path)
                if not f"{path}/".startswith(references):  # its value is not known yet
                    problems.append(Problem(f"{place}/{i}/spec{path}", error.message))
            if len(problems) >= _MAX_PROBLEMS:
                break
        if problems:
            raise Invalid(f"the blueprint is not valid: {problems[0].message}", problems[:_MAX_PROBLEMS])

    def _validator(self, schema: dict[str, object]) -> jsonschema_rs.Validator | None:
        key = msgspec.json.encode(schema, order="deterministic")
        if key not in self._compiled:
            if len(self._compiled) > 1000:
                self._compiled.clear()
            try:
                self._compiled[key] = compile_schema(schema)
            except ValueError:
                self._compiled[key] = None
        return self._compiled[key]
