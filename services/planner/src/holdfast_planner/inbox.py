"""Entries of a graph's inbox: what other replicas took in, and what the owner makes of it."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import msgspec

from holdfast_model.reconciler import CloseIntent, Ended, ItemIntent, Reconciler, reported_fault
from holdfast_store.records import Entry

Input = Callable[[Reconciler, float], object]


class StateReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something happened to nodes outside. ``fault`` is a fault type that the reporter saw."""

    nodes: list[str]
    fault: str = ""
    detail: str = ""
    event: str = ""


class Command(msgspec.Struct, frozen=True, omit_defaults=True):
    """pause | resume | reconcile | unblock, of the graph or of one node."""

    verb: str
    node: str = ""
    actor: str = ""


class Taken(msgspec.Struct, frozen=True):
    """``deferred``: the entry stays until the reconciler says that it is served. ``faults``: ids of those it raises."""

    feed: Input | None
    deferred: bool = False
    faults: tuple[str, ...] = ()


WINDOW = 0.1
"""Seconds: reports of changes that follow one another so closely are taken together."""


class Reports:
    """Reports that nodes changed outside: the first acts at once, those within ``WINDOW`` after it act together."""

    def __init__(self) -> None:
        self._closed_until = float("-inf")
        self._held: list[Input] = []

    @property
    def due(self) -> float | None:
        """When those that wait are to be taken (s since the epoch); None when none waits."""
        return self._closed_until if self._held else None

    def arrived(self, report: Input) -> None:
        self._held.append(report)

    def ready(self, now: float) -> list[Input]:
        """Those to be taken now."""
        if not self._held or now < self._closed_until:
            return []
        taken, self._held = self._held, []
        self._closed_until = now + WINDOW
        return taken


KIND_STATE, KIND_ENDED, KIND_COMMAND = "state", "ended", "command"
KIND_ASK, KIND_WITHDRAW = "ask", "withdraw"

Content = StateReport | Ended | Command | ItemIntent | CloseIntent


def entry_fields(content: Content) -> dict[str, Any]:
    """The fields of an inbox entry."""
    kinds = {
        StateReport: KIND_STATE,
        Ended: KIND_ENDED,
        Command: KIND_COMMAND,
        ItemIntent: KIND_ASK,
        CloseIntent: KIND_WITHDRAW,
    }
    return {"k": kinds[type(content)], "c": msgspec.json.encode(content)}


def read_entry(entry: Entry, known: Container[str] = ()) -> Taken:
    """What an entry means for the reconciler. One that cannot be read is dropped: nobody else could read it either.

    ``known``, looked at when it is fed: faults that were raised before, by the same report delivered twice.
    """
    kind, raw = entry.fields.get("k", b"").decode(), entry.fields.get("c", b"")
    try:
        if kind == KIND_STATE:
            report = msgspec.json.decode(raw, type=StateReport)
            faults = tuple(reported_fault(_event(report, n)) for n in report.nodes) if report.fault else ()
            return Taken(_state(entry.id, report, known), True, faults)
        if kind == KIND_ENDED:
            end = msgspec.json.decode(raw, type=Ended)
            return Taken(lambda r, now: r.on_decision(now, end))
        if kind == KIND_COMMAND:
            return Taken(_command(msgspec.json.decode(raw, type=Command)))
        if kind == KIND_ASK:
            ask = msgspec.json.decode(raw, type=ItemIntent)
            return Taken(lambda r, now: r.on_question(now, ask))
        if kind == KIND_WITHDRAW:
            withdraw = msgspec.json.decode(raw, type=CloseIntent)
            return Taken(lambda r, now: r.on_question(now, withdraw))
    except msgspec.DecodeError:
        return Taken(None)
    return Taken(None)


def _event(report: StateReport, node: str) -> str:
    return f"{report.event}-{node}"


def _state(tag: str, report: StateReport, known: Container[str]) -> Input:
    def feed(reconciler: Reconciler, now: float) -> None:
        if report.fault:
            for node in report.nodes:
                event = _event(report, node)
                if reported_fault(event) not in known:
                    reconciler.on_reported(now, node, report.fault, report.detail, event)
        reconciler.on_wake(now, report.nodes, tag)

    return feed


def _command(command: Command) -> Input:
    def feed(reconciler: Reconciler, now: float) -> None:
        match command.verb:
            case "pause" | "resume":
                reconciler.on_paused(now, command.verb == "pause", command.node)
            case "unblock":
                reconciler.on_unblock(now, command.node)
            case "reconcile":
                reconciler.on_reconcile(now)

    return feed
