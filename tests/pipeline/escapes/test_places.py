"""No path, link, log or target leads outside of the tenant's roots.

Each way is tried as a person would (a blueprint that is compiled for the tenant) and once more past the compiler, by a
step with that very spec. Afterwards nothing outside has changed, and the secret that lies there is in no table, no file
and no message of the tenant's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake
from tests.pipeline.engine.conftest import Shop

from holdfast_model.errors import HoldfastError, Temporary
from holdfast_pipeline import specs, targets
from holdfast_pipeline.engine import PendingApproval
from holdfast_pipeline.files import assert_unchanged, content_sha
from holdfast_pipeline.previews import preview
from holdfast_pipeline.shelves import Shelves

from .conftest import ROW, Prison, compiled, tried

# Places

PLACES = [
    "../outside/a.csv",
    "orders/../../outside/a.csv",
    "./../outside/a.csv",
    "{outside}/a.csv",
    "//{outside}/a.csv",
    "{data}/../outside/a.csv",
    "file://{outside}/a.csv",
    "file://localhost{outside}/a.csv",
    "file:{outside}/a.csv",
    "FILE://{outside}/a.csv",
    "file://{data}/%2e%2e/outside/a.csv",
    "file://{data}/..%2foutside/a.csv",
    "file://{data}/x?/../../outside/a.csv",
    "file://evil.example{outside}/a.csv",
    "%2e%2e/outside/a.csv",
    "..%2foutside%2fa.csv",
    "..\\outside\\a.csv",
    "\uff0e\uff0e/outside/a.csv",
    "~/a.csv",
    "~root/a.csv",
    "$HOME/a.csv",
    "${{HOME}}/a.csv",
    "`cat {outside}/a.csv`",
    "| cat {outside}/a.csv",
    "/proc/self/root{outside}/a.csv",
    "/proc/self/cwd/a.csv",
    "/proc/self/environ",
    "/dev/stdin",
    "/etc/passwd",
    "../*/a.csv",
    "../**",
    "../outside/[a].csv",
    "*/../../outside/*.csv",
    "[.][.]/outside/a.csv",
    "{{..,orders}}/a.csv",
    "/**/a.csv",
    "?/../outside/a.csv",
    "orders/good.csv\x00/../../../outside/a.csv",
    "orders/good.csv\n{outside}/a.csv",
    "../beta/orders/a.csv",
    "{base}/beta/orders/a.csv",
    "file://{base}/beta/orders/*",
    "{warehouse}/beta/main/bronze/orders-raw/*.parquet",
    "{warehouse}/beta/main/bronze/orders-raw",
    "http://127.0.0.1:1/a.csv",
    "https://user@127.0.0.1:1/a.csv",
    "s3://bucket/a.csv",
    "gs://bucket/a.csv",
    "az://bucket/a.csv",
    "hdfs://host/a.csv",
    "ftp://127.0.0.1/a.csv",
    "data:text/csv,order_id%0A1",
    "a" * 300 + "/a.csv",
    "a/" * 3000 + "a.csv",
    "",
    " ",
    "/",
]


def _there(prison: Prison, uri: str) -> str:
    names = {
        "outside": prison.outside,
        "data": prison.data,
        "base": prison.base,
        "warehouse": prison.settings.warehouse,
    }
    return uri.format(**names)


@pytest.mark.parametrize("kind", ["csv", "delta"])
@pytest.mark.parametrize("uri", PLACES)
def test_no_place_of_a_source_is_outside(prison: Prison, uri: str, kind: str) -> None:
    uri = _there(prison, uri)
    source = {"id": "orders", "uri": uri, "format": kind}
    said = compiled(prison, {"sources": [source], "ingestions": [{"id": "raw", "source": "orders"}]})
    spec = specs.Source("orders", uri, kind)  # type: ignore[arg-type]
    said += tried(lambda: prison.observe("orders", specs.DataSourceSpec(spec)))
    said += tried(lambda: prison.provision("raw", specs.IngestionSpec(spec)))
    prison.assert_kept_in(said)


@pytest.mark.parametrize("uri", PLACES)
def test_no_place_of_a_lookup_is_outside(prison: Prison, uri: str) -> None:
    shop = Shop()
    shop.run(prison, shop.silver()[:2])
    lookup = specs.Lookup(specs.Source("countries", _there(prison, uri), "csv"), ("order_id",), ("country",))
    spec = specs.EnricherSpec(specs.Input("orders-clean", specs.CLEANSER), lookup)
    said = tried(lambda: prison.provision("orders-geo", spec))
    said += tried(lambda: prison.observe("orders-geo", spec))
    prison.assert_kept_in(said)


@pytest.mark.parametrize("kind", ["csv", "delta"])
@pytest.mark.parametrize("destination", PLACES)
def test_no_destination_is_outside(prison: Prison, destination: str, kind: str) -> None:
    destination = _there(prison, destination).removesuffix("/a.csv")
    sink = {"id": "report", "destination": destination, "format": kind, "inputs": ["raw"]}
    blueprint = {
        "sources": [{"id": "orders", "uri": "orders/*", "format": "csv"}],
        "ingestions": [{"id": "raw", "source": "orders"}],
        "sinks": [sink],
    }
    said = compiled(prison, blueprint)
    prison.provision("raw", specs.IngestionSpec(specs.Source("orders", "orders/*", "csv")))
    spec = specs.SinkSpec(specs.Input("raw", specs.INGESTION), destination, kind, on_delete="drop")  # type: ignore[arg-type]
    try:
        prison.provision("report", spec)
        prison.deprovision("report", spec)
    except HoldfastError as e:
        said += e.message
    prison.assert_kept_in(said)


# Links


def _file_link(prison: Prison) -> str:
    (prison.data / "orders/link.csv").symlink_to(prison.outside / "a.csv")
    return "orders/*.csv"


def _folder_link(prison: Prison) -> str:
    (prison.data / "folder").symlink_to(prison.outside)
    return "folder/a.csv"


def _folder_link_by_pattern(prison: Prison) -> str:
    (prison.data / "folder").symlink_to(prison.outside)
    return "f*/*.csv"


def _folder_link_in_depth(prison: Prison) -> str:
    (prison.data / "deep").mkdir()
    (prison.data / "deep/er").symlink_to(prison.outside)
    return "deep/**"


def _chain(prison: Prison) -> str:
    (prison.data / "one").symlink_to(prison.data / "two")
    (prison.data / "two").symlink_to(Path("../outside/a.csv"))
    return "one"


def _proc(prison: Prison) -> str:
    (prison.data / "orders/link.csv").symlink_to("/proc/self/environ")
    return "orders/*"


def _warehouse_link(prison: Prison) -> str:
    (prison.data / "orders/link").symlink_to(prison.settings.warehouse / "beta/main/bronze/orders-raw")
    return "orders/link/*.parquet"


def _link_called_like_a_pattern(prison: Prison) -> str:
    (prison.data / "orders/*.csv").symlink_to(prison.outside / "a.csv")
    return "orders/*.csv"


LINKS = [
    _file_link, _folder_link, _folder_link_by_pattern, _folder_link_in_depth, _chain, _proc, _warehouse_link,
    _link_called_like_a_pattern,
]  # fmt: skip


@pytest.mark.parametrize("made", LINKS)
def test_no_link_leads_a_source_outside(prison: Prison, made: Callable[[Prison], str]) -> None:
    uri = made(prison)
    kind = "parquet" if "parquet" in uri else "csv"
    spec = specs.IngestionSpec(specs.Source("orders", uri, kind))  # type: ignore[arg-type]
    said = tried(lambda: prison.provision("raw", spec)) + tried(lambda: prison.observe("raw", spec))
    assert said
    prison.assert_kept_in(said)


@pytest.mark.parametrize("moment", ["before it is hashed", "after it was hashed", "after it was read"])
def test_a_file_that_becomes_a_link_while_it_is_taken_is_not_taken(
    prison: Prison, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = prison.data / "orders/good.csv"

    def swap() -> None:
        if not path.is_symlink():
            path.unlink()
            path.symlink_to(prison.outside / "a.csv")

    def hashed(file: Any, source: Any) -> str:
        if moment == "before it is hashed":
            swap()
        sha = content_sha(file, source)
        if moment == "after it was hashed":
            swap()
        return sha

    def unchanged(file: Any, source: Any) -> None:
        if moment == "after it was read":
            swap()
        assert_unchanged(file, source)

    monkeypatch.setattr("holdfast_pipeline.ingestion.content_sha", hashed)
    monkeypatch.setattr("holdfast_pipeline.ingestion.assert_unchanged", unchanged)
    with pytest.raises(Temporary, match="changed while it was read") as caught:
        prison.provision("raw", specs.IngestionSpec(specs.Source("orders", "orders/*.csv", "csv")))
    prison.assert_kept_in(str(caught.value))


# Delta tables whose logs lie


def _log(prison: Prison) -> Path:
    folder = prison.data / "dl"
    write_deltalake(str(folder), pl.DataFrame(ROW).with_columns(country=pl.lit("DE")))
    return folder / "_delta_log/00000000000000000000.json"


def _named(prison: Prison, path: str) -> None:
    log = _log(prison)
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"] |= {"path": path.format(outside=prison.outside), "size": 1}
    log.write_text("\n".join(map(json.dumps, actions)))


def _log_is_a_link(prison: Prison) -> None:
    (prison.data / "dl").mkdir()
    (prison.data / "dl/_delta_log").symlink_to(prison.outside / "table/_delta_log")


def _commit_is_a_link(prison: Prison) -> None:
    log = _log(prison)
    log.with_name("00000000000000000001.json").symlink_to(prison.outside / "a.csv")


def _checkpoint_is_a_link(prison: Prison) -> None:
    log = _log(prison)
    (log.parent / "_last_checkpoint").symlink_to(prison.outside / "a.csv")


def _data_file_is_a_link(prison: Prison) -> None:
    _log(prison)
    [part] = (prison.data / "dl").glob("*.parquet")
    part.unlink()
    part.symlink_to(prison.outside / "a.parquet")


def _data_folder_is_a_link(prison: Prison) -> None:
    (prison.data / "dl").mkdir()
    (prison.data / "dl/sub").symlink_to(prison.outside)
    _named(prison, "sub/a.parquet")


def _table_is_a_link(prison: Prison) -> None:
    (prison.data / "dl").symlink_to(prison.outside / "table")


LIES: list[Callable[[Prison], None]] = [
    _log_is_a_link, _commit_is_a_link, _checkpoint_is_a_link, _data_file_is_a_link, _data_folder_is_a_link,
    _table_is_a_link,
    *(
        lambda prison, path=path: _named(prison, path)  # type: ignore[misc]
        for path in ("{outside}/a.parquet", "../../outside/a.parquet", "..%2F..%2Foutside%2Fa.parquet",
                     "file://{outside}/a.parquet", "%2e%2e/%2e%2e/outside/a.parquet", "../../beta/orders/a.parquet")
    ),
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("lookup", [False, True])
def test_no_log_of_a_delta_source_leads_outside(prison: Prison, lie: Callable[[Prison], None], lookup: bool) -> None:
    lie(prison)
    source = specs.Source("orders", "dl", "delta")
    if lookup:
        shop = Shop()
        shop.run(prison, shop.silver()[:2])
        joined = specs.Lookup(source, ("order_id",), ("country",))
        said = tried(
            lambda: prison.provision("geo", specs.EnricherSpec(specs.Input("orders-clean", specs.CLEANSER), joined))
        )
    else:
        said = tried(lambda: prison.provision("raw", specs.IngestionSpec(source)))
        said += tried(lambda: prison.observe("orders", specs.DataSourceSpec(source)))
    assert said
    prison.assert_kept_in(said)


# Targets that somebody prepared


def _plant(name: str, to: str) -> Callable[[Path, Prison], None]:
    def planted(target: Path, prison: Prison) -> None:
        (target / name).symlink_to(prison.outside / to)

    return planted


def _planted_table(target: Path, prison: Prison) -> None:
    """A table with the sink's own mark, whose only file is a secret."""
    harmless = pl.DataFrame(ROW).with_columns(country=pl.lit("DE"))
    write_deltalake(str(target), harmless, description="holdfast:acme/main/report")
    log = target / "_delta_log/00000000000000000000.json"
    [part] = target.glob("*.parquet")
    log.write_text(log.read_text().replace(part.name, f"{prison.outside}/a.parquet"))
    part.unlink()


