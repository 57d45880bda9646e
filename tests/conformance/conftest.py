"""Collects what became of the vectors and prints it at the end of the run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from .running import Judged, Verdict, table


@dataclass
class Results:
    """Of one run of this folder."""

    judged: list[Judged] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)


_KEY = pytest.StashKey[Results]()


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> Results:
    found = Results()
    request.config.stash[_KEY] = found
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_KEY, None)
    if found is None or not found.judged:
        return
    terminalreporter.section("conformance")
    for line in table(found.judged):
        terminalreporter.write_line(line)
    rules: dict[str, list[str]] = {}
    for judged in found.judged:
        if judged.verdict is Verdict.DEVIATION:
            for name in judged.needed:
                rules.setdefault(name, []).append(judged.case.id)
    for name, cases in rules.items():
        terminalreporter.write_line(f"deviation {name}: {len(cases)} ({', '.join(cases)})")
    for name in found.stale:
        terminalreporter.write_line(f"stale rule: {name}")
