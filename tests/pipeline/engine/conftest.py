"""A small pipeline over real files and Delta tables, driven by hand: what the planner would do, one call at a time."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import pytest

from holdfast_model.errors import Temporary
from holdfast_model.messages import Approval, Decision, Observation
from holdfast_pipeline import specs
from holdfast_pipeline.engine import Engine, EngineSettings, StageResult, StageTask
from holdfast_pipeline.stores import StoreRef
from holdfast_pipeline.tables import Table

if TYPE_CHECKING:
    from holdfast_testkit.objects import Bucket, S3Server

TYPE_OF = {kind: name for name, kind in specs.SPEC_OF_TYPE.items()}


@dataclass
class World:
    """One tenant's folders, an engine over them, and a clock that only moves when told to."""

    base: Path
    tenant: str = "acme"
    graph: str = "main"
    time: float = 2_000_000_000.0
    steps: int = 0
    settings: EngineSettings = field(init=False)

    def __post_init__(self) -> None:
        self.data.mkdir(parents=True)
        self.settings = EngineSettings(self.base / "ware house % #ü", {self.tenant: (self.data,)})

    @property
    def data(self) -> Path:
        return self.base / "daten ä #1%"

    @property
    def engine(self) -> Engine:
        return Engine(self.settings, lambda: self.time)

    def put(self, name: str, text: str | bytes) -> Path:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def task(
        self,
        node: str,
        spec: specs.StageSpec,
        *,
        decision: Decision | None = None,
        approval: Approval | None = None,
        key: str = "",
        deadline: float = 0.0,
    ) -> StageTask:
        raw = specs.encode_spec(spec)
        self.steps += 1
        return StageTask(
            self.tenant,
            self.graph,
            node,
            TYPE_OF[type(spec)],
            msgspec.Raw(raw),
            sha256(raw).hexdigest(),
            "inc",
            key or f"step-{self.steps}",
            decision,
            approval,
            deadline,
        )

    def observe(self, node: str, spec: specs.StageSpec) -> Observation:
        return self.engine.observe(self.task(node, spec))

    def provision(
        self, node: str, spec: specs.StageSpec, decision: Decision | None = None, key: str = ""
    ) -> StageResult:
        return self.engine.provision(self.task(node, spec, decision=decision, key=key))

    def approve(self, node: str, spec: specs.StageSpec, plan: str, pins: Mapping[str, object]) -> StageResult:
        approval = Approval(plan, "ann", self.time, "wi-1", dict(pins))
        return self.engine.provision(self.task(node, spec, approval=approval))

    def deprovision(self, node: str, spec: specs.StageSpec) -> None:
        self.engine.deprovision(self.task(node, spec))

    def race(self, task: StageTask, at_once: int = 3) -> None:
        """Provision the same step several times at once, and once more."""
        start = Barrier(at_once)

        def provision() -> None:
            start.wait()
            try:
                self.engine.provision(task)
            except Temporary:
                return

        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(provision) for _ in range(at_once)]:
                done.result()
        self.engine.provision(task)

    def folder(self, layer: str, name: str) -> Path:
        return self.settings.warehouse / self.tenant / self.graph / layer / name

    def table(self, layer: str, name: str) -> Table:
        table = Table.open(self.folder(layer, name))
        assert table is not None
        return table

    def rows(self, layer: str, name: str, *columns: str) -> list[tuple[object, ...]]:
        """The rows of a table, sorted; only ``columns`` if given."""
        frame = self.table(layer, name).scan().collect()
        return sorted((frame.select(columns) if columns else frame).rows(), key=lambda row: [str(v) for v in row])

    def frame(self, layer: str, name: str) -> pl.DataFrame:
        return self.table(layer, name).scan().collect()


FIELDS = (
    specs.Field("order_id", "int64"),
    specs.Field("amount", "decimal(12,2)"),
    specs.Field("country", "string"),
)


