"""Sources in an object store, against a real server: what is there is taken once, and nothing outside is reached."""

from __future__ import annotations

import gzip
import io
import json
import threading
from pathlib import Path

import msgspec
import polars as pl
import pytest
from deltalake import write_deltalake

from holdfast_model.errors import Forbidden, Invalid, Permanent, Temporary
from holdfast_model.messages import Observation, Status
from holdfast_pipeline import specs
from holdfast_pipeline.objects import ObjectPath, delta_place
from holdfast_pipeline.roots import Roots
from holdfast_pipeline.stores import StoreRef
from holdfast_testkit.objects import KEY, SECRET, SECRET_ENV, Bucket, running

from .conftest import COUNTRIES, GOOD, Shop, World, ref, use


@pytest.fixture
def world(lakeside: World) -> World:
    return lakeside


def source(lake: Bucket, path: str, kind: str = "csv") -> specs.Source:
    return specs.Source("in", f"s3://{lake.name}/{path}", kind)  # type: ignore[arg-type]


def csv(lake: Bucket, path: str = "acme/in/*.csv") -> specs.IngestionSpec:
    return specs.IngestionSpec(source(lake, path))


def ids(world: World) -> list[object]:
    return [i for (i,) in world.rows("bronze", "raw", "id")]


def parquet(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


CONTENT = {
    "csv": b"id,name\n1,x\n2,y\n",
    "ndjson": b'{"id": 1, "name": "x"}\n{"id": 2, "name": "y"}\n',
    "json": b'[{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]',
    "parquet": parquet(pl.DataFrame({"id": ["1", "2"], "name": ["x", "y"]})),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_every_format_lands_once_and_is_present(world: World, lake: Bucket, kind: str) -> None:
    lake.put(f"acme/in/a.{kind}", CONTENT[kind])
    spec = specs.IngestionSpec(source(lake, f"acme/in/*.{kind}", kind))
    assert world.observe("raw", spec).status is Status.ABSENT
    world.provision("raw", spec)
    world.provision("raw", spec)
    assert world.rows("bronze", "raw", "id", "name", "_file") == [
        ("1", "x", f"s3://{lake.name}/acme/in/a.{kind}"), ("2", "y", f"s3://{lake.name}/acme/in/a.{kind}"),
    ]  # fmt: skip
    assert world.table("bronze", "raw").version == 0
    assert world.observe("raw", spec).status is Status.PRESENT


def test_a_packed_file_and_one_of_another_encoding_are_read_as_on_a_disk(world: World, lake: Bucket) -> None:
    lake.put("acme/in/a.csv", gzip.compress(b"id,name\n1,x\n"))
    world.provision("raw", csv(lake))
    lake.put("acme/latin/b.csv", "id,name\n2,Köln\n".encode("latin-1"))
    latin = specs.Source("in", f"s3://{lake.name}/acme/latin/*", "csv", {"encoding": "latin-1"})
    world.provision("latin", specs.IngestionSpec(latin))
    assert world.rows("bronze", "raw", "id", "name") == [("1", "x")]
    assert world.rows("bronze", "latin", "id", "name") == [("2", "Köln")]


def test_a_broken_object_is_held_with_its_name_and_good_ones_land_beside_it(world: World, lake: Bucket) -> None:
    lake.put("acme/in/a.csv", 'id\n1\n"2\n')
    lake.put("acme/in/b.csv", "id\n3\n")
    found = world.provision("raw", csv(lake)).observation
    assert (found.reason, found.hold) == ("unreadable", True)
    assert f"s3://{lake.name}/acme/in/a.csv" in found.detail
    assert ids(world) == ["3"]


AWKWARD = [
    "a b.csv", "100%.csv", "%20.csv", "c#1.csv", "ü ß.csv", "q?.csv", "[z].csv", "*.csv", "x'y.csv", '"d".csv',
    "a+b.csv", "e\\f.csv", "a&b.csv", "a..b.csv", "~t.csv",
]  # fmt: skip


def test_names_with_anything_in_them_are_taken_as_they_are(world: World, lake: Bucket) -> None:
    for i, name in enumerate(AWKWARD):
        lake.put(f"acme/in/{name}", f"id\n{i}\n")
    world.provision("raw", csv(lake))
    here = f"s3://{lake.name}/acme/in/"
    assert dict(world.rows("bronze", "raw", "_file", "id")) == {f"{here}{n}": str(i) for i, n in enumerate(AWKWARD)}
    lake.put("acme/in/[z].csv", "id\n99\n")
    world.provision("raw", csv(lake))
    assert sorted(map(str, ids(world))) == sorted([*(str(i) for i in range(len(AWKWARD)) if i != 6), "99"])


@pytest.mark.parametrize("name", AWKWARD)
def test_one_object_is_named_as_it_is_written(world: World, lake: Bucket, name: str) -> None:
    lake.put(f"acme/in/{name}", "id\n1\n")
    lake.put("acme/in/z.csv", "id\n2\n")
    lake.put("acme/in/q1.csv", "id\n3\n")
    if name not in ("*.csv", "q?.csv"):  # those are patterns, whatever is there
        world.provision("raw", csv(lake, f"acme/in/{name}"))
        assert ids(world) == ["1"]


def test_placeholders_of_folders_hidden_and_unfinished_objects_are_not_taken(world: World, lake: Bucket) -> None:
    for name in ("", "sub/", ".hidden.csv", "_meta.csv", "a.csv.tmp", "b.csv.part", "../up.csv", "./here.csv"):
        lake.put(f"acme/in/{name}", "id\n0\n")
    lake.put("acme/in/a//b.csv", "id\n1\n")
    lake.put("acme/in/.git/c.csv", "id\n0\n")
    lake.put("acme/in/sub/d.csv", "id\n2\n")
    world.provision("raw", csv(lake, "acme/in/**"))
    assert ids(world) == ["1", "2"]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("acme/in", {"1", "2"}),
        ("acme/in/", {"1", "2"}),
        ("acme/in/*", {"1", "2"}),
        ("acme/in/b.*", {"2"}),
        ("acme/in/*/*.csv", {"3"}),
        ("acme/in/**/*.csv", {"1", "2", "3", "4"}),
        ("acme/i?/[ab].csv", {"1", "2"}),
        ("acme/*/s/t/d.csv", {"4"}),
    ],
)
def test_patterns_mean_what_they_mean_in_folders(world: World, lake: Bucket, pattern: str, taken: set[str]) -> None:
    files = {"in/a.csv": 1, "in/b.csv": 2, "in/s/c.csv": 3, "in/s/t/d.csv": 4, "inn/e.csv": 5}
    for name, i in files.items():
        lake.put(f"acme/{name}", f"id\n{i}\n")
        world.put(f"acme/{name}", f"id\n{i}\n")
    world.provision("raw", csv(lake, pattern))
    world.provision("folder", specs.IngestionSpec(specs.Source("in", pattern, "csv")))
    assert set(ids(world)) == taken
    assert {i for (i,) in world.rows("bronze", "folder", "id")} == taken


