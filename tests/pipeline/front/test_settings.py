from __future__ import annotations

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
