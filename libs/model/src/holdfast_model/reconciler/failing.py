"""Failures: how long to wait, what is raised, and when a node is left alone for a while."""

from __future__ import annotations

from zlib import crc32

from holdfast_model.events import Family, FaultType, NodeEvent
from holdfast_model.ladders import covered
from holdfast_model.messages import Action
from holdfast_model.reasons import Reason

from .core import Core
from .records import Unit


def failed(core: Core, unit: Unit, action: Action, reason: str, detail: str, *, permanent: bool = False) -> None:
    """Raise the fault of a failed attempt that has been counted, and take a poisonous node out of the way."""
    kind = FaultType.PROVISION_FAILED if action is Action.PROVISION else FaultType.DEPROVISION_FAILED
    core.fault(unit, kind, reason, detail, permanent=permanent, attempt=unit.rec.failures)
    if core.info(unit) is None or looked_after(core, unit):
        return
    settings = core.settings
    recent = (*[t for t in unit.rec.failed_at if core.now - t <= settings.poison_window], core.now)
    if len(recent) < settings.poison_failures:
        core.change(unit, failed_at=recent)
        return
    core.change(unit, failed_at=())
    quarantine(core, unit, Reason.POISON, f"it failed {len(recent)} times; last: {detail or reason}")


def looked_after(core: Core, unit: Unit) -> bool:
    """Whether its domain, or its blueprint, brought a ladder for it: then it is never poison-quarantined."""
    info = core.info(unit)
    if info is not None and info.covered:
        return True
    owner = unit.node.owner if unit.node is not None else ""
    return covered([ladder for ladder in core.settings.ladders if ladder.concerns((owner,))], unit.type)


def quarantined(core: Core, unit: Unit) -> bool:
    """Whether no step is sent for a while. A ladder that has come since ends what was taken for poison."""
    rec = unit.rec
    return rec.quarantined_until > core.now and (livelocked(core, unit) or not looked_after(core, unit))


def livelocked(core: Core, unit: Unit) -> bool:
    """Whether it was healed too often from one and the same drift; ladders have no say in that."""
    return len(unit.rec.heals) >= core.settings.livelock_heals


def quarantine(core: Core, unit: Unit, reason: Reason, why: str) -> None:
    """Send no step for a while; tell why. ``reason``: LIVELOCK or POISON."""
    until = core.now + core.settings.quarantine
    core.change(unit, quarantined_until=until)
    data: dict[str, object] = {"node": unit.id, "nodeType": unit.type, "reason": reason, "detail": why, "until": until}
    core.emit(Family.NODE, NodeEvent.QUARANTINED, data, unit.id)


def backoff(core: Core, unit: Unit, failures: int) -> float:
    """Seconds until the attempt after the n-th failure: exponential with full jitter.

    After M. Brooker, "Exponential Backoff And Jitter" (AWS, 2015); drawn from the attempt's identity, so that the
    model needs no dice. A tenth is the least, so that nothing is tried in a tight loop.
    """
    info = core.info(unit)
    base, cap = (info.backoff_base, info.backoff_cap) if info is not None else (1.0, 300.0)
    dice = crc32(f"{core.incarnation} {unit.id} {unit.rec.operation} {failures}".encode()) / 2**32
    pause: float = min(cap, base * 2.0 ** min(failures - 1, 30))
    return pause * (0.1 + 0.9 * dice)
