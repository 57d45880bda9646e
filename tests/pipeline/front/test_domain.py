"""The domain as the SDK runs it, on real files, tables and child processes; a small loop stands for the planner."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from holdfast_model.errors import Invalid
from holdfast_model.ladders import compile_ladders
from holdfast_model.manifest import check_manifest
from holdfast_model.messages import Approval, Decision, NodeDeclaration, Observation, Status
from holdfast_pipeline import specs, steps
from holdfast_pipeline.domain import READS_FILES, make_domain, make_handlers
from holdfast_pipeline.engine import Engine
from holdfast_pipeline.openlineage_feed import OpenLineageFeed
from holdfast_pipeline.reviewer import RuleReviewer
from holdfast_pipeline.settings import Settings
from holdfast_pipeline.steps import ChildSteps
from holdfast_pipeline.worker import Workers
from holdfast_sdk import Context, Domain, Node, PendingApproval
from holdfast_sdk.handlers import Bound
from holdfast_sdk.reviews import Review

from .blueprints import changed, shop

REPOSITORY = Path(__file__).parents[3]


def settings(root: Path) -> Settings:
    return Settings(pipeline_root=root, pipeline_settle=0.0, pipeline_processes=2)


def domain(root: Path) -> Domain:
    return make_domain(settings(root), RuleReviewer())


def test_the_manifest_is_accepted() -> None:
    manifest = domain(Path("data")).manifest()
    check_manifest(manifest)
    compile_ladders(manifest.ladders)
    assert manifest.reviews
    assert {t.name for t in manifest.types} == set(specs.SPEC_OF_TYPE)
    for node_type in manifest.types:
        assert node_type.resync == (5.0 if node_type.name in READS_FILES else 60.0)
        assert node_type.after_human is (node_type.name in specs.GOLD)


def test_the_sample_that_is_shipped_compiles() -> None:
    document = yaml.safe_load((REPOSITORY / "deploy" / "sample" / "blueprint.yaml").read_text())
    assert domain(REPOSITORY / "deploy" / "sample").compile(document["spec"], "default", "main").nodes


def test_a_wrong_blueprint_is_refused_with_pointers(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        domain(tmp_path).compile(changed("/cleansers/0/rules/1/filter", "nope > 1"), "default", "main")
    assert [p.path for p in caught.value.problems] == ["/cleansers/0/rules/1/filter"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("/sources/0/uri", "/etc/*.csv"),
        ("/sources/0/uri", "file:///etc/passwd"),
        ("/sources/0/uri", "link/secret.csv"),
        ("/sources/0/uri", "warehouse/default/main/bronze/*/*.parquet"),
        ("/sinks/0/destination", "/tmp"),
        ("/sinks/0/destination", "warehouse/out"),
        ("/sinks/0/destination", "link"),
    ],
)
def test_nothing_outside_the_tenants_roots_or_inside_the_warehouse_is_used(
    tmp_path: Path, place: str, value: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(Invalid) as caught:
        domain(root).compile(changed(place, value), "default", "main")
    assert place in [p.path for p in caught.value.problems]


def test_another_tenant_has_no_data_unless_it_is_given_some(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        domain(tmp_path).compile(shop(), "acme", "main")
    given = Settings(pipeline_root=tmp_path, pipeline_tenants=tmp_path / "tenants")
    assert make_domain(given, RuleReviewer()).compile(shop(), "acme", "main").nodes


async def test_the_reviewer_answers_reviews_of_the_domain(tmp_path: Path) -> None:
    review = domain(tmp_path).reviews
    assert review is not None
    asked = Review("orders-raw", reason="permanent", error="PermissionError: Permission denied: 'orders/a.csv'")
    answer = await review(asked, Context("t", "g", "i", "ai-review-orders-raw", 1, 1, 0.0))
    assert answer.verdict == "UNRESOLVED"
    assert answer.confidence


class Loop:
    """Observes and provisions the nodes of one compiled blueprint in the order of their edges."""

    def __init__(self, bound: dict[str, Bound], nodes: list[NodeDeclaration]) -> None:
        self.bound = bound
        self.nodes = {n.id: n for n in nodes}
        self.operation = 0
        self.asked: dict[str, PendingApproval] = {}
        self.progress: list[str] = []

    def node(self, id: str) -> Node[Any]:
        declared = self.nodes[id]
        codec = self.bound[declared.type].codec
        digest = sha256(bytes(declared.spec)).hexdigest()
        return Node(id, declared.type, declared.spec, codec, digest, declared.depends_on, "default", "main", "inc")

    def context(self, id: str, operation: int = 0, **given: Any) -> Context:
        deadline = time.time() + 240  # its first step has the forkserver load its libraries
        return Context(
            "default", "main", "inc", id, operation, 1, deadline, report=lambda p: self.progress.append(p.node), **given
        )

    async def observe(self, id: str) -> Observation:
        observe = self.bound[self.nodes[id].type].observe
        assert observe is not None
        seen = await observe(self.node(id), self.context(id))
        assert isinstance(seen, Observation)
        return seen

    async def provision(self, id: str, **given: Any) -> Observation:
        provision = self.bound[self.nodes[id].type].provision
        assert provision is not None
        self.operation += 1
        done = await provision(self.node(id), self.context(id, self.operation, **given))
        assert isinstance(done, Observation)
        return done

    async def converge(self) -> dict[str, str]:
        """One pass. Returns the statuses afterwards; what asks for approval or is held stops its dependents."""
        statuses: dict[str, str] = {}
        for id in self.nodes:
            if any(statuses[d] != "PRESENT" for d in self.nodes[id].depends_on):
                statuses[id] = "blocked"
                continue
            seen = await self.observe(id)
            if seen.status is not Status.PRESENT and not seen.hold:
                try:
                    seen = await self.provision(id)
                except PendingApproval as asked:
                    self.asked[id] = asked
                    statuses[id] = "approval"
                    continue
            statuses[id] = seen.reason if seen.hold else seen.status.value
        return statuses


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[Loop]:
    (tmp_path / "orders").mkdir()
    (tmp_path / "countries.csv").write_text("country,region\nDE,north\nFR,west\nZZ,none\n")
    (tmp_path / "orders" / "1.csv").write_text(
        "order_id,amount,country,placed_at\n1, 10.00 ,DE,2026-01-01T10:00:00\n2,5.50,FR,\n2,7.50,FR,\n-1,1.00,DE,\n"
    )
    chosen = settings(tmp_path)
    async with Workers(steps.TARGET, limit=2) as workers:
        made = make_domain(chosen, RuleReviewer())
        feed = OpenLineageFeed.from_environment() if "OPENLINEAGE_URL" in os.environ else None
        engine = Engine(chosen.engine(), time.time)
        handlers = make_handlers(engine, ChildSteps(workers, chosen.engine()), chosen, feed)
        if feed is not None:
            await feed.start()
        yield Loop(made.bind(handlers), made.compile(shop(), "default", "main").nodes)
        if feed is not None:
            await feed.stop()


async def test_files_become_gold_and_an_approval_publishes_them(loop: Loop, tmp_path: Path) -> None:
    # Given files, a first pass builds everything but the sink that asks
    statuses = await loop.converge()
    assert {id: s for id, s in statuses.items() if s != "PRESENT"} == {"report": "approval"}
    cube = pl.read_delta(str(tmp_path / "out" / "cube"))
    assert sorted((c, float(n)) for c, n in cube.rows()) == [("DE", 8.0), ("FR", 6.0)]
    # When a person agrees to exactly that plan
    asked = loop.asked["report"]
    approval = Approval(asked.plan, "ada", time.time(), pins=asked.pins)
    done = await loop.provision("report", approval=approval)
    # Then it is published, and everything stands still
    assert done.status is Status.PRESENT
    assert set((await loop.converge()).values()) == {"PRESENT"}
    # When a file comes, it goes all the way without another question
    (tmp_path / "orders" / "2.csv").write_text("order_id,amount,country,placed_at\n3,100.00,DE,\n")
    assert set((await loop.converge()).values()) == {"PRESENT"}
    report = pl.concat([pl.read_parquet(p) for p in (tmp_path / "out").glob("report/*.parquet")])
    assert sorted((r, float(n)) for r, n in report.rows()) == [("north", 88.0), ("west", 6.0)]


async def test_a_renamed_column_holds_the_schema_until_it_is_decided(loop: Loop, tmp_path: Path) -> None:
    await loop.converge()
    # Given a file with a renamed column
    (tmp_path / "orders" / "2.csv").write_text("order_id,total,country,placed_at\n3,100.00,DE,\n")
    await loop.converge()
    statuses = await loop.converge()
    assert statuses["orders-schema"] == "schema_drift"
    assert statuses["orders-clean"] == "blocked"
    # When a person accepts it under the old name
    decision = Decision("accept", "ada", data={"rename": {"total": "amount"}}, workitem="w1")
    await loop.provision("orders-schema", decision=decision)
    await loop.converge()
    # Then its rows are there
    assert (await loop.converge())["cube"] == "PRESENT"
    cube = pl.read_delta(str(tmp_path / "out" / "cube"))
    assert float(cube.filter(pl.col("country") == "DE")["net"].item()) == 88.0


async def test_a_source_is_watched_while_it_is_observed(loop: Loop, tmp_path: Path) -> None:
    watch = loop.bound[specs.DATA_SOURCE].watch
    assert watch is not None
    await loop.observe("orders")
    changes = watch()
    assert isinstance(changes, AsyncGenerator)
    first = asyncio.ensure_future(anext(changes))
    async with asyncio.timeout(60):
        while not first.done():
            (tmp_path / "orders" / "2.csv").write_text("order_id,amount,country,placed_at\n")
            await asyncio.wait({first}, timeout=0.3)
    found = [first.result(), await anext(changes)]
    await changes.aclose()
    assert [(c.tenant, c.graph, c.node) for c in found] == [
        ("default", "main", "orders"),
        ("default", "main", "orders-raw"),
    ]
