"""Steps in child processes: the engine's answers arrive as it gave them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from holdfast_model.errors import Invalid, Permanent, Problem, Temporary
from holdfast_model.messages import Observation, Status, Touch
from holdfast_pipeline import specs, steps
from holdfast_pipeline.engine import Engine
from holdfast_pipeline.objects import ObjectPath
from holdfast_pipeline.steps import ChildSteps
from holdfast_pipeline.stores import StoreRef
from holdfast_pipeline.tasks import EngineSettings, PendingApproval, StageResult, StageTask
from holdfast_pipeline.worker import Workers


class InPlace:
    """Runs the child's side here."""

    async def run(
        self, request: bytes, seconds: float, on_sent: Callable[[bytes], None] = lambda _: None, graph: str = ""
    ) -> bytes:
        return steps.run(request, on_sent)


def task(node: str = "orders", spec: specs.StageSpec | None = None) -> StageTask:
    spec = spec or specs.DataSourceSpec(specs.Source("orders", "orders/*.csv", "csv"), ("raw",))
    kind = next(name for name, struct in specs.SPEC_OF_TYPE.items() if isinstance(spec, struct))
    return StageTask("default", "main", node, kind, msgspec.Raw(specs.encode_spec(spec)), "digest", "inc", "key")


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    return EngineSettings(tmp_path / "warehouse", {"default": (tmp_path,)}, None, 0.0)


@pytest.fixture
async def children(settings: EngineSettings, tmp_path: Path) -> AsyncIterator[ChildSteps]:
    async with Workers(steps.TARGET, limit=2) as workers:
        yield ChildSteps(workers, settings)


def scripted(monkeypatch: pytest.MonkeyPatch, act: Callable[..., object]) -> None:
    monkeypatch.setattr(Engine, "provision", act)


async def test_a_source_is_provisioned_in_a_child(children: ChildSteps, tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    result = await children.provision(task(), 120, lambda *_: None)
    assert result.observation.status is Status.PRESENT
    assert result.touch == (Touch("raw"),)


async def test_what_the_child_raises_is_raised_here(children: ChildSteps) -> None:
    with pytest.raises(Temporary, match="orders"):
        await children.provision(task(), 120, lambda *_: None)


async def test_a_child_writes_tables(children: ChildSteps, tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "a.csv").write_text("id\n1\n2\n")
    raw = specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv"))
    result = await children.provision(task("raw", raw), 120, lambda *_: None)
    assert result.observation.status is Status.PRESENT
    assert any((tmp_path / "warehouse").rglob("*.parquet"))
    await children.deprovision(task("raw", raw), 120)
    assert not any((tmp_path / "warehouse").rglob("*.parquet"))


@pytest.mark.parametrize(
    "error",
    [
        Temporary("busy", retry_after=7.0, reason="held"),
        Permanent("never", hint="mend it", reason="not_ours"),
        Invalid("bad", [Problem("/spec", "bad")]),
    ],
)
async def test_errors_keep_family_reason_and_places(
    settings: EngineSettings, monkeypatch: pytest.MonkeyPatch, error: Temporary | Permanent
) -> None:
    def act(*_: object) -> object:
        raise error

    scripted(monkeypatch, act)
    with pytest.raises(type(error)) as caught:
        await ChildSteps(InPlace(), settings).provision(task(), 1, lambda *_: None)
    assert {k: v for k, v in vars(caught.value).items() if v} == {k: v for k, v in vars(error).items() if v}


async def test_an_error_nobody_meant_is_temporary_and_says_what_it_was(
    settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(*_: object) -> object:
        raise ZeroDivisionError("by zero")

    scripted(monkeypatch, act)
    with pytest.raises(Temporary, match="ZeroDivisionError: by zero"):
        await ChildSteps(InPlace(), settings).provision(task(), 1, lambda *_: None)


async def test_a_request_for_approval_arrives_with_plan_and_pins(
    settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(*_: object) -> object:
        raise PendingApproval("gold-tier:report", {"rows": 3}, {"by-region": ["id", 4]})

    scripted(monkeypatch, act)
    with pytest.raises(PendingApproval) as caught:
        await ChildSteps(InPlace(), settings).provision(task(), 1, lambda *_: None)
    assert (caught.value.plan, caught.value.summary, caught.value.pins) == (
        "gold-tier:report", {"rows": 3}, {"by-region": ["id", 4]},
    )  # fmt: skip


async def test_progress_arrives_thinned_out(settings: EngineSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(_: object, __: StageTask, progress: Callable[..., None]) -> StageResult:
        for i in range(1, 1001):
            progress(float(i), 1000.0, "rows", "")
        return StageResult(Observation(Status.PRESENT), {"n": 1})

    scripted(monkeypatch, act)
    seen: list[float] = []
    result = await ChildSteps(InPlace(), settings).provision(task(), 1, lambda done, *_: seen.append(done))
    assert seen[0] == 1.0
    assert seen[-1] == 1000.0
    assert len(seen) < 20
    assert result.outputs == {"n": 1}


def test_settings_arrive_in_a_child_as_they_are(tmp_path: Path) -> None:
    stores = {"acme": (StoreRef("s3://lake/acme", key="env:KEY", secret="env:SECRET"),)}
    home = StoreRef("s3://lake/tables")
    for warehouse in (tmp_path, ObjectPath(home, home.prefix)):
        settings = EngineSettings(warehouse, {"acme": (tmp_path / "a",)}, tmp_path / "others", 1.5, stores)
        sent = msgspec.json.encode(steps.Places.of(settings))
        assert msgspec.json.decode(sent, type=steps.Places).settings() == settings