PLANTS = [
    _plant("_holdfast", "a.csv"),
    _plant("report.csv", "a.csv"),
    _plant("report.csv", "new.csv"),
    _plant("report.parquet", "a.parquet"),
    _plant(".report.mark.tmp", "a.csv"),
    _plant(".report.mark.tmp", "new"),
    _plant("_delta_log", "table/_delta_log"),
    _plant("_delta_log", "empty"),
    _plant("_delta_log", "nowhere"),
    _planted_table,
]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(("kind", "more"), [
    ("csv", {}), ("parquet", {}), ("parquet", {"approval_required": True}), ("delta", {}),
    ("delta", {"mode": "upsert", "keys": ("order_id",)}), ("delta", {"approval_required": True}),
])  # fmt: skip
def test_no_link_in_a_target_leads_outside(
    prison: Prison, plant: Callable[[Path, Prison], None], marked: bool, kind: str, more: dict[str, Any]
) -> None:
    target = prison.data / "out/report"
    target.mkdir(parents=True)
    plant(target, prison)
    if marked and not os.path.lexists(target / "_holdfast"):
        (target / "_holdfast").write_text("holdfast:acme/main/report")
    prison.provision("raw", specs.IngestionSpec(specs.Source("orders", "orders/*", "csv")))
    spec = specs.SinkSpec(specs.Input("raw", specs.INGESTION), "out", kind, on_delete="drop", **more)  # type: ignore[arg-type]
    said = ""
    for step in (prison.provision, prison.observe, prison.deprovision):
        try:
            said += str(step("report", spec))
        except PendingApproval as asked:
            said += str(asked.summary)
        except HoldfastError as e:
            said += e.message
    prison.assert_kept_in(said)


