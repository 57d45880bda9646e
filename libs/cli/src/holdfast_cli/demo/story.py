"""The acts of the demo. Each changes the world as people do, and ends when every table is right again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from holdfast_cli.applying import refuse_unless_taken, tell_admission
from holdfast_cli.items import outcomes
from holdfast_cli.screen import Screen
from holdfast_cli.session import Reply, Session

from . import checking, dataset, expected
from .following import Follower

GRAPH = "shop"
ADMISSION_LIMIT = 60.0
ACT_LIMIT = 60.0


class Story:
    """One run. ``root``: the tenant's files; ``places``: where the tables come to be."""

    def __init__(
        self, session: Session, screen: Screen, follower: Follower, root: Path, places: checking.Places
    ) -> None:
        self.session = session
        self.screen = screen
        self.follower = follower
        self.root = root
        self.places = places
        self.renames: dict[str, str] = {}
        self.decided = 0
        self.verdicts: list[checking.Verdict] = []

    async def tell(self) -> bool:
        """All acts. True when every table was exactly right after each of them."""
        acts = (self._declare, self._renamed_column, self._broken_rows)
        return all([await act() for act in acts])

    async def _declare(self) -> bool:
        self._title("1. Three months of orders; declare what should become of them")
        blueprint = yaml.safe_load((files(__package__) / "blueprint.yaml").read_text(encoding="utf-8"))
        reply: Reply = {}

        async def admitted() -> bool:
            nonlocal reply
            reply = await self.session.planner("apply", {"graph": GRAPH, "blueprint": blueprint}, limit=ADMISSION_LIMIT)
            refuse_unless_taken(reply, GRAPH)
            return reply.get("status") == "accepted"

        await self.follower.until("the blueprint is accepted", admitted, ADMISSION_LIMIT)
        tell_admission(self.screen, reply, GRAPH)
        item = await self._asked_for("report", "desiredstate-approval:")
        await self._decide(item, "approve", note="first publication of the report")
        return await self._all_right()

    async def _renamed_column(self) -> bool:
        self._title("2. April arrives with a renamed column")
        dataset.write_renamed(self.root)
        item = await self._asked_for("human-review-orders-schema", "desiredstate:")
        self.renames = {"amount_eur": "amount"}
        await self._decide(item, "accept", note="the shop renamed it", data={"rename": self.renames})
        return await self._all_right()

    async def _broken_rows(self) -> bool:
        self._title("3. May arrives, and nearly a third of its rows cannot be right")
        dataset.write_broken(self.root)
        item = await self._asked_for("human-review-orders-valid", "desiredstate:")
        await self._decide(item, "drop-rows", note="known export bug, to be sent again")
        return await self._all_right()

    async def _asked_for(self, node: str, family: str) -> Reply:
        """The WorkItem about a node, once it is there."""
        found: list[Reply] = []

        async def asked() -> bool:
            reply = await self.session.workitems("list", {"graph": GRAPH, "status": ["PENDING", "ASSIGNED"]})
            found[:] = [
                item
                for item in reply.get("items", [])
                if str(item.get("callerRef", "")).startswith(family) and f":{node}:" in str(item.get("callerRef"))
            ]
            return bool(found)

        await self.follower.until(f"somebody is asked about {node}", asked, ACT_LIMIT)
        return found[0]

    async def _decide(self, item: Reply, outcome: str, *, note: str, data: Mapping[str, Any] | None = None) -> None:
        """What a person does with `holdfast decide`."""
        self.screen.say(Text.assemble(("   asked:   ", "bold magenta"), str(item.get("title"))))
        if item.get("description"):
            self.screen.say(Text(f"            {item['description']}", style="dim"))
        extra = f" --data '{json.dumps(data)}'" if data else ""
        command = f"holdfast decide {item['id']} {outcome}{extra} --note '{note}'"
        self.screen.say(Text.assemble(("   decided: ", "bold magenta"), command, f"   (of {'|'.join(outcomes(item))})"))
        body: dict[str, Any] = {"id": item["id"], "actor": self.session.actor, "outcome": outcome, "note": note}
        if data:
            body["data"] = dict(data)
        await self.session.workitems("complete", body)
        self.decided += 1

    async def _all_right(self) -> bool:
        """Wait until the planner says converged and every table holds what it must; then show both."""
        wanted = await asyncio.to_thread(expected.compute, self.root, self.renames)

        async def right() -> bool:
            if self.follower.summary.get("status") != "converged":
                return False
            self.verdicts = await asyncio.to_thread(checking.check, self.places, wanted)
            return all(not verdict.problem for verdict in self.verdicts)

        try:
            await self.follower.until("converged, every table exactly right", right, ACT_LIMIT)
        finally:
            if not self.verdicts:
                self.verdicts = await asyncio.to_thread(checking.check, self.places, wanted)
            self._tell_verdicts()
        version = self.follower.summary.get("version", "?")
        self.screen.say(Text(f"   converged at version {version}", style="bold green"))
        return True

    def _tell_verdicts(self) -> None:
        for verdict in self.verdicts:
            mark = ("   exact  ", "green") if not verdict.problem else ("   WRONG  ", "bold red")
            self.screen.say(Text.assemble(mark, f"{verdict.table:<20} {verdict.rows:>6} rows  {verdict.problem}"))

    def show_gold(self) -> None:
        """The Gold table as it is on disk."""
        frame = checking.read(self.places.out / "report")
        if frame is None:
            return
        table = Table(title="Gold: report (revenue by region)", box=box.SIMPLE_HEAD, title_justify="left")
        for column in frame.columns:
            table.add_column(column, justify="left" if column == "region" else "right")
        for row in frame.sort("revenue", descending=True).iter_rows():
            table.add_row(*[f"{v:,.2f}" if not isinstance(v, str | int) else str(v) for v in row])
        self.screen.out.print(table)

    def _title(self, text: str) -> None:
        self.verdicts = []
        self.screen.out.print(Rule(Text(text, style="bold"), align="left"))
