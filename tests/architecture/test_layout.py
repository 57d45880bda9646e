"""Where things are, and who may know whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from .conftest import ROOT, Member, declared_with_libraries, imports_of, members

TOP_LEVEL = {"services", "libs", "deploy", "tests", "compose.yaml", "Makefile", "README.md", "pyproject.toml", ".ci"}
SERVICE_FILES = {"__init__.py", "__main__.py", "app.py", "settings.py", "py.typed"}
LONGEST = 500
PARTS = {"pydantic-core": "pydantic", "hiredis": "redis", "arro3-core": "deltalake"}
"""Distributions that always come with another one, in the version that fits it."""
VAGUE = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}


def test_layers_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_top_level_holds_only_what_it_may() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tops = {line.partition("/")[0] for line in listed.splitlines()}

    assert {t for t in tops if not t.startswith(".")} <= TOP_LEVEL


def test_a_member_imports_only_what_its_own_environment_holds(member: Member) -> None:
    # Given what each import belongs to; the shared environment of development would let the rest slip through
    owners = packages_distributions()
    held = declared_with_libraries(member)
    held |= {part for part, whole in PARTS.items() if whole in held}
    undeclared = []

    # When the imports of all its modules are read
    for module in member.modules:
        for top, line in imports_of(module):
            names = {n.lower().replace("_", "-") for n in owners.get(top, [top])}
            if top != member.package and not names & held:
                undeclared.append(f"{module.relative_to(ROOT)}:{line} imports {top}")

    # Then each is declared, by itself or by a library of ours that it declares
    assert undeclared == []


def test_only_tests_know_the_testkit(member: Member) -> None:
    if member.package == "holdfast_testkit":
        return
    users = [m for m in member.modules for top, _ in imports_of(m) if top == "holdfast_testkit"]

    assert users == []
    assert "holdfast-testkit" not in member.declares


def test_a_package_says_what_it_is_for_and_what_it_never_does(member: Member) -> None:
    text = ast.get_docstring(ast.parse((member.folder / "src" / member.package / "__init__.py").read_text()))

    assert text is not None
    assert len(text.splitlines()) > 1, "one line cannot hold role and ban"
    assert re.search(r"\b(never|nothing|no|only|alone)\b", text, re.IGNORECASE), "the package docstring states no ban"


def test_packages_are_typed(member: Member) -> None:
    assert (member.folder / "src" / member.package / "py.typed").exists()


def test_modules_are_short_and_named_for_one_thing(member: Member) -> None:
    long = {m.name: n for m in member.modules if (n := len(m.read_text().splitlines())) > LONGEST}

    assert long == {}
    assert [m for m in member.modules if m.name in VAGUE] == []


@pytest.mark.parametrize("service", [m for m in members() if m.folder.parent.name == "services"], ids=lambda m: m.name)
def test_services_have_one_inner_shape(service: Member) -> None:
    there = {f.name for f in (service.folder / "src" / service.package).iterdir()}

    assert there >= SERVICE_FILES


def test_clients_are_built_in_composition_roots_only() -> None:
    # Redis clients are built by the store's adapter alone, NATS connections by the bus alone
    allowed = {"holdfast_store", "holdfast_bus", "holdfast_testkit"}
    builders = re.compile(r"\b(Redis\.from_url|redis\.from_url|nats\.connect|NatsBroker)\(")
    found = [
        f"{module.relative_to(ROOT)}"
        for member in members()
        if member.package not in allowed
        for module in member.modules
        if builders.search(module.read_text())
    ]

    assert found == []


def test_subjects_are_built_in_one_module() -> None:
    built = re.compile(r"""f?["'](blueprint|graph|node|fault|workitem|state|step|result|rpc|dlq)\.[{<>*]""")
    found = [
        f"{module.relative_to(ROOT)}:{number}"
        for member in members()
        if member.package != "holdfast_testkit"  # it plays the user, who knows subjects from the README alone
        for module in member.modules
        if module.name not in ("subjects.py", "streams.py")
        for number, line in enumerate(module.read_text().splitlines(), 1)
        if built.search(line) and not line.lstrip().startswith("#")
    ]

    assert found == []