def test_a_published_file_that_became_a_link_is_not_shown(prison: Prison) -> None:
    prison.provision("raw", specs.IngestionSpec(specs.Source("orders", "orders/*", "csv")))
    for kind in ("csv", "parquet"):
        prison.provision("report", specs.SinkSpec(specs.Input("raw", specs.INGESTION), "out", kind))  # type: ignore[arg-type]
        path = prison.data / f"out/report/report.{kind}"
        path.unlink()
        path.symlink_to(prison.outside / f"a.{kind}")
        shelves = Shelves(prison.settings, "acme", "main")
        said = tried(lambda s=shelves: preview(s, "report", as_of="", limit=5, quarantine=False, now=0.0))  # type: ignore[misc]
        assert "link" in said
        path.unlink()
        prison.assert_kept_in(said)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_target_that_becomes_a_link_while_it_is_written_gets_nothing(
    prison: Prison, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: a published target, and somebody who puts a link in its place while new rows are written
    target = prison.data / "out/report"
    ingestion = specs.IngestionSpec(specs.Source("orders", "orders/*", "csv"))
    prison.provision("raw", ingestion)
    spec = specs.SinkSpec(specs.Input("raw", specs.INGESTION), "out", kind)  # type: ignore[arg-type]
    prison.provision("report", spec)
    prison.put("orders/more.csv", "order_id,amount,country\n9,1.00,DE\n")
    prison.provision("raw", ingestion)
    written = targets._sink

    def swapped(frame: pl.LazyFrame, path: Path, spec: specs.SinkSpec) -> None:
        written(frame, path, spec)
        target.rename(prison.data / "out/old")
        target.symlink_to(prison.outside / "empty")

    monkeypatch.setattr(targets, "_sink", swapped)

    # When
    with pytest.raises(HoldfastError) as caught:
        prison.provision("report", spec)

    # Then
    target.unlink()
    prison.assert_kept_in(str(caught.value))
