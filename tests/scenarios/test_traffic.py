"""What is really kept and sent, while much happens, is what the key schema and the READMEs say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from holdfast_store import keys
from holdfast_testkit.system import System
from holdfast_testkit.waiting import eventually

from .conftest import Stage, graph, part

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
READMES = ("planner", "fault-policy", "work-items", "provisioner-dungeon")
NOT_OURS = ("_INBOX.", "$JS.", "$SRV.", "$SYS.", "_HF", "$KV.", "$O.")


def as_pattern(name: str) -> re.Pattern[str]:
    """A name of a README as a regular expression: ``<x>`` is one token, ``>`` all that follow."""
    text = re.sub(r"<[^>]+>", "\0", name.replace("{t/g}", "\0").replace("{t}", "\0").replace("{<p>}", "\0"))
    return re.compile(re.escape(text).replace("\0", r"[^.]+").replace(r"\*", ".+").replace(">", ".+"))


def named() -> list[str]:
    """Every subject and key of the tables in the services' READMEs."""
    found = []
    for service in READMES:
        text = (ROOT / "services" / service / "README.md").read_text()
        rows = text.partition("## Consumes, publishes, owns")[2].partition("\n## ")[0].splitlines()
        last = ""
        for name in (n for row in rows for n in re.findall(r"`([^`]+)`", row.split("|")[2] if "|" in row else "")):
            last = f"{last.rpartition('.')[0]}.{name}" if name.isidentifier() and last.startswith("rpc.") else name
            found.append(last.replace(".dungeon.", ".<domain>."))
    return found


async def much_happens(stage: Stage) -> None:
    """Builds, a drift that a person decides, a phase, a pause, a removal that is asked about, a deletion."""
    await stage.publish("g", graph(part("w", type="watched"), part("door", gating="PROVISION_ONLY"), part("x", fail=2)))
    await stage.complete(await stage.item(), "done")
    await stage.converged()
    await stage.fall_sick("w", hold=True, token="t")
    await stage.complete(await stage.item(2), "mend")
    await stage.wait_for("node.default.g.recovered", 2)
    await stage.publish("p", {"phases": [{"id": str(i), "graph": graph(part(f"n{i}"))} for i in range(2)]})
    await stage.converged(graph="p")
    for verb in ("pause", "resume", "reconcile", "explain", "faults", "log", "get"):
        await stage.ask(verb, graph="g", **({"node": "w"} if verb == "explain" else {}))
    await stage.publish("g", {"delete": True})
    await stage.wait_for("graph.default.g.deleted")


async def test_every_key_and_subject_in_use_is_in_a_readme(stage_system: tuple[System, Path], stage: Stage) -> None:
    # Given a client that hears everything
    subjects: set[str] = set()

    async def hear(message: Any) -> None:
        subjects.add(message.subject)

    everything = await stage.client.subscribe(">", cb=hear)
    await stage.client.flush()

    # When much happens
    await much_happens(stage)
    await eventually(lambda: f"graph.{stage.tenant}.g.deleted" in subjects)
    await everything.unsubscribe()

    # Then nothing was sent, and nothing is kept, that no README names
    patterns = [as_pattern(name) for name in named()]
    seen = {s for s in subjects if not s.startswith(NOT_OURS)}
    assert sorted(s for s in seen if not any(p.fullmatch(s) for p in patterns)) == []

    store = redis.asyncio.from_url(stage_system[0].redis_url)
    try:
        kept = {key.decode() async for key in store.scan_iter("*")}
    finally:
        await store.aclose()
    assert f"hf:{{{stage.tenant}/p}}:node" in kept
    assert keys.PLANNERS in kept
    assert sorted(k for k in kept if not any(p.fullmatch(k) for p in patterns)) == []
