"""Sinks into an object store, against a real server: published once, put back when changed, over no other's."""

from __future__ import annotations

import io
import os
from typing import cast

import polars as pl
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake

from holdfast_model.errors import Forbidden, Permanent, Temporary
from holdfast_model.messages import Status
from holdfast_pipeline import specs
from holdfast_pipeline.engine import PendingApproval
from holdfast_pipeline.objects import ObjectPath, delta_place
from holdfast_pipeline.previews import preview
from holdfast_pipeline.shelves import Shelves
from holdfast_pipeline.tables import KEY as CONTENT_KEY
from holdfast_pipeline.tables import Table, write
from holdfast_pipeline.tasks import Context
from holdfast_testkit.objects import KEY, SECRET, Bucket

from .conftest import COUNTRIES, GOOD, Shop, World, ref, use

KINDS = ["csv", "parquet", "delta"]


@pytest.fixture
def gold(lakeside: World, shop: Shop) -> World:
    """Everything up to a transformer, from files on disk."""
    lakeside.put("orders/a.csv", GOOD)
    lakeside.put("countries.csv", COUNTRIES)
    shop.run(lakeside, shop.all()[:-1])
    return lakeside


def more(world: World, shop: Shop) -> None:
    world.put("orders/b.csv", "order_id,amount,country\n4,8.00,FR\n")
    shop.run(world, shop.all()[:-1])


def to(lake: Bucket, kind: str, path: str = "acme/out ä #1", **options: object) -> specs.SinkSpec:
    given = specs.Input("by-region", specs.TRANSFORMER)
    return specs.SinkSpec(given, f"s3://{lake.name}/{path}", kind, **options)  # type: ignore[arg-type]


def table(lake: Bucket, path: str = "acme/out ä #1/report") -> Table:
    found = Table.open(ObjectPath(ref(lake), tuple(path.split("/"))))
    assert found is not None
    return found


def orders(lake: Bucket, kind: str, path: str = "acme/out ä #1/report") -> int:
    """The number of orders that are published."""
    if kind == "delta":
        return int(table(lake, path).scan().collect()["orders"].sum())
    content = io.BytesIO(lake.get(f"{path}/report.{kind}"))
    frame = pl.read_csv(content) if kind == "csv" else pl.read_parquet(content)
    return int(frame["orders"].sum())


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_is_published_once_and_again_when_its_input_changes(
    gold: World, shop: Shop, lake: Bucket, kind: str
) -> None:
    spec = to(lake, kind)
    assert gold.observe("report", spec).status is Status.ABSENT
    result = gold.provision("report", spec)
    assert result.outputs == {"target": f"s3://{lake.name}/acme/out ä #1/report"}
    before = lake.names()
    assert gold.provision("report", spec).observation.status is Status.PRESENT
    assert (lake.names(), orders(lake, kind)) == (before, 3)
    more(gold, shop)
    assert gold.observe("report", spec).reason == "stale"
    assert gold.provision("report", spec).observation.status is Status.PRESENT
    assert orders(lake, kind) == 4
    assert gold.table("gold", "report").version == 1
    if kind == "delta":
        assert table(lake).version == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_somebody_changed_or_deleted_is_put_back(gold: World, lake: Bucket, kind: str) -> None:
    spec = to(lake, kind)
    gold.provision("report", spec)
    if kind == "delta":
        address, options = delta_place(table(lake).folder)
        DeltaTable(address, storage_options=options).delete()
    else:
        lake.put(f"acme/out ä #1/report/report.{kind}", "mine now")
    assert gold.observe("report", spec).reason == "stale"
    gold.provision("report", spec)
    assert orders(lake, kind) == 3
    for key in lake.names("acme/out"):
        lake.delete(key)
    assert gold.observe("report", spec).reason == "stale"
    gold.provision("report", spec)
    assert (orders(lake, kind), gold.observe("report", spec).status) == (3, Status.PRESENT)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_somebody_else_are_never_touched(gold: World, lake: Bucket, kind: str) -> None:
    lake.put("acme/out ä #1/report/precious.txt", "x")
    with pytest.raises(Permanent, match="not marked") as caught:
        gold.provision("report", to(lake, kind))
    assert caught.value.reason == "target_not_ours"
    assert lake.names() == ["acme/out ä #1/report/precious.txt"]


