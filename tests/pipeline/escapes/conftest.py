"""A tenant whose folders lie among secrets of others, and what must be so after every try to get at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake
from tests.pipeline.engine.conftest import COUNTRIES, GOOD, World

from holdfast_model.errors import HoldfastError
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.blueprint import parse
from holdfast_pipeline.compiler import compile_blueprint
from holdfast_pipeline.domain import refusal
from holdfast_pipeline.engine import EngineSettings, PendingApproval
from holdfast_pipeline.tables import Table

SECRET = "canary-7f3a9c"
ROW = {"order_id": ["666"], "amount": ["6.66"], "country": [SECRET]}


class Prison(World):
    """Tenant acme's folders, with secrets of nobody and of tenant beta around them."""

    def __post_init__(self) -> None:
        if not self.base.exists():
            super().__post_init__()
            self._furnish()
        self.settings = EngineSettings(
            self.base / "ware house % #ü", {"acme": (self.data,), "beta": (self.base / "beta",)}
        )
        self.before = self.around()

    def _furnish(self) -> None:
        for folder in (self.outside, self.base / "beta/orders"):
            folder.mkdir(parents=True)
            frame = pl.DataFrame(ROW)
            frame.write_csv(folder / "a.csv")
            frame.write_parquet(folder / "a.parquet")
            write_deltalake(str(folder / "table"), frame, description="holdfast:acme/main/report")
            (folder / "empty").mkdir()
        self.put("orders/good.csv", GOOD)
        self.put("countries.csv", COUNTRIES)
        self.tenant, self.settings = "beta", EngineSettings(self.settings.warehouse, {"beta": (self.base / "beta",)})
        self.provision("orders-raw", specs.IngestionSpec(specs.Source("orders", "orders/a.csv", "csv")))
        self.tenant = "acme"

    @property
    def outside(self) -> Path:
        return self.base / "outside"

    def around(self) -> dict[str, object]:
        """Everything that is not acme's: path -> what is there."""
        mine = (self.data, self.settings.warehouse / "acme")
        found: dict[str, object] = {}
        for inner, folders, files in os.walk(self.base):
            folders[:] = [f for f in folders if Path(inner, f) not in mine]
            for name in (*folders, *files):
                path = Path(inner, name)
                stat = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = (stat.st_mode, stat.st_ino, content)
        return found

    def tables(self) -> Iterator[Table]:
        """Acme's tables and targets that are what they seem to be."""
        logs = [(self.settings.warehouse / "acme").rglob("_delta_log"), (self.data / "out").rglob("_delta_log")]
        for log in chain(*logs):
            table = Table.open(log.parent) if not log.is_symlink() else None
            if table is not None and all(p.parent == table.folder and p.exists() for p in table.paths()):
                yield table

    def assert_kept_in(self, said: str) -> None:
        """Nothing outside changed, and the secret is nowhere inside."""
        assert self.around() == self.before
        assert SECRET not in said
        for table in self.tables():
            assert SECRET not in str(table.scan().collect().rows()), table.folder
        for inner, _, files in os.walk(self.base):
            if Path(inner).is_relative_to(self.data) or Path(inner).is_relative_to(self.settings.warehouse / "acme"):
                for path in (Path(inner, f) for f in files):
                    assert path.is_symlink() or path.is_fifo() or SECRET.encode() not in path.read_bytes(), path


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Prison:
    """For what a compiler must refuse: nothing is ever written here."""
    return Prison(tmp_path_factory.mktemp("cells") / "cell")


@pytest.fixture
def prison(cell: Prison, tmp_path: Path) -> Prison:
    shutil.copytree(cell.base, tmp_path / "prison")
    return Prison(tmp_path / "prison")


def tried(step: Callable[[], object]) -> str:
    """What is said when it is refused; "" when nothing came of it."""
    try:
        result = step()
    except PendingApproval as asked:
        return str(asked.summary)
    except HoldfastError as e:
        return f"{type(e).__name__}: {e.message} {e}"
    observation = getattr(result, "observation", result)
    if getattr(observation, "status", None) is Status.PRESENT:
        assert not (observation.info or {}).get("rows"), "it was taken"
        return ""
    return str(observation)


def compiled(prison: Prison, blueprint: dict[str, Any]) -> str:
    return tried(lambda: compile_blueprint(parse(blueprint), refusal(prison.settings, "acme")))
