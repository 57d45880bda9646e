"""Writes and checks the locked requirements of the workspace.

``python deploy/lock.py write`` resolves ``deploy/requirements/dev.txt`` (everything, for development) and one
file per service (what its image holds), all from the members' ``pyproject.toml``, with hashes and without any
host name. ``python deploy/lock.py check`` says whether the files are current. It needs no network: each file
starts with a digest of what was asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "deploy" / "requirements"
PYTHON = "3.11"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def members() -> dict[str, tuple[Path, list[str]]]:
    """Distribution name -> (folder, direct dependencies) of every member of the workspace."""
    found: dict[str, tuple[Path, list[str]]] = {}
    for file in sorted([*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]):
        project = tomllib.loads(file.read_text())["project"]
        found[project["name"]] = (file.parent, list(project.get("dependencies", [])))
    return found


def name_of(requirement: str) -> str:
    match = _NAME.match(requirement)
    if match is None:
        raise SystemExit(f"lock: {requirement!r} is not a requirement")
    return match.group().lower()


def closure(start: str, known: dict[str, tuple[Path, list[str]]]) -> list[str]:
    """The members that ``start`` needs, itself last."""
    order: list[str] = []

    def visit(name: str) -> None:
        for requirement in known[name][1]:
            if name_of(requirement) in known:
                visit(name_of(requirement))
        if name not in order:
            order.append(name)

    visit(start)
    return order


def wanted() -> dict[str, list[str]]:
    """File name -> the outside requirements it must satisfy."""
    known = members()
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    everything = set(root["dependency-groups"]["dev"])
    for folder, _ in known.values():
        optional = tomllib.loads((folder / "pyproject.toml").read_text())["project"].get("optional-dependencies", {})
        everything.update(d for group in optional.values() for d in group)
    files: dict[str, list[str]] = {}
    for name, (folder, dependencies) in known.items():
        everything.update(d for d in dependencies if name_of(d) not in known)
        if folder.parent.name == "services":
            needs = {d for n in closure(name, known) for d in known[n][1] if name_of(d) not in known}
            files[f"{folder.name}.txt"] = sorted(needs)
    return {"dev.txt": sorted(everything), **files}


def header(requirements: list[str]) -> str:
    digest = hashlib.sha256("\n".join([PYTHON, *requirements]).encode()).hexdigest()
    return f"# Made by `make lock`. Do not edit.\n# inputs sha256:{digest}\n"


def write() -> None:
    uv = shutil.which("uv", path=f"{ROOT / '.venv' / 'bin'}:{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit("lock: uv is needed to resolve; install it with `.venv/bin/python -m pip install uv`")
    TARGET.mkdir(parents=True, exist_ok=True)
    for file, requirements in wanted().items():
        target = TARGET / file
        command = [
            uv, "pip", "compile", "-", "--quiet", "--universal", "--python-version", PYTHON,
            "--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate",
        ]  # fmt: skip
        if file != "dev.txt":
            command += ["--constraint", str(TARGET / "dev.txt")]
        done = subprocess.run(
            command, input="\n".join(requirements), text=True, stdout=subprocess.PIPE, check=False, cwd=ROOT
        )
        if done.returncode:
            raise SystemExit(done.returncode)
        target.write_text(header(requirements) + done.stdout)
        print(f"lock: wrote {target.relative_to(ROOT)} ({done.stdout.count('==')} packages)")


def check() -> None:
    stale = []
    for file, requirements in wanted().items():
        target = TARGET / file
        if not target.exists() or not target.read_text().startswith(header(requirements)):
            stale.append(str(target.relative_to(ROOT)))
    if stale:
        raise SystemExit("lock: not current: " + ", ".join(stale) + "; run `make lock` and commit the result")
    print("lock: current")


if __name__ == "__main__":
    actions = {"write": write, "check": check}
    if len(sys.argv) == 3 and sys.argv[1] == "members":  # folders a service's image needs, for the Dockerfile
        everyone = members()
        target_name = next((n for n, (f, _) in everyone.items() if f.name == sys.argv[2]), "")
        if not target_name:
            raise SystemExit(f"lock: no member called {sys.argv[2]!r}")
        print(" ".join(str(everyone[n][0].relative_to(ROOT)) for n in closure(target_name, everyone)))
    elif len(sys.argv) == 2 and sys.argv[1] in actions:
        actions[sys.argv[1]]()
    else:
        raise SystemExit("usage: python deploy/lock.py write | check | members SERVICE")
