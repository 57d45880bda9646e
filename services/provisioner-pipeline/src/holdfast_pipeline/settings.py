"""Settings of the pipeline service (environment, prefix ``HOLDFAST_``); paths are made absolute by the
process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from holdfast_model.names import DEFAULT_TENANT
from holdfast_sdk.runtime import RuntimeSettings

from .objects import ObjectPath
from .stores import StoreRef, overlap
from .tasks import EngineSettings

T = TypeVar("T")


class Settings(RuntimeSettings):
    """``pipeline_*`` beside what every domain has. Durations are seconds."""

    pipeline_root: Path = Path("data")
    """Folder of the default tenant: its sources and destinations are below it."""
    pipeline_roots: dict[str, list[Path]] = Field(default_factory=dict)
    """JSON: tenant -> folders, the first that has a path wins. A tenant named here uses these only."""
    pipeline_tenants: Path | None = None
    """Folder with one folder for each other tenant; without it they have no data."""
    pipeline_warehouse: Path | None = None
    """Where tables are kept; default ``<root>/warehouse``. Nothing in it can be a source or destination."""
    pipeline_settle: float = Field(default=2.0, ge=0)
    """How long a file's size and time must not have changed before it is taken."""
    pipeline_processes: int = Field(default_factory=lambda: max(2, os.cpu_count() or 2), ge=1)
    """Steps that one replica computes at a time, each in a process of its own."""
    pipeline_step_timeout: float = Field(default=900.0, gt=0)
    pipeline_step_memory: int = Field(default=0, ge=0)
    """Megabytes that the process of one step may take; 0: no limit but that of the machine."""
    pipeline_observe_timeout: float = Field(default=30.0, gt=0)
    pipeline_resync: float = Field(default=5.0, ge=1)
    """How often sources and what reads files are looked at; file system events only hasten it."""
    pipeline_leftovers: Literal["report", "remove"] = "report"
    """What becomes of tables that no stage declares, in graphs that have a pipeline: they are told, or removed."""
    pipeline_review_url: str = ""
    """OpenAI-compatible endpoint that is asked about failing stages, like ``https://host/v1``; "": rules answer."""
    pipeline_review_model: str = ""
    pipeline_review_key: SecretStr = SecretStr("")
    pipeline_review_timeout: float = Field(default=60.0, gt=0)
    pipeline_review_rows: int = Field(default=0, ge=0, le=100)
    """Rows of a failing stage's inputs that the model gets to see; 0: no data leaves."""
    pipeline_openlineage: bool = False
    """Tell steps as OpenLineage events, to where its own variables (``OPENLINEAGE_URL`` ...) say."""
    pipeline_scratch: Path | None = None
    """Where steps put what does not fit into memory; default: the system's folder for temporary files."""

    pipeline_stores: dict[str, Any] = Field(default_factory=dict)
    """JSON: tenant -> object stores that it may use, each as a :class:`.stores.StoreRef`, without any credential."""

    # Somebody may have put a credential where a reference belongs. Compose passes variables that are not set as "".
    pipeline_warehouse_store: dict[str, Any] | None = None
    """JSON: the object store that tables are kept in, in place of a folder. No tenant's store may overlap it."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, env_ignore_empty=True)

    @field_validator("pipeline_stores")
    @classmethod
    def _known_stores(cls, given: dict[str, Any]) -> dict[str, tuple[StoreRef, ...]]:
        return _decoded(given, dict[str, tuple[StoreRef, ...]])

    @field_validator("pipeline_warehouse_store")
    @classmethod
    def _known_store(cls, given: dict[str, Any] | None, seen: ValidationInfo) -> StoreRef | None:
        if given is None:
            return None
        warehouse = _decoded(given, StoreRef)
        for tenant, stores in seen.data.get("pipeline_stores", {}).items():
            if any(overlap(warehouse, store) for store in stores):
                raise ValueError(f"a store of tenant {tenant!r} overlaps it")
        return warehouse

    def engine(self) -> EngineSettings:
        """Where data is, as the engine wants to know it."""
        roots = {tenant: tuple(f.absolute() for f in folders) for tenant, folders in self.pipeline_roots.items()}
        roots.setdefault(DEFAULT_TENANT, (self.pipeline_root.absolute(),))
        store: Any = self.pipeline_warehouse_store  # a StoreRef, once it was looked at
        folder = (self.pipeline_warehouse or self.pipeline_root / "warehouse").absolute()
        warehouse = folder if store is None else ObjectPath(store, store.prefix)
        tenants = self.pipeline_tenants.absolute() if self.pipeline_tenants is not None else None
        return EngineSettings(warehouse, roots, tenants, self.pipeline_settle, self.pipeline_stores)


def _decoded(given: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as e:
        raise ValueError(str(e)) from None
