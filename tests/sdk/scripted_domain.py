"""A domain whose handler does what each node's spec says: ``{"do": ...}``. For tests of the machinery around it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from holdfast_sdk import (
    RESOLVED,
    Changed,
    Context,
    Domain,
    Node,
    PendingApproval,
    Permanent,
    Present,
    Review,
    Reviewed,
    State,
    Temporary,
)


class Script:
    """``started`` and ``cancelled`` list what happened; ``gate`` holds back steps that say ``wait``."""

    def __init__(self, journal: Path | None = None) -> None:
        self.started: list[tuple[str, int, int]] = []
        self.keys: list[str] = []
        self.cancelled: list[str] = []
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0
        self.journal = journal

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> object:
        self.started.append((node.id, ctx.operation, ctx.attempt))
        self.keys.append(ctx.idempotency_key)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._do(node, ctx)
        except asyncio.CancelledError:
            self.cancelled.append(node.id)
            raise
        finally:
            self.running -= 1

    async def _do(self, node: Node[dict[str, Any]], ctx: Context) -> object:
        match node.spec.get("do", "nothing"):
            case "wait":
                await self.gate.wait()
            case "sleep":
                await asyncio.sleep(node.spec["seconds"])
            case "output":
                return {"ip": "192.0.2.7"}
            case "temporary":
                raise Temporary("later", retry_after=7, reason="busy")
            case "permanent":
                raise Permanent("never", reason="quota")
            case "break":
                raise ValueError("a bug")
            case "approve":
                if ctx.approval is None:
                    raise PendingApproval("plan-1", {"rows": 3}, {"version": 9})
                return {"approved": ctx.approval.plan, "pins": ctx.approval.pins}
            case "huge":
                return {"blob": "x" * 9_000_000}
            case "progress":
                ctx.progress(1, 4, "rows", "a quarter")
                await self.gate.wait()
            case "touch":
                ctx.touch("other", Present(token="t1"))
            case "cancel":
                raise asyncio.CancelledError
            case "journal":
                assert self.journal is not None
                with self.journal.open("a") as file:
                    file.write(f"{os.getpid()} {ctx.idempotency_key}\n")
                if self.journal.read_text().count("\n") == 1:
                    await asyncio.sleep(60)
        return None

    async def deprovision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        self.started.append((node.id, ctx.operation, ctx.attempt))

    async def observe(self, node: Node[dict[str, Any]], ctx: Context) -> State[dict[str, Any]]:
        match node.spec.get("seen", "present"):
            case "break":
                raise ValueError("cannot look")
            case "sleep":
                await asyncio.sleep(60)
            case "nonsense":
                return {"status": "fine"}  # type: ignore[return-value]
        return Present(token=f"seen {node.id}")

    async def discover(self, ctx: Context) -> list[str]:
        return ["left-over", "a"]


class Watcher:
    async def watch(self) -> AsyncIterator[Changed]:
        yield Changed("acme", "shop", "n1", detail="it moved")
        await asyncio.sleep(60)

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> None: ...


def scripted(version: str = "1.0", **options: Any) -> Domain:
    """A fresh domain ``scripted`` with the type ``script``; ``options`` go to the type."""
    domain = Domain("scripted", version=version)
    domain.node_type("script", **{"timeout": 5.0, "batch": 16, "concurrency": 4} | options)(Script)

    @domain.reviewer
    async def review(review: Review, ctx: Context) -> Reviewed:
        return Reviewed(RESOLVED, f"{review.target}: {review.error}", 0.9)

    return domain


domain = scripted()


def handlers() -> Script:
    return Script(Path(os.environ["SCRIPT_JOURNAL"]) if "SCRIPT_JOURNAL" in os.environ else None)
