"""What people published, by a naive model, against what was answered, what is desired, and what was told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from holdfast_bus.envelope import MSG_ID
from holdfast_model.names import GraphRef
from holdfast_model.phases import CompleteWhen

from .owners import EVERYBODY, owner_of

if TYPE_CHECKING:
    from .world import World


class Published:
    """See the module. Everything here looks at streams and keys as somebody outside could."""

    def __init__(self, world: World) -> None:
        self._world = world

    def check(self, ref: GraphRef, kept_back: set[str]) -> None:
        """Every blueprint was answered, the newest of each owner is in force, and no event was kept back.
        ``kept_back``: owners for whom somebody says why their next phase cannot begin.
        """
        owners = self._world.watcher.graphs[ref].owners
        documents, answers = dict(self._documents(ref)), self._answers(ref)
        accepted = {seq for seq, words in answers.items() if "accepted" in words}
        newest: dict[str, int] = {}
        for seq, owner in documents.items():
            if seq in accepted:
                newest[owner] = seq
                continue
            if not answers[seq]:
                self._world.fail(f"{ref}: the blueprint {seq} of {owner} was never answered")
            newer = any(documents[s] in (owner, EVERYBODY) for s in answers if s > seq and "rejected" not in answers[s])
            newer = newer or any(documents[s] == owner and "waiting" in answers[s] for s in answers if s > seq)
            if "rejected" not in answers[seq] and not newer:
                self._world.fail(f"{ref}: the blueprint {seq} of {owner} was {sorted(answers[seq])}, and nothing since")
        if newest != owners.placed:
            self._world.fail(f"{ref}: in force are {owners.placed}, but accepted were {newest}")
        for owner, standing in owners.standings.items():
            never = standing.term.complete_when is CompleteWhen.NEVER
            ends = standing.last or never or owner in kept_back
            if not ends or standing.overdue(self._world.loop.now):
                self._world.fail(f"{ref}: {owner} stays in its phase, or nobody says that it is late: {standing}")

    def _not_only_told(self, ref: GraphRef, stream: str, committed: set[str]) -> None:
        """What is told has happened; only a refusal changes nothing, so that nothing is written of it."""
        for stored in self._world.server.streams[stream].stored.values():
            family, tenant, graph, name = stored.subject.split(".")[:4]
            mine = (tenant, graph) == tuple(ref) and family != "workitem" and name != "rejected"
            if mine and stored.headers.get(MSG_ID, "") not in committed:
                self._world.fail(f"{ref}: {stored.subject} was told, but never happened: {stored.data!r}")

    def decided(self, ref: GraphRef, owner: str) -> bool:
        """Whether it is known of everything that was published of an owner what became of it."""
        if self._world.people.publishing[ref] > 1:
            return False
        placed, answers = self._world.watcher.graphs[ref].owners.placed, self._answers(ref)
        return not any(
            seq > placed.get(owner, 0) and seq > placed.get(of, 0) and not {"rejected", "superseded"} & answers[seq]
            for seq, of in self._documents(ref) if of in (owner, EVERYBODY)
        )  # fmt: skip

    def check_told(self) -> None:
        """Every event that was committed is on its stream, those of one graph in the order of their commits."""
        for stream in ("EVENTS", "FAULTS"):
            first: dict[str, int] = {}
            for seq, stored in sorted(self._world.server.streams[stream].stored.items()):
                first.setdefault(stored.headers.get(MSG_ID, ""), seq)
            for ref, graph in self._world.watcher.graphs.items():
                told = [id for id, where in graph.events if where == stream]
                missing = [id for id in told if id not in first]
                if missing:
                    self._world.fail(f"{ref}: events were never published: {missing}")
                self._not_only_told(ref, stream, {id for id, _ in graph.events})
                order = [first[id] for id in told]
                if order != sorted(order):
                    self._world.fail(f"{ref}: events were not published in order: {told}")

    def _documents(self, ref: GraphRef) -> Iterator[tuple[int, str]]:
        """Whose every blueprint is."""
        for seq, stored in sorted(self._world.server.streams["BLUEPRINTS"].stored.items()):
            if stored.subject == f"blueprint.{ref.tenant}.{ref.graph}":
                yield seq, owner_of(msgspec.json.decode(stored.data))

    def _answers(self, ref: GraphRef) -> dict[int, set[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        for stored in self._world.server.streams["EVENTS"].stored.values():
            family, tenant, graph, name = stored.subject.split(".")[:4]
            if (family, tenant, graph) != ("graph", *ref) or name not in ("accepted", "rejected", "waiting"):
                continue
            data = msgspec.json.decode(stored.data)["data"]
            if "sequence" in data:
                found[data["sequence"]].add("superseded" if data.get("superseded") else name)
        return found
