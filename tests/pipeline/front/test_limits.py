"""A limit or fill value that a blueprint is accepted with can be computed; any other is refused when it is applied."""

from __future__ import annotations

import polars as pl
import pytest

from holdfast_model.errors import Permanent
from holdfast_pipeline import specs
from holdfast_pipeline.casting import literal
from holdfast_pipeline.shapes import comparable, fits, type_of
from holdfast_pipeline.validating import failing

from .blueprints import changed, problems

TYPES = ["int64", "float64", "decimal(12,2)", "decimal(4,2)", "string", "bool", "date", "timestamp"]
VALUES = [
    0, 1, -1, 1.0, 1.5, 0.125, 1e-7, 1e22, 2**63, 2**70, True, False, "", "a", "1", " 2", "1.50", "1e2", "yes", "nan",
    "2024-01-31", "2024-1-31", "2024/01/31", "31.01.2024", "2024-01-31T10:00:00", "2024-01-31 10:00",
    "2024-01-31T10:00:00+02:00", "2024/01/31 10:00:00", "2024-02-30", "10000-01-01",
]  # fmt: skip


def _computed(value: object, dtype: pl.DataType) -> bool:
    try:
        found = pl.DataFrame(schema={"v": dtype}).select(pl.col("v") == literal(value, dtype, "v"))
    except Permanent:
        return False
    return found["v"].dtype == pl.Boolean


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("value", VALUES)
def test_what_is_accepted_can_be_computed(kind: str, value: str | int | float | bool) -> None:
    dtype = type_of(kind)
    assert dtype is not None
    frame = pl.DataFrame(schema={"v": dtype})
    if fits(value, dtype):
        assert _computed(value, dtype)
        frame.select(failing(specs.Check("v", "in", [value]), dtype))
    if comparable(value, dtype):
        frame.select(failing(specs.Check("v", "ge", value), dtype))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("timestamp", "2024-01-31"), ("timestamp", "2024-01-31 10:00"), ("int64", 1.0), ("decimal(12,2)", 1.5),
        ("decimal(12,2)", 1e2), ("float64", 1), ("date", "2024-01-31"), ("int64", "1"), ("bool", True),
    ],
)  # fmt: skip
def test_what_people_write_is_accepted(kind: str, value: str | int | float | bool) -> None:
    dtype = type_of(kind)
    assert fits(value, dtype)
    assert comparable(value, dtype)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("/schemas/0/fields/placed_at/ge", "2024/01/31", "write it like 2024-01-31"),
        ("/cleansers/0/null_handling", {"placed_at": "31.01.2024"}, "write it like 2024-01-31"),
        ("/cleansers/0/null_handling", {"amount": 0.125}, "does not fit into decimal(12,2)"),
        ("/cleansers/0/null_handling", {"order_id": 2**70}, "does not fit into int64"),
        ("/cleansers/0/null_handling", {"amount": float("inf")}, "must be a number"),
        ("/validators/0/checks/net", {"ge": float("nan")}, "not inf or nan"),
        ("/validators/0/checks/net", {"in": [float("inf")]}, "not inf or nan"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_its_place(place: str, value: object, words: str) -> None:
    assert any(path.startswith(place) and words in said for path, said in problems(changed(place, value)).items())


def test_a_list_or_bytes_take_no_fill_value() -> None:
    for dtype in (pl.List(pl.Int64()), pl.Binary()):
        with pytest.raises(Permanent, match="is no"):
            literal(0, dtype, "v")
