"""What commands print: results on standard output, everything else on standard error.

With ``-o json`` standard output holds exactly one JSON document (``watch``: one per line), and an error is one JSON
document on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .exits import CommandError, Exit

Row = Sequence[str | Text]


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class Screen:
    """Where one command writes. ``live`` is True when a person watches (a terminal, and text is asked for)."""

    def __init__(self, format: Format = Format.TEXT) -> None:
        self.format = format
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def json(self) -> bool:
        return self.format is Format.JSON

    @property
    def live(self) -> bool:
        return self.out.is_terminal and not self.json

    @property
    def wide(self) -> Console:
        """For what is drawn: as wide as the terminal, or wide enough where there is none."""
        return self.out if self.out.is_terminal else Console(highlight=False, width=200)

    def document(self, value: object) -> None:
        """One JSON document on standard output."""
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
        sys.stdout.flush()

    def line(self, value: object) -> None:
        """One JSON document on one line of standard output."""
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()

    def say(self, text: str | Text) -> None:
        """A line for people; nothing with ``-o json``."""
        if not self.json:
            self.out.print(text)

    def note(self, text: str | Text) -> None:
        """A remark beside the result: standard error, so that it never gets into a pipe."""
        if not self.json:
            self.err.print(text)

    def table(self, columns: Sequence[str], rows: Iterable[Row], empty: str) -> None:
        """A table, or the sentence ``empty`` when there are no rows."""
        filled = [list(row) for row in rows]
        if not filled:
            self.out.print(Text(empty, style="dim"))
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in filled:
            table.add_row(*[cell if isinstance(cell, Text) else Text(cell) for cell in row])
        self.wide.print(table)

    def fail(self, failure: CommandError) -> Exit:
        """The one block an error gets; returns the exit code to end with."""
        if self.json:
            sys.stderr.write(msgspec.json.encode({"error": failure.body}).decode() + "\n")
            return failure.exit
        self.err.print(Text.assemble(("error: ", "bold red"), failure.body.message))
        for problem in failure.body.paths:
            place = problem.path or "/"
            if problem.message == failure.body.message:
                self.err.print(Text.assemble("  at ", (place, "cyan")))
            else:
                self.err.print(Text.assemble("  at ", (place, "cyan"), f": {problem.message}"))
        if failure.body.hint:
            self.err.print(Text.assemble(("  next: ", "bold"), failure.body.hint))
        return failure.exit


STYLES = {
    "PRESENT": "green", "converged": "green", "COMPLETED": "green", "running": "green", "accepted": "green",
    "ABSENT": "yellow", "waiting": "yellow", "PENDING": "yellow", "ASSIGNED": "yellow", "backoff": "yellow",
    "held": "yellow", "starting": "yellow", "paused": "yellow",
    "DRIFTED": "magenta", "UNKNOWN": "magenta",
    "blocked": "red", "failed": "red", "rejected": "red", "REJECTED": "red", "refused": "red", "stopped": "red",
}  # fmt: skip


def status(word: str) -> Text:
    """A status word in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def cell(value: Any) -> str:
    """A value of a reply as a table shows it."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(str(v) for v in value)
    return msgspec.json.encode(value).decode()
