"""Settings of the pipeline service (environment, prefix ``HOLDFAST_``); paths are made absolute by the
process.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from holdfast_model.names import DEFAULT_TENANT
from holdfast_sdk.runtime import RuntimeSettings

from .tasks import EngineSettings


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
    pipeline_observe_timeout: float = Field(default=30.0, gt=0)
    pipeline_resync: float = Field(default=5.0, ge=1)
    """How often sources and what reads files are looked at; file system events only hasten it."""
    pipeline_scratch: Path | None = None
    """Where steps put what does not fit into memory; default: the system's folder for temporary files."""

    def engine(self) -> EngineSettings:
        """Where data is, as the engine wants to know it."""
        roots = {tenant: tuple(f.absolute() for f in folders) for tenant, folders in self.pipeline_roots.items()}
        roots.setdefault(DEFAULT_TENANT, (self.pipeline_root.absolute(),))
        warehouse = self.pipeline_warehouse or self.pipeline_root / "warehouse"
        tenants = self.pipeline_tenants.absolute() if self.pipeline_tenants is not None else None
        return EngineSettings(warehouse.absolute(), roots, tenants, self.pipeline_settle)
