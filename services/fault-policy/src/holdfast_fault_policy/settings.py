"""Settings (environment, prefix ``HOLDFAST_``). Times are seconds."""

from __future__ import annotations

from pydantic import Field

from holdfast_bus import BusSettings


class FaultPolicySettings(BusSettings):
    """Settings of fault-policy, on top of the bus's."""

    redis_url: str = "redis://127.0.0.1:6379/0"

    fault_concurrency: int = Field(default=64, ge=1, le=1000)
    """Faults in work at once; those of one node are handled one after the other anyway."""
    fault_sweep_interval: float = Field(default=30.0, gt=0)
    """Between two looks for faults that no message delivered."""
    fault_sweep_age: float = Field(default=10.0, ge=0)
    """How old such a fault must be: younger ones are probably on their way."""
    fault_evaluate_timeout: float = Field(default=5.0, gt=0)
    """How long a domain's own policy may take to answer."""
    fault_ladders_refresh: float = Field(default=2.0, ge=0)
    """How long the manifests of domains are used before they are read again."""
