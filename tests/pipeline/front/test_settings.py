from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from holdfast_pipeline.settings import Settings


def test_the_root_is_the_default_tenants_and_holds_the_warehouse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOLDFAST_PIPELINE_ROOT", str(tmp_path))
    engine = Settings().engine()
    assert engine.roots == {"default": (tmp_path,)}
    assert engine.warehouse == tmp_path / "warehouse"
    assert engine.data is None


def test_paths_are_absolute_whatever_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_PIPELINE_ROOT", raising=False)
    engine = Settings().engine()
    assert engine.warehouse == tmp_path / "data" / "warehouse"


def test_tenants_get_the_folders_they_are_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOLDFAST_PIPELINE_ROOT", str(tmp_path))
    monkeypatch.setenv("HOLDFAST_PIPELINE_ROOTS", '{"acme": ["/srv/acme", "/srv/shared"], "default": ["/srv/own"]}')
    monkeypatch.setenv("HOLDFAST_PIPELINE_TENANTS", "/srv/tenants")
    monkeypatch.setenv("HOLDFAST_PIPELINE_WAREHOUSE", "/srv/tables")
    engine = Settings().engine()
    assert engine.roots == {"acme": (Path("/srv/acme"), Path("/srv/shared")), "default": (Path("/srv/own"),)}
    assert (engine.data, engine.warehouse) == (Path("/srv/tenants"), Path("/srv/tables"))


def test_a_look_every_tenth_of_a_second_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_PIPELINE_RESYNC", "0.1")
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Settings()


STORE = {"uri": "s3://lake/acme", "key": "env:LAKE_KEY", "secret": "file:/run/secrets/lake"}


def test_stores_are_given_to_tenants_without_their_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"uri": "s3://shared", "endpoint": "http://127.0.0.1:9000", "allow_http": True, "region": "eu-central-1"}
    monkeypatch.setenv("HOLDFAST_PIPELINE_STORES", json.dumps({"acme": [STORE, more]}))
    first, second = Settings().engine().stores["acme"]
    assert (first.bucket, first.prefix, first.key) == ("lake", ("acme",), "env:LAKE_KEY")
    assert (second.bucket, second.prefix, second.endpoint) == ("shared", (), "http://127.0.0.1:9000")


def test_a_variable_that_is_empty_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_PIPELINE_STORES", "")
    assert Settings().engine().stores == {}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"secret": "tOpSeCrEt"}, "secret must say where it is"),
        ({"key": "tOpSeCrEt"}, "key must say where it is"),
        ({"token": "tOpSeCrEt"}, "token must say where it is"),
        ({"secret": "env:not a name tOpSeCrEt"}, "secret must say where it is"),
        ({"secret": ""}, "belong together"),
        ({"uri": "s3://tOpSeCrEt:x@lake"}, "uri is s3://bucket"),
        ({"uri": "s3://lake/*"}, "without patterns"),
        ({"uri": "s3://lake/a/../b"}, "without patterns"),
        ({"uri": "file:///lake"}, "uri is s3://bucket"),
        ({"endpoint": "https://user:tOpSeCrEt@host"}, "user or password"),
        ({"endpoint": "http://host:9000"}, "allow_http"),
        ({"endpoint": "host:9000"}, "endpoint is a URL"),
        ({"access_key_id": "tOpSeCrEt"}, "unknown field"),
    ],
)
def test_a_store_that_makes_no_sense_stops_the_start_and_repeats_no_secret(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], why: str
) -> None:
    monkeypatch.setenv("HOLDFAST_PIPELINE_STORES", json.dumps({"acme": [{**STORE, **change}]}))
    with pytest.raises(ValueError, match=why) as caught:
        Settings()
    assert "tOpSeCrEt" not in "".join(traceback.format_exception(caught.value))


def test_tables_may_be_kept_in_a_store_that_no_tenant_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_PIPELINE_WAREHOUSE_STORE", json.dumps({**STORE, "uri": "s3://lake/tables"}))
    monkeypatch.setenv("HOLDFAST_PIPELINE_STORES", json.dumps({"acme": [STORE]}))
    assert str(Settings().engine().warehouse) == "s3://lake/tables"
    for uri in ("s3://lake", "s3://lake/tables", "s3://lake/tables/acme"):
        monkeypatch.setenv("HOLDFAST_PIPELINE_STORES", json.dumps({"acme": [STORE, {**STORE, "uri": uri}]}))
        with pytest.raises(ValueError, match="'acme' overlaps it"):
            Settings()
    monkeypatch.setenv("HOLDFAST_PIPELINE_STORES", json.dumps({"acme": [{**STORE, "uri": "s3://lake/tables-of-acme"}]}))
    Settings()