def test_another_sinks_mark_and_an_unmarked_table_are_refused(gold: World, lake: Bucket) -> None:
    lake.put("acme/a/report/_holdfast", "holdfast:acme/other/report")
    with pytest.raises(Permanent, match="another sink"):
        gold.provision("report", to(lake, "csv", "acme/a"))
    address, options = delta_place(ObjectPath(ref(lake), ("acme", "b", "report")))
    write_deltalake(address, pl.DataFrame({"a": [1]}), storage_options=options)
    for kind in KINDS:
        with pytest.raises(Permanent, match="not marked"):
            gold.provision("report", to(lake, kind, "acme/b"))
    assert DeltaTable(address, storage_options=options).version() == 0


def test_a_sink_that_changes_format_or_place_takes_its_old_objects_along(gold: World, lake: Bucket) -> None:
    gold.provision("report", to(lake, "csv", on_delete="drop"))
    gold.provision("report", to(lake, "parquet", on_delete="drop"))
    here = "acme/out ä #1/report"
    assert lake.names() == [f"{here}/_holdfast", f"{here}/report.parquet"]
    gold.provision("report", to(lake, "delta", on_delete="drop"))
    assert f"{here}/report.parquet" not in lake.names()
    gold.provision("report", to(lake, "csv", "acme/else", on_delete="drop"))
    assert lake.names() == ["acme/else/report/_holdfast", "acme/else/report/report.csv"]
    gold.provision("report", Shop().sink("csv", on_delete="drop"))  # from a store to a folder
    assert lake.names() == []
    assert (gold.data / "out/report/report.csv").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_removing_a_sink_keeps_or_drops_what_it_published(gold: World, lake: Bucket, kind: str) -> None:
    spec = to(lake, kind)
    gold.provision("report", spec)
    lake.put("acme/out ä #1/report-of-others/x", "x")
    gold.deprovision("report", spec)
    assert orders(lake, kind) == 3
    gold.provision("report", to(lake, kind, on_delete="drop"))
    gold.deprovision("report", to(lake, kind, on_delete="drop"))
    assert lake.names() == ["acme/out ä #1/report-of-others/x"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_between_target_and_ledger_publishes_no_row_twice(
    gold: World, lake: Bucket, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("holdfast_pipeline.sinks.write", crash)
        with pytest.raises(KeyboardInterrupt):
            gold.provision("report", to(lake, kind))
    assert gold.provision("report", to(lake, kind)).observation.status is Status.PRESENT
    assert (orders(lake, kind), gold.table("gold", "report").version) == (3, 0)
    if kind == "delta":
        assert table(lake).version == 0


@pytest.mark.parametrize("kind", KINDS)
def test_racing_steps_publish_once(gold: World, lake: Bucket, kind: str) -> None:
    gold.race(gold.task("report", to(lake, kind), key="same"))
    assert (orders(lake, kind), gold.table("gold", "report").version) == (3, 0)
    if kind == "delta":
        assert table(lake).version == 0


def test_a_second_writer_of_one_version_is_told_to_come_again(gold: World, lake: Bucket) -> None:
    # Given: somebody commits to the target between our look and our commit
    gold.provision("report", to(lake, "delta"))
    handle = table(lake)
    address, options = delta_place(handle.folder)

    def others() -> None:
        write_deltalake(address, handle.scan().collect(), mode="append", storage_options=options)

    context = Context(gold.settings, gold.task("report", to(lake, "delta")), lambda: gold.time)
    with pytest.raises(Temporary, match="lost a race"):
        write(context, handle.folder, handle, handle.scan(), {CONTENT_KEY: "k"}, before=others)
    data = [k for k in lake.names("acme/out") if k.endswith(".parquet")]
    assert table(lake).version == 1
    assert len(data) >= 2


def test_a_put_over_somebody_elses_newer_object_is_refused(lake: Bucket, gold: World) -> None:
    path = ObjectPath(ref(lake), ("acme", "x"))
    local = gold.put("x", "ours")
    path.put(local, replaces="")
    etag = path.head()["ETag"]
    lake.put("acme/x", "theirs")
    for condition in ("", etag):
        with pytest.raises(FileExistsError, match="written by somebody else"):
            path.put(local, replaces=condition)
    assert lake.get("acme/x") == b"theirs"


def test_a_large_object_goes_in_parts_and_keeps_its_condition(
    lake: Bucket, gold: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_pipeline.objects.PART", 5 << 20)
    content = os.urandom(12 << 20)
    path, local = ObjectPath(ref(lake), ("acme", "large")), gold.put("large", content)
    path.put(local, replaces="")
    assert lake.get("acme/large") == content
    with pytest.raises(FileExistsError):
        path.put(local, replaces="")
    assert lake.client.list_multipart_uploads(Bucket=lake.name).get("Uploads", []) == []


def test_rows_are_replaced_by_key_and_all_others_stay(gold: World, shop: Shop, lake: Bucket) -> None:
    spec = to(lake, "delta", mode="upsert", keys=("region",))
    gold.provision("report", spec)
    gold.put("orders/a.csv", "order_id,amount,country\n9,1.00,FR\n")
    shop.run(gold, shop.all()[:-1])
    gold.provision("report", spec)
    assert set(table(lake).scan().collect().select("region", "orders").rows()) == {("Central", 2), ("West", 1)}
    assert table(lake).version == 1


def test_an_approval_shows_the_difference_to_what_is_published_there(gold: World, shop: Shop, lake: Bucket) -> None:
    gold.provision("report", to(lake, "parquet"))
    more(gold, shop)
    with pytest.raises(PendingApproval) as asked:
        gold.provision("report", to(lake, "parquet", approval_required=True))
    difference = cast("dict[str, object]", asked.value.summary["difference"])
    assert (difference["rows_before"], difference["added"], difference["removed"]) == (2, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_published_can_be_looked_at(gold: World, lake: Bucket, kind: str) -> None:
    gold.provision("report", to(lake, kind))
    seen = preview(Shelves(gold.settings, "acme", "main"), "report", as_of="", limit=5, quarantine=False, now=0.0)
    assert (seen.total, [c.name for c in seen.columns]) == (2, ["region", "net", "orders"])


def test_a_refused_write_is_temporary_and_says_who_refuses(
    gold: World, lake: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: a store that lets nobody in
    def refusing(*args: object, **more: object) -> None:
        body = {"Error": {"Code": "AccessDenied", "Message": SECRET}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(body, "ListObjectsV2")  # type: ignore[arg-type]

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refusing)
    with pytest.raises(Temporary, match="refuses these credentials") as caught:
        gold.provision("report", to(lake, "csv"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "destination",
    ["s3://{0}/acme-evil", "s3://{0}/globex/out", "s3://{0}", "s3://other/acme/out", "s3://{0}/acme/../globex"],
)
def test_nothing_outside_of_a_tenants_prefix_is_written(gold: World, lake: Bucket, destination: str) -> None:
    spec = specs.SinkSpec(specs.Input("by-region", specs.TRANSFORMER), destination.format(lake.name), "csv")
    with pytest.raises(Permanent):
        gold.provision("report", spec)
    assert lake.names() == []


def test_a_sink_moved_out_of_reach_leaves_what_is_not_the_tenants_any_more(gold: World, lake: Bucket) -> None:
    gold.provision("report", to(lake, "csv", on_delete="drop"))
    use(gold, ref(lake, "acme/new"))
    gold.provision("report", to(lake, "csv", "acme/new", on_delete="drop"))
    assert "acme/out ä #1/report/report.csv" in lake.names()
    with pytest.raises(Forbidden):
        gold.deprovision("report", to(lake, "csv", on_delete="drop"))


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_are_nowhere_but_in_the_environment(
    gold: World,
    shop: Shop,
    lake: Bucket,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Given: everything of a life: sources, lookups, tables, targets, errors
    caplog.set_level("DEBUG")
    lake.put("acme/orders/a.csv", GOOD)
    spec = specs.IngestionSpec(specs.Source("in", f"s3://{lake.name}/acme/orders/*.csv", "csv"))
    said: list[object] = [gold.provision("raw", spec), gold.observe("raw", spec), gold.settings]
    said += [gold.provision("report", to(lake, kind)), gold.observe("report", to(lake, kind))]
    for wrong in (to(lake, kind, "globex"), to(lake, kind, "acme/%2F")):
        try:
            said.append(gold.provision("report", wrong))
        except (Permanent, Temporary) as e:
            said += [e, e.__cause__, e.__context__]
    tables = [gold.table("gold", "report"), gold.table("bronze", "raw")]
    said += [str(t) for t in tables] + [t.handle.metadata() for t in tables]

    # Then
    written = [p.read_bytes() for p in gold.base.rglob("*") if p.is_file()] + [lake.get(k) for k in lake.names()]
    out = capfd.readouterr()
    text = "\n".join([*map(repr, said), *map(str, said), caplog.text, out.out, out.err]).encode()
    assert len(written) > 10
    for secret in (KEY.encode(), SECRET.encode()):
        assert secret not in text
        assert not [content for content in written if secret in content]
