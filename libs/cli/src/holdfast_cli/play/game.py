"""What the game asks and hears: the planner, work-items and the dungeon's service, over one session."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from holdfast_cli.exits import CommandError
from holdfast_cli.items import ACTIVE
from holdfast_cli.session import Reply, Session
from holdfast_model.errors import NotFound, Unavailable

from . import scene

DOMAIN = "dungeon"
ATTEMPTS = 3
RAID_LIMIT = 5.0
PAGE = 500


class Game:
    """One dungeon, that is one graph. Errors of the services go through as they are."""

    def __init__(self, session: Session, graph: str) -> None:
        self.session = session
        self.graph = graph
        self.phase = ""
        """The phase in force as of the last look, e.g. ``defend``; "" where the blueprint has none."""

    async def prepare(self, blueprint: Mapping[str, Any] | None) -> None:
        """Declare ``blueprint``, or the dungeon of the house if nothing is declared yet.

        Raises CommandError when no dungeon service is running.
        """
        domains = (await self.session.planner("domains")).get("domains", [])
        if not any(d.get("domain") == DOMAIN and d.get("live") for d in domains):
            raise CommandError(
                "the dungeon's service is not running",
                hint="start everything with `holdfast up --dungeon`, or beside it `python -m holdfast_dungeon`",
            )
        if blueprint is None:
            try:
                await self.session.planner("get", {"graph": self.graph, "limit": 1})
                return
            except NotFound:
                text = (files(__package__) / "dungeon.yaml").read_text(encoding="utf-8")
                blueprint = yaml.safe_load(text)
        await self.session.planner("apply", {"graph": self.graph, "blueprint": blueprint}, limit=30.0)

    async def look(self) -> list[scene.Tile]:
        """Every node as the planner sees it."""
        body: dict[str, Any] = {"graph": self.graph, "limit": PAGE}
        reply = await self.session.planner("get", body)
        self.phase = str((reply.get("graph") or {}).get("phase") or "")
        rows = list(reply.get("nodes", []))
        while reply.get("next"):
            reply = await self.session.planner("get", {**body, "after": reply["next"]})
            rows += reply.get("nodes", [])
        return scene.tiles(rows)

    async def waiting(self) -> list[scene.Item]:
        """What waits for a person."""
        reply = await self.session.workitems("list", {"graph": self.graph, "status": ACTIVE})
        return scene.items(reply.get("items", []))

    async def raid(self, kind: str, target: str = "") -> Reply:
        """Have a raid happen, once: when the answer is lost, it is asked for again under the same id."""
        body: dict[str, object] = {"graph": self.graph, "kind": kind, "id": uuid.uuid4().hex}
        if target:
            body["target"] = target
        for _ in range(ATTEMPTS - 1):
            try:
                return await self.session.domain(DOMAIN, "raid", body, limit=RAID_LIMIT)
            except Unavailable:
                continue
        return await self.session.domain(DOMAIN, "raid", body, limit=RAID_LIMIT)

    async def decide(self, item: str, outcome: str) -> None:
        """Complete a WorkItem."""
        body = {"id": item, "actor": self.session.actor, "outcome": outcome, "note": "decided in the game"}
        await self.session.workitems("complete", body)
