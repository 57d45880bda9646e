"""Small files that are read together become the same rows as when each is read alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_model.errors import Temporary
from holdfast_pipeline import bundles, ingestion, specs
from holdfast_pipeline.contracts import read_notes
from holdfast_pipeline.tables import Table

from .conftest import CONTRACT, ORDERS, World

LOOSE = specs.Contract(
    "loose", extra="ignore", fields=(specs.Field("a", "int64"), specs.Field("b", "string", optional=True))
)
STRICT = specs.Contract("strict", fields=(specs.Field("a", "decimal(5,1)"), specs.Field("b", "string")))
HEADERS = ["a,b", "a,b", "a,b", "a,b\r", "b,a", "a", "a,b,c", '"a",b', "a,b,", "a,a", "\ufeffa,b", "sep=,\na,b", ""]


@pytest.fixture(autouse=True)
def _from_one_file_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestion, "FEW", 1)


MARKED = specs.Source(ORDERS.node, ORDERS.uri, "csv", {"null_values": ["null", "x", "22"]})
CELLS = ["1", "22", "-3", "x", "", " ", "1.5", '"q"', '"two\nlines"', '"say ""hi"", please"', "ä", '"', "null"]


@st.composite
def _file(draw: st.DrawFn) -> str:
    header = draw(st.sampled_from(HEADERS))
    width = header.count(",") + 1
    rows = st.lists(st.sampled_from(CELLS), min_size=width, max_size=width).map(",".join)
    odd = st.sampled_from(["", "\r", ",", "1", "1,2,3"])
    body = draw(st.lists(st.one_of(rows, rows, rows, odd), max_size=6))
    return "\n".join([header, *body]) + draw(st.sampled_from(["", "\n", "\n\n"]))


def _landed(base: Path, files: list[str], spec: specs.IngestionSpec) -> tuple[object, ...]:
    """Everything that Bronze says of the files, apart from times and inodes."""
    world = World(base)
    for number, text in enumerate(files):
        world.put(f"orders/{number:02}.csv", text)
    world.provision("raw", spec)
    frame = world.frame("bronze", "raw")
    notes = read_notes(Table.open(world.folder("bronze", "raw__files")))
    said = {(n.name, n.state, n.found, n.sha) for n in notes.values()}
    names = [c for c in frame.columns if c not in ("_tag", "_batch")]
    tags = frame.select(pl.col("_tag").str.split("-").list.first()).to_series().to_list()
    rows = frame.select(sorted(names)).with_columns(size=pl.Series(tags)).sort("_file", "_row").rows()
    return sorted(names), rows, said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(_file(), min_size=1, max_size=8),
    st.sampled_from([None, LOOSE, STRICT]),
    st.sampled_from([1, 1 << 20]),
    st.sampled_from([ORDERS, MARKED]),
)
def test_rows_and_notes_are_those_of_files_read_alone(
    files: list[str], contract: specs.Contract | None, bundle: int, source: specs.Source
) -> None:
    spec = specs.IngestionSpec(source, contract, batch_size=5)
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
    ):
        patch.setattr(bundles, "BUNDLE", bundle)
        together = _landed(Path(one), files, spec)
        patch.setattr(bundles, "SMALL", -1)
        assert together == _landed(Path(other), files, spec)


def test_small_files_are_read_together_and_large_ones_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    read = bundles.Bundles._read

    def spy(self: bundles.Bundles, header: bytes, taken: list[bundles.Taken]) -> tuple[pl.DataFrame, pl.Series]:
        seen.append([t.file.name for t in taken])
        return read(self, header, taken)

    monkeypatch.setattr(bundles.Bundles, "_read", spy)
    monkeypatch.setattr(bundles, "SMALL", 100)
    for number in range(3):
        world.put(f"orders/{number}.csv", f"id\n{number}\n")
    world.put("orders/large.csv", "id\n" + "7\n" * 100)
    world.put("orders/other.csv", "id,at\n8,9\n")
    world.provision("raw", specs.IngestionSpec(ORDERS))
    assert seen == [["orders/0.csv", "orders/1.csv", "orders/2.csv"], ["orders/other.csv"]]
    assert len(world.rows("bronze", "raw")) == 104


@pytest.mark.parametrize("text", ["order_id,amount,country\n1,2\n3,4,DE,5\n", "order_id,amount,country\n1,\xff,DE\n"])
def test_one_bad_file_among_small_ones_is_held_and_the_others_land_once(world: World, text: str) -> None:
    for number in range(4):
        world.put(f"orders/{number}.csv", f"order_id,amount,country\n{number},1.50,DE\n")
    world.put("orders/bad.csv", text.encode("latin-1"))
    world.provision("raw", specs.IngestionSpec(ORDERS, CONTRACT))
    assert world.rows("bronze", "raw", "order_id") == [("0",), ("1",), ("2",), ("3",)]
    notes = read_notes(Table.open(world.folder("bronze", "raw__files")))
    assert {n.name: n.state for n in notes.values()} == {"orders/bad.csv": "held"}


def test_a_file_that_is_replaced_while_it_is_read_is_not_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        world.put(f"orders/{number}.csv", f"id\n{number}\n")
    read = bundles.Bundles._body

    def replaced(self: bundles.Bundles, file: bundles.SourceFile, member: bundles._Member) -> bytes:
        if file.name.endswith("1.csv"):
            world.put("orders/1.csv", "id\nother\n")
        return read(self, file, member)

    monkeypatch.setattr(bundles.Bundles, "_body", replaced)
    with pytest.raises(Temporary, match="changed while it was read"):
        world.provision("raw", specs.IngestionSpec(ORDERS))
    monkeypatch.setattr(bundles.Bundles, "_body", read)
    world.provision("raw", specs.IngestionSpec(ORDERS))
    assert world.rows("bronze", "raw", "id") == [("0",), ("other",)]
