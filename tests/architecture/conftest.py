"""The workspace as data: members, what they declare, what they import."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Member:
    """One distribution of the workspace."""

    name: str
    folder: Path
    package: str
    declares: frozenset[str]

    @property
    def modules(self) -> list[Path]:
        return sorted((self.folder / "src").rglob("*.py"))


def members() -> Iterator[Member]:
    for file in sorted([*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]):
        project = tomllib.loads(file.read_text())["project"]
        listed = list(project.get("dependencies", []))
        for group in project.get("optional-dependencies", {}).values():
            listed += group
        package = next((file.parent / "src").glob("holdfast_*")).name
        yield Member(project["name"], file.parent, package, frozenset(_name(r) for r in listed))


def declared_with_libraries(member: Member) -> frozenset[str]:
    """What an environment made for this member alone is known to hold."""
    everyone = {m.name: m for m in members()}
    found: set[str] = set()

    def visit(name: str) -> None:
        if name not in found:
            found.add(name)
            for inner in everyone[name].declares if name in everyone else ():
                visit(inner)

    visit(member.name)
    return frozenset(found)


def _name(requirement: str) -> str:
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), len(requirement))
    return requirement[:end].lower().replace("_", "-")


def imports_of(module: Path) -> Iterator[tuple[str, int]]:
    """(top-level package, line) of every absolute import that is not of the standard library."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names:
                yield top, node.lineno


@pytest.fixture(params=list(members()), ids=lambda m: m.name)
def member(request: pytest.FixtureRequest) -> Member:
    found: Member = request.param
    return found
