"""A file system that is really full: each stage is told to come again, keeps its old version whole, and goes on later.

The engine runs in a process with a mount namespace of its own, where the warehouse, the targets and the folder for
temporary files are a tmpfs of a few megabytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_model.errors import Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.tables import Table

from .conftest import COUNTRIES, Shop, World

ROOT = Path(__file__).parents[3]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
MOUNT = 'mount -t tmpfs -o size=4m tmpfs "$0"'
CALL = """import sys
sys.path.insert(0, sys.argv[1])
from tests.pipeline.engine.test_full_disk import lived
lived(*sys.argv[2:])
"""
ROWS = 4000


def lived(place: str, kind: str) -> None:
    """Run every stage twice on a disk that is full at first, and print what came of it."""
    small = Path(place)
    world = World(small / "w")
    world.put("countries.csv", COUNTRIES)
    said: list[str] = []
    for number in range(2):
        world.put(f"orders/{number}.csv", _content(number))
        for node, spec in _stages(kind):
            before = dict(_state(small))
            (small / "ballast").write_bytes(b"")
            said.append(_on_a_full_disk(world, node, spec, small / "ballast"))
            after = dict(_state(small))
            assert {k: after.get(k) for k in before} == before, f"{node}: {before} {after}"
            world.provision(node, spec)
            assert world.observe(node, spec).status is Status.PRESENT, node
            assert not [p for p in small.rglob("*") if p.name.endswith(".tmp") or "decoded-" in p.name]
    bronze = world.frame("bronze", "orders-raw")
    assert (bronze.height, bronze.select("_file", "_row").n_unique()) == (2 * ROWS, 2 * ROWS)
    assert world.frame("gold", "by-region")["orders"].sum() == 2 * ROWS
    print(json.dumps(said))


def _on_a_full_disk(world: World, node: str, spec: specs.StageSpec, ballast: Path) -> str:
    """What the step says while not a byte is left."""
    with open(ballast, "wb", buffering=0) as f:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    f.write(b"x" * size)
            except OSError:
                continue
    try:
        world.provision(node, spec)
    except Temporary as e:
        return e.message
    finally:
        ballast.unlink()
    return ""


def _content(number: int) -> bytes:
    """A file of orders in an encoding that has to be decoded to the temporary folder first."""
    lines = (f"{number * ROWS + i},{i * 7919 % 1000}.{i % 100:02},{'DE' if i % 3 else 'FR'}\n" for i in range(ROWS))
    return ("order_id,amount,country\n" + "".join(lines)).encode("utf-16")


def _stages(kind: str) -> list[tuple[str, specs.StageSpec]]:
    shop = Shop(source=specs.Source("orders", "orders/*.csv", "csv", {"encoding": "utf-16"}))
    return [*shop.silver(), ("by-region", shop.transformer), ("report", shop.sink(kind))]


def _state(place: Path) -> Iterator[tuple[str, object]]:
    """Every table with its version and rows, and every published file with its content."""
    for log in place.rglob("_delta_log"):
        table = Table.open(log.parent)
        if table is not None:
            yield str(log.parent), (table.version, sorted(map(str, table.scan().collect().rows())))
    for path in place.rglob("report.*"):
        yield str(path), path.read_bytes()


@pytest.mark.parametrize("kind", ["csv", "parquet", "delta"])
def test_a_full_disk_is_temporary_and_leaves_every_table_and_target_whole(tmp_path: Path, kind: str) -> None:
    probe = subprocess.run([*NAMESPACE, "sh", "-c", MOUNT, str(tmp_path)], check=False, capture_output=True, timeout=90)
    if probe.returncode:
        pytest.skip(f"no file system can be mounted here: {probe.stderr.decode().strip()}")
    script = f'{MOUNT} && mkdir "$0/tmp" && TMPDIR="$0/tmp" exec "$@"'
    command = [sys.executable, "-c", CALL, str(ROOT), str(tmp_path), kind]
    child = subprocess.run(
        [*NAMESPACE, "sh", "-c", script, str(tmp_path), *command], check=False, capture_output=True, timeout=240
    )
    assert child.returncode == 0, child.stderr.decode()[-3000:]
    said = json.loads(child.stdout)
    assert len(said) == 12
    assert all("No space left" in text or "os error 28" in text for text in said), said