def test_changed_content_of_the_same_size_replaces_its_rows(world: World, lake: Bucket) -> None:
    lake.put("acme/in/a.csv", "id\n1\n")
    lake.put("acme/in/b.csv", "id\n5\n")
    world.provision("raw", csv(lake))
    lake.put("acme/in/a.csv", "id\n2\n")
    assert world.observe("raw", csv(lake)).status is Status.DRIFTED
    world.provision("raw", csv(lake))
    assert ids(world) == ["2", "5"]
    lake.put("acme/in/a.csv", "id\n2\n")  # the same content again is no news
    assert world.observe("raw", csv(lake)).status is Status.PRESENT


def test_a_deleted_object_keeps_its_rows(world: World, lake: Bucket) -> None:
    lake.put("acme/in/a.csv", "id\n1\n")
    lake.put("acme/in/b.csv", "id\n2\n")
    world.provision("raw", csv(lake))
    lake.delete("acme/in/a.csv")
    lake.put("acme/in/c.csv", "id\n3\n")
    world.provision("raw", csv(lake))
    assert ids(world) == ["1", "2", "3"]


def test_a_moved_object_keeps_its_rows_under_the_new_name(world: World, lake: Bucket) -> None:
    lake.put("acme/in/a.csv", "id\n1\n")
    world.provision("raw", csv(lake))
    lake.delete("acme/in/a.csv")
    lake.put("acme/in/b.csv", "id\n1\n")
    world.provision("raw", csv(lake))
    assert world.rows("bronze", "raw", "id", "_file") == [("1", f"s3://{lake.name}/acme/in/b.csv")]


