"""Entries of a graph's inbox: what other replicas took in, and what the owner makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from holdfast_model.reconciler import Ended, Reconciler
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
    """``deferred``: the entry stays until the reconciler says that it is served."""

    feed: Input | None
    deferred: bool = False


KIND_STATE, KIND_ENDED, KIND_COMMAND = "state", "ended", "command"


def entry_fields(content: StateReport | Ended | Command) -> dict[str, Any]:
    """The fields of an inbox entry."""
    kinds = {StateReport: KIND_STATE, Ended: KIND_ENDED, Command: KIND_COMMAND}
    return {"k": kinds[type(content)], "c": msgspec.json.encode(content)}


def read_entry(entry: Entry) -> Taken:
    """What an entry means for the reconciler. One that cannot be read is dropped: nobody else could read it either."""
    kind, raw = entry.fields.get("k", b"").decode(), entry.fields.get("c", b"")
    try:
        if kind == KIND_STATE:
            return Taken(_state(entry.id, msgspec.json.decode(raw, type=StateReport)), True)
        if kind == KIND_ENDED:
            end = msgspec.json.decode(raw, type=Ended)
            return Taken(lambda r, now: r.on_decision(now, end))
        if kind == KIND_COMMAND:
            return Taken(_command(msgspec.json.decode(raw, type=Command)))
    except msgspec.DecodeError:
        return Taken(None)
    return Taken(None)


def _state(tag: str, report: StateReport) -> Input:
    def feed(reconciler: Reconciler, now: float) -> None:
        if report.fault:
            for node in report.nodes:
                reconciler.on_reported(now, node, report.fault, report.detail, f"{report.event}-{node}")
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
