"""All services together come to rest as declared, whatever happens to them, and keep every invariant on the way."""

from __future__ import annotations

import os

import pytest

from .seeds import first_broken

START = int(os.environ.get("START", "0"))
SEEDS = int(os.environ.get("SEEDS", "2000"))
CHUNK = 40


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(START, START + SEEDS, CHUNK))
def test_every_seed_keeps_the_invariants_and_ends_as_declared_or_explained(first: int) -> None:
    found = first_broken(range(first, min(first + CHUNK, START + SEEDS)))
    if found is not None:
        pytest.fail(found[1], pytrace=False)
