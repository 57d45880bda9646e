"""README.md, Makefile and the command line say the same."""

from __future__ import annotations

import re
import subprocess
import sys

import typer
from typer.testing import CliRunner

from holdfast_cli.exits import Exit
from holdfast_cli.main import build

from .conftest import ROOT

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {"help", "demo", "up", "test", "check", "lock", "bench-quick", "conformance", "simulate", "images"}


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


def test_the_first_commands_of_the_readme_are_demo_and_test() -> None:
    block = re.search(r"```sh\n(.*?)```", README, re.DOTALL)

    assert block is not None
    commands = [line.split("#")[0].strip() for line in block.group(1).splitlines() if line.strip()]
    assert commands == ["make demo", "make test"]


def test_every_make_command_of_the_readme_exists() -> None:
    assert set(re.findall(r"`make ([a-z][a-z-]*)", README)) <= _targets()


def test_the_promised_targets_exist_and_help_lists_them() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert _targets() >= TARGETS
    assert set(re.findall(r"make ([a-z-]+)", shown)) >= TARGETS


def test_every_holdfast_command_of_the_readme_exists_with_its_options() -> None:
    # Given the lines that a newcomer may copy
    lines = re.findall(r"^holdfast (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert lines

    # When each command's help is asked for, then it exists and names every option that is used
    for line in lines:
        words = line.split()
        command = words[:2] if words[0] in ("get", "pipeline", "pref", "workitem") else words[:1]
        result = CliRunner().invoke(build(), [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert result.exit_code == 0, line
        for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", line):
            assert option in result.stdout, f"{option} of `holdfast {line}`"


def test_every_command_is_in_the_readme() -> None:
    group = typer.main.get_command(build())
    names = set(getattr(group, "commands", {}))

    assert {n for n in names if not re.search(rf"holdfast {n}\b", README)} == set()


def test_the_readme_lists_the_exit_codes() -> None:
    for code in Exit:
        assert re.search(rf"^\| {code.value} \|", README, re.MULTILINE), code


def test_the_locked_requirements_are_current_and_name_no_host() -> None:
    done = subprocess.run([sys.executable, "deploy/lock.py", "check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    for file in (ROOT / "deploy" / "requirements").glob("*.txt"):
        assert "://" not in file.read_text(), file.name
        assert "--index" not in file.read_text(), file.name