ORDERS = specs.Source("orders", "orders/*.csv", "csv")
CHECKS = (
    specs.Check("order_id", "not_null"),
    specs.Check("order_id", "unique"),
    specs.Check("amount", "not_null"),
    specs.Check("amount", "ge", 0),
)
CONTRACT = specs.Contract("orders-schema", fields=FIELDS)


@dataclass(frozen=True)
class Shop:
    """Specs of an order pipeline, all stages by their usual ids."""

    source: specs.Source = ORDERS
    contract: specs.Contract | None = CONTRACT
    batch_size: int = 1000
    quality_threshold: float = 0.5
    checks: tuple[specs.Check, ...] = CHECKS

    @property
    def schema(self) -> specs.SchemaSpec:
        assert self.contract is not None
        return specs.SchemaSpec(self.contract, ("orders-raw",))

    @property
    def ingestion(self) -> specs.IngestionSpec:
        return specs.IngestionSpec(self.source, self.contract, self.batch_size)

    @property
    def cleanser(self) -> specs.CleanserSpec:
        fields = self.contract.fields if self.contract else ()
        return specs.CleanserSpec(specs.Input("orders-raw", specs.INGESTION), fields, (specs.Rule("trim"),))

    @property
    def enricher(self) -> specs.EnricherSpec:
        lookup = specs.Lookup(specs.Source("countries", "countries.csv", "csv"), ("country",))
        return specs.EnricherSpec(specs.Input("orders-clean", specs.CLEANSER), lookup, {"net": "amount * 0.8"})

    @property
    def validator(self) -> specs.ValidatorSpec:
        return specs.ValidatorSpec(specs.Input("orders-geo", specs.ENRICHER), self.checks, self.quality_threshold)

    @property
    def transformer(self) -> specs.TransformerSpec:
        sql = "select region, sum(net) as net, count(*) as orders from orders_valid group by region"
        return specs.TransformerSpec((specs.Input("orders-valid", specs.VALIDATOR),), sql)

    def sink(self, kind: str = "parquet", **more: object) -> specs.SinkSpec:
        return specs.SinkSpec(specs.Input("by-region", specs.TRANSFORMER), "out", kind, **more)  # type: ignore[arg-type]

    def silver(self) -> list[tuple[str, specs.StageSpec]]:
        return [
            ("orders-raw", self.ingestion),
            ("orders-clean", self.cleanser),
            ("orders-geo", self.enricher),
            ("orders-valid", self.validator),
        ]

    def all(self) -> list[tuple[str, specs.StageSpec]]:
        return [*self.silver(), ("by-region", self.transformer), ("report", self.sink())]

    def run(self, world: World, stages: list[tuple[str, specs.StageSpec]] | None = None) -> list[StageResult]:
        return [world.provision(node, spec) for node, spec in (stages or self.all())]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def ref(bucket: Bucket, prefix: str = "") -> StoreRef:
    return msgspec.convert(bucket.store(prefix), StoreRef)


def use(world: World, *stores: StoreRef, tenant: str = "acme") -> World:
    """Let a tenant use stores."""
    known = {**world.settings.stores, tenant: stores}
    world.settings = dataclasses.replace(world.settings, stores=known)
    return world


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A server of object stores, for all tests that do not stop it."""
    from holdfast_testkit.objects import running  # it takes seconds to load

    with pytest.MonkeyPatch.context() as patch:
        yield from running(patch)


@pytest.fixture
def lake(s3: S3Server) -> Bucket:
    """A bucket of the test's own."""
    return s3.bucket(f"lake-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def lakeside(tmp_path: Path, lake: Bucket) -> World:
    """A world whose tenant may use ``s3://<lake>/acme`` besides its folder."""
    return use(World(tmp_path), ref(lake, "acme"))


@pytest.fixture
def shop() -> Shop:
    return Shop()


GOOD = "order_id,amount,country\n1,10.00,DE\n2,20.50,FR\n3,0.10,DE\n"
COUNTRIES = "country,region\nDE,Central\nFR,West\n"
