"""The folder of vectors: its files and cases, and the notation that its files share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast_model.graph import Graph
from holdfast_model.messages import NodeDeclaration, Status
from holdfast_model.mutations import (
    AddDependency,
    AddNode,
    Mutation,
    RemoveDependency,
    RemoveNode,
    UpdateNode,
    declaration,
)

from .reading import Json, plain

DEFAULT = Path(__file__).parents[3] / "shared" / "conformance"
NORMATIVE = "normative"


@dataclass(frozen=True)
class Case:
    """One case of one file. ``file`` is the file's name without its ending."""

    file: str
    name: str
    status: str
    given: Json
    when: list[Json]
    then: Json

    @property
    def id(self) -> str:
        return f"{self.file}:{self.name}"

    @property
    def kind(self) -> str:
        """The case's shape, in files that have several; else ""."""
        return str(self.given.get("kind", ""))

    def step(self, i: int) -> Json:
        """What is expected of the i-th operation; empty where nothing is."""
        steps = self.then.get("steps", [])
        wanted = steps[i] if i < len(steps) else None
        return wanted if isinstance(wanted, dict) else {}


def folder() -> Path:
    """Where the vectors are: ``HOLDFAST_CONFORMANCE``, else beside the repository."""
    named = os.environ.get("HOLDFAST_CONFORMANCE")
    return Path(named) if named else DEFAULT


def is_default() -> bool:
    """Whether the vectors are those that the rules of deviations.toml were written for."""
    return not os.environ.get("HOLDFAST_CONFORMANCE") or folder().resolve() == DEFAULT.resolve()


def read_cases() -> list[Case]:
    """Every case of the folder, by file and in the order of the file."""
    return [
        Case(path.stem, c["name"], c.get("status", NORMATIVE), c["given"], c["when"], c["then"])
        for path in sorted(folder().glob("*.json"))
        for c in json.loads(path.read_text())["cases"]
    ]


class UnknownOperation(ValueError):
    """A vector asks for an operation that its adapter does not know."""


def unknown(op: Json) -> UnknownOperation:
    return UnknownOperation(f"unknown operation {op.get('op')!r}")


def must_be(op: Json, *known: str) -> None:
    """Refuse an operation that is none of these."""
    if op["op"] not in known:
        raise unknown(op)


# ---- nodes, graphs, statuses, mutations


def node(given: str | Json) -> NodeDeclaration:
    """A node as vectors write it: an id, or an object whose defaults are left out."""
    if isinstance(given, str):
        return declaration(given, "t")
    made = declaration(given["id"], given.get("type", "t"), plain(given.get("spec")), given.get("gating", "NONE"))
    return msgspec.structs.replace(made, spec_gating=given.get("spec_gating", "NONE"))


def nodes(given: Json) -> list[NodeDeclaration]:
    return [node(n) for n in given.get("nodes", [])]


def edges(given: Json) -> list[tuple[str, str]]:
    return [(a, b) for a, b in given.get("edges", [])]


def graph(given: Json) -> Graph:
    """A graph, built step by step."""
    return Graph.of(nodes(given), edges(given))


def statuses(given: Mapping[str, str]) -> dict[str, Status]:
    return {id: Status(status) for id, status in given.items()}


def mutation(given: Json) -> Mutation:
    match given["kind"]:
        case "ADD_NODE":
            return AddNode(node(given["node"]))
        case "UPDATE_NODE":
            return UpdateNode(given["id"], node(given["node"]))
        case "REMOVE_NODE":
            return RemoveNode(given["id"])
        case "ADD_EDGE":
            return AddDependency((given["edge"][0], given["edge"][1]))
        case "REMOVE_EDGE":
            return RemoveDependency((given["edge"][0], given["edge"][1]))
        case other:
            raise ValueError(f"unknown kind of mutation {other!r}")


def plain_node(declared: NodeDeclaration) -> Json:
    """A node in the notation of the vectors, defaults written out."""
    return {
        "id": declared.id,
        "type": declared.type,
        "spec": msgspec.json.decode(declared.spec),
        "gating": str(declared.gating),
        "spec_gating": str(declared.spec_gating),
    }


def plain_mutation(made: Mutation) -> Json:
    """A mutation in the notation of the vectors."""
    match made:
        case AddNode(node=added):
            return {"kind": "ADD_NODE", "node": plain_node(added)}
        case UpdateNode(id=id, node=updated):
            return {"kind": "UPDATE_NODE", "id": id, "node": plain_node(updated)}
        case RemoveNode(id=id):
            return {"kind": "REMOVE_NODE", "id": id}
        case AddDependency(edge=edge):
            return {"kind": "ADD_EDGE", "edge": list(edge)}
        case RemoveDependency(edge=edge):
            return {"kind": "REMOVE_EDGE", "edge": list(edge)}
