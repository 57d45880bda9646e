"""Settings (environment, prefix ``HOLDFAST_``). Times are seconds."""

from __future__ import annotations

from pydantic import Field

from holdfast_bus import BusSettings


class PlannerSettings(BusSettings):
    """Settings of the planner, on top of the bus's."""

    redis_url: str = "redis://127.0.0.1:6379/0"

    compile_timeout: float = Field(default=30.0, gt=0)
    observe_timeout: float = Field(default=30.0, gt=0)
    start_within: float = Field(default=60.0, gt=0)
    """How long a step may wait for a free provisioner before it expires and is planned anew."""
    grace: float = Field(default=10.0, gt=0)
    """How long after its last possible moment a step's answer is waited for."""
    catalog_interval: float = Field(default=1.0, gt=0)
    poll_interval: float = Field(default=5.0, gt=0)
    """The net under a lost hint: how often an idle graph's version and inbox are looked at."""
    loaded_graphs: int = Field(default=1000, ge=1)
    """Graphs kept in memory; above it, those are unloaded that are at rest and were not needed for the longest time."""
    loaded_nodes: int = Field(default=1_000_000, ge=1)
    """The same for their nodes."""
    rest_after: float = Field(default=5.0, ge=0)
    """How long a graph must not have been needed before it is unloaded."""
    rest_poll_interval: float = Field(default=30.0, gt=0)
    """The net under a lost hint: how often graphs that are not loaded are looked after."""
    item_poll_interval: float = Field(default=60.0, gt=0)
    """How often open WorkItems are asked after, besides their events."""
    blast_least: int = Field(default=10, ge=1)
    blast_share: float = Field(default=0.5, gt=0, le=1)
    lease_ttl: float = Field(default=5.0, gt=0)
    no_provisioner_after: float = Field(default=60.0, gt=0)
    adopt_after: float = Field(default=10.0, ge=0)
    """How long something must have been left over before it is removed, where its type says so."""