def test_more_objects_than_one_page_holds_land_once(world: World, lake: Bucket) -> None:
    for i in range(1100):
        lake.put(f"acme/in/{i:04}.csv", f"id\n{i}\n")
    world.provision("raw", csv(lake))
    assert sorted(int(str(i)) for i in ids(world)) == list(range(1100))
    assert world.observe("raw", csv(lake)).status is Status.PRESENT


def test_an_object_replaced_while_it_is_listed_is_read_as_listed_or_not_at_all(
    world: World, lake: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.put("acme/in/a.csv", "id\n1\n")
    fetch = ObjectPath.fetch

    def late(path: ObjectPath, etag: str, to: Path) -> None:
        lake.put("acme/in/a.csv", "id\n2\n")
        fetch(path, etag, to)

    monkeypatch.setattr(ObjectPath, "fetch", late)
    with pytest.raises(Temporary, match="changed while it was read"):
        world.provision("raw", csv(lake))
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOLDFAST_TEST_S3_KEY", KEY)
        patch.setenv(SECRET_ENV, SECRET)
        world.provision("raw", csv(lake))
    assert ids(world) == ["2"]


def test_copies_of_objects_do_not_stay_on_this_machine(
    world: World, lake: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    for i in range(5):
        lake.put(f"acme/in/{i}.csv", f"id\n{i}\n")
    world.provision("raw", csv(lake))
    assert len(ids(world)) == 5
    assert list(scratch.iterdir()) == []


def test_a_lookup_and_a_contract_work_from_a_store(world: World, lake: Bucket) -> None:
    lake.put("acme/orders/a.csv", GOOD)
    lake.put("acme/countries.csv", COUNTRIES)
    shop = Shop(specs.Source("orders", f"s3://{lake.name}/acme/orders/*.csv", "csv"))
    shop.run(world, shop.silver()[:2])
    lookup = msgspec.structs.replace(
        shop.enricher.lookup or pytest.fail("a lookup is needed"),
        source=specs.Source("countries", f"s3://{lake.name}/acme/countries.csv", "csv"),
    )
    spec = msgspec.structs.replace(shop.enricher, lookup=lookup)
    world.provision("orders-geo", spec)
    assert world.rows("silver", "orders-geo", "order_id", "region") == [(1, "Central"), (2, "West"), (3, "Central")]
    lake.put("acme/countries.csv", COUNTRIES.replace("West", "East"))
    assert world.observe("orders-geo", spec).status is Status.DRIFTED
    world.provision("orders-geo", spec)
    assert world.rows("silver", "orders-geo", "order_id", "region") == [(1, "Central"), (2, "East"), (3, "Central")]


# Delta tables as sources


def written(store: StoreRef, path: str, rows: list[int], mode: str = "append") -> None:
    folder = ObjectPath(store, tuple(path.split("/")))
    address, options = delta_place(folder)
    write_deltalake(address, pl.DataFrame({"id": rows}), mode=mode, storage_options=options)  # type: ignore[call-overload]


def test_a_delta_table_is_read_at_its_version(world: World, lake: Bucket) -> None:
    written(ref(lake), "acme/t ü #1", [1, 2])
    spec = specs.IngestionSpec(source(lake, "acme/t ü #1", "delta"))
    world.provision("raw", spec)
    assert ids(world) == [1, 2]
    written(ref(lake), "acme/t ü #1", [3])
    assert world.observe("raw", spec).status is Status.DRIFTED
    world.provision("raw", spec)
    assert ids(world) == [1, 2, 3]


@pytest.mark.parametrize(
    "path", ["s3://{0}/other/x.parquet", "../other/x.parquet", "file:///etc/passwd", "/etc/passwd"]
)
def test_a_delta_log_that_names_files_elsewhere_is_refused(world: World, lake: Bucket, path: str) -> None:
    # Given: a table whose only file is said to be somewhere else, where there is one
    written(ref(lake), "acme/t", [1])
    lake.put("other/x.parquet", parquet(pl.DataFrame({"id": [666]})))
    log = "acme/t/_delta_log/00000000000000000000.json"
    lines = [json.loads(line) for line in lake.get(log).splitlines()]
    for line in lines:
        if "add" in line:
            line["add"]["path"] = path.format(lake.name)
    lake.put(log, "\n".join(map(json.dumps, lines)))

    # When / Then
    spec = specs.IngestionSpec(source(lake, "acme/t", "delta"))
    with pytest.raises(Forbidden, match="outside of its folder"):
        world.provision("raw", spec)


# What is not there, or does not answer


def observed(world: World, uri: str) -> Observation:
    return world.observe("in", specs.DataSourceSpec(specs.Source("in", uri, "csv")))


def test_a_source_is_absent_present_or_unknown_as_folders_are(world: World, lake: Bucket) -> None:
    there = f"s3://{lake.name}/acme"
    assert observed(world, f"{there}/*.csv").status is Status.PRESENT  # the store's own root, empty
    assert observed(world, f"{there}/in/*.csv").status is Status.ABSENT
    assert observed(world, f"{there}/in/a.csv").status is Status.ABSENT
    lake.put("acme/in/a.csv", "id\n1\n")
    assert observed(world, f"{there}/in/*.csv").info == {"files": 1}
    assert observed(world, f"{there}/in/a.csv").info == {"files": 1}


def test_a_missing_bucket_is_unknown_and_named(tmp_path: Path, lake: Bucket) -> None:
    gone = msgspec.structs.replace(ref(lake), uri="s3://no-such-bucket")
    world = use(World(tmp_path), gone)
    found = observed(world, "s3://no-such-bucket/in/*.csv")
    assert (found.status, found.reason) == (Status.UNKNOWN, "unavailable")
    assert "no bucket 'no-such-bucket'" in found.detail
    with pytest.raises(Temporary, match="no bucket"):
        world.provision("raw", specs.IngestionSpec(specs.Source("in", "s3://no-such-bucket/in/*.csv", "csv")))


def test_a_variable_that_is_not_set_is_named_and_nothing_is_reached(
    world: World, lake: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET_ENV)
    found = observed(world, f"s3://{lake.name}/acme/in/*.csv")
    assert found.status is Status.UNKNOWN
    assert SECRET_ENV in found.detail


def test_credentials_in_files_are_read_anew_and_those_that_make_no_sense_are_not_shown(
    tmp_path: Path, lake: Bucket
) -> None:
    secret = tmp_path / "secret"
    store = msgspec.structs.replace(ref(lake, "acme"), secret=f"file:{secret}")
    world = use(World(tmp_path / "w"), store)
    assert "No such file" in observed(world, f"s3://{lake.name}/acme/*").detail
    secret.write_text("two lines\nof secrets\n")
    found = observed(world, f"s3://{lake.name}/acme/*").detail
    assert "no text of one line" in found
    assert "of secrets" not in found
    secret.write_text(f"{SECRET}\n")
    assert observed(world, f"s3://{lake.name}/acme/*").status is Status.PRESENT


def test_a_server_that_goes_away_and_comes_back_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in running(monkeypatch):
        lake = server.bucket("come-and-go")
        world = use(World(tmp_path), ref(lake))
        lake.put("in/a.csv", "id\n1\n")
        world.provision("raw", csv(lake, "in/*.csv"))
        server.stop()
        assert world.observe("raw", csv(lake, "in/*.csv")).status is Status.UNKNOWN
        found = observed(world, "s3://come-and-go/in/*.csv")
        assert (found.status, found.reason) == (Status.UNKNOWN, "unavailable")
        assert f"s3://come-and-go at {server.url} does not answer" in found.detail
        with pytest.raises(Temporary, match="does not answer"):
            world.provision("raw", csv(lake, "in/*.csv"))
        server.start()
        lake.client.create_bucket(Bucket="come-and-go")
        lake.put("in/b.csv", "id\n2\n")
        world.provision("raw", csv(lake, "in/*.csv"))
        assert ids(world) == ["1", "2"]


# Nothing outside of a tenant's stores


ESCAPES = [
    "s3://{0}/acme-evil/in/*.csv",
    "s3://{0}/globex/in/*.csv",
    "s3://{0}/*/in/*.csv",
    "s3://{0}/acm?/in/*.csv",
    "s3://{0}/**",
    "s3://{0}",
    "s3://{0}/acme/../globex/in/*.csv",
    "s3://{0}/acme/%2e%2e/../globex/in/*.csv",
    "s3://{0}//acme/in/*.csv",
    "s3://{0}/ACME/in/*.csv",
    "s3://{0}.example.com/acme/in/*.csv",
    "s3://{0}:9000/acme/in/*.csv",
    "s3://other/acme/in/*.csv",
    "s3:///acme/in/*.csv",
    "s3://{0}?endpoint=http://localhost/acme/in/*.csv",
    "s3://{0}@example.com/acme/in/*.csv",
    "S3://{0}/acme/in/*.csv",
    "s3a://{0}/acme/in/*.csv",
    "s3:/{0}/acme/in/*.csv/../../../../globex",
    "s3://{0}/acme/in\x00/*.csv",
]


@pytest.mark.parametrize("uri", ESCAPES)
def test_nothing_outside_of_a_tenants_prefix_is_read(world: World, lake: Bucket, uri: str) -> None:
    for tenant in ("acme-evil", "globex", "ACME", ""):
        lake.put(f"{tenant}/in/x.csv", "id\n666\n")
    spec = specs.IngestionSpec(specs.Source("in", uri.format(lake.name), "csv"))
    with pytest.raises((Forbidden, Invalid)):
        Roots.of(world.settings, "acme").place(uri.format(lake.name))
    with pytest.raises(Permanent):
        world.provision("raw", spec)
    assert not world.folder("bronze", "raw").exists()


def test_patterns_do_not_lead_out_of_a_prefix(world: World, lake: Bucket) -> None:
    lake.put("acme/in/x.csv", "id\n1\n")
    lake.put("acme-evil/in/x.csv", "id\n666\n")
    lake.put("acme/../globex/in/x.csv", "id\n666\n")
    for pattern in ("acme/**", "acme/*/x.csv", "acme/**/x.csv"):
        assert observed(world, f"s3://{lake.name}/{pattern}").info == {"files": 1}


def test_a_tenant_uses_its_own_stores_only(world: World, lake: Bucket) -> None:
    use(world, ref(lake, "globex"), tenant="globex")
    lake.put("acme/in/x.csv", "id\n1\n")
    lake.put("globex/in/x.csv", "id\n2\n")
    world.tenant = "globex"
    with pytest.raises(Forbidden, match="in no object store of tenant 'globex'"):
        world.provision("raw", csv(lake))
    world.provision("raw", csv(lake, "globex/in/*.csv"))
    assert ids(world) == ["2"]
    world.tenant = "default"
    with pytest.raises(Forbidden):
        world.provision("raw", csv(lake))


def test_a_password_in_a_uri_is_refused_without_being_repeated(world: World, lake: Bucket) -> None:
    with pytest.raises(Invalid) as caught:
        Roots.of(world.settings, "acme").place(f"s3://{KEY}:{SECRET}@{lake.name}/acme/x")
    assert KEY not in str(caught.value)
    assert SECRET not in str(caught.value)


# Many objects, a few at a time


def test_several_objects_are_fetched_at_once_and_land_in_their_order(
    world: World, lake: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(24):
        lake.put(f"acme/in/{i:02}.csv", f"id\n{i}\n")
    fetch, together = ObjectPath.fetch, threading.Barrier(4)

    def meets_others(path: ObjectPath, etag: str, to: Path) -> None:
        together.wait(60)  # nobody gets through alone
        fetch(path, etag, to)

    monkeypatch.setattr(ObjectPath, "fetch", meets_others)
    world.provision("raw", csv(lake))
    frame = world.frame("bronze", "raw")
    assert frame["id"].to_list() == [str(i) for i in range(24)]
    assert frame["_file"].to_list() == [f"s3://{lake.name}/acme/in/{i:02}.csv" for i in range(24)]


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_one_that_is_not_what_was_listed_among_those_fetched_ahead_stops_the_step(
    world: World, lake: Bucket, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for i in range(20):
        lake.put(f"acme/in/{i:02}.csv", f"id\n{i}\n")
    fetch = ObjectPath.fetch

    def late(path: ObjectPath, etag: str, to: Path) -> None:
        if path.name == "13.csv":
            lake.put("acme/in/13.csv", "id\n999\n") if how == "changed" else lake.delete("acme/in/13.csv")
        fetch(path, etag, to)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectPath, "fetch", late)
        with pytest.raises(Temporary, match=r"in/13\.csv' changed while it was read"):
            world.provision("raw", csv(lake))
    assert not world.folder("bronze", "raw").exists()
    world.provision("raw", csv(lake))
    rest = [str(i) for i in range(20) if i != 13]
    assert sorted(map(str, ids(world))) == sorted([*rest, "999"] if how == "changed" else rest)


def test_a_lookup_of_many_objects_is_what_all_of_them_say(world: World, lake: Bucket) -> None:
    lake.put("acme/orders/a.csv", GOOD)
    for i in range(20):
        rows = {3: "DE,Central\n", 17: "FR,West\n"}.get(i, f"X{i},Nowhere\n")
        lake.put(f"acme/countries/{i:02}.csv", f"country,region\n{rows}")
    shop = Shop(specs.Source("orders", f"s3://{lake.name}/acme/orders/*.csv", "csv"))
    shop.run(world, shop.silver()[:2])
    lookup = msgspec.structs.replace(
        shop.enricher.lookup or pytest.fail("a lookup is needed"),
        source=specs.Source("countries", f"s3://{lake.name}/acme/countries/*.csv", "csv"),
    )
    spec = msgspec.structs.replace(shop.enricher, lookup=lookup)
    world.provision("orders-geo", spec)
    assert world.rows("silver", "orders-geo", "order_id", "region") == [(1, "Central"), (2, "West"), (3, "Central")]
    lake.put("acme/countries/17.csv", "country,region\nFR,East\n")
    assert world.observe("orders-geo", spec).status is Status.DRIFTED
    world.provision("orders-geo", spec)
    assert world.rows("silver", "orders-geo", "order_id", "region") == [(1, "Central"), (2, "East"), (3, "Central")]
    assert world.observe("orders-geo", spec).status is Status.PRESENT
