"""Random histories of files, decisions and crashes: every table equals what plain Python recomputes from all of them.

A seed replays: ``HOLDFAST_PIPELINE_SEED=17`` runs that one alone. ``HOLDFAST_PIPELINE_HISTORIES`` says how many are run
(default 10: some 20 s on a quiet machine; in an object store 2 shorter ones, 25 s), ``HOLDFAST_PIPELINE_START`` with
which they begin.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .histories import History
from .mortal import Mortals

if TYPE_CHECKING:
    from holdfast_testkit.objects import Bucket, S3Server

_HISTORIES = os.environ.get("HOLDFAST_PIPELINE_HISTORIES")
_ONE = os.environ.get("HOLDFAST_PIPELINE_SEED")
_START = int(os.environ.get("HOLDFAST_PIPELINE_START", "0"))


def _seeds(default: int) -> list[int]:
    return [int(_ONE)] if _ONE else list(range(_START, _START + int(_HISTORIES or default)))


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    server = Mortals()
    yield server
    server.close()


@pytest.fixture(scope="module")
def lakeside_mortals(s3: S3Server) -> Iterator[Mortals]:
    """They find the credentials where the server said they are, so they begin after it."""
    server = Mortals(stores=True)
    yield server
    server.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", _seeds(10))
def test_every_table_is_what_plain_python_recomputes(seed: int, tmp_path: Path, mortals: Mortals) -> None:
    try:
        History(seed, tmp_path, mortals).live(5)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", _seeds(2))
def test_every_table_in_an_object_store_is_what_plain_python_recomputes(
    seed: int, tmp_path: Path, lakeside_mortals: Mortals, lake: Bucket
) -> None:
    try:
        History(seed, tmp_path, lakeside_mortals, lake).live(2)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
