"""Reason codes of the pipeline domain; those of Holdfast and of the SDK come on top."""

from __future__ import annotations

from enum import StrEnum


class PipelineReason(StrEnum):
    """Why a stage failed, or is held. What a person may choose depends on it (``ladders.OUTCOMES``)."""

    SOURCE_MISSING = "source_missing"
    """PROVISION_FAILED: the files of a source, or of a lookup, are not there."""
    UNREADABLE = "unreadable"
    """NODE_DEGRADED of an ingestion: files of its source cannot be read; held, and the others are taken in."""
    UNAVAILABLE = "unavailable"
    """UNKNOWN: the tables or files cannot be looked at."""
    INPUT_MISSING = "input_missing"
    """PROVISION_FAILED: the table of a stage before it is not there yet."""
    INPUT_MOVED = "input_moved"
    """PROVISION_FAILED: the table of a stage before it was made anew meanwhile; the next attempt takes the new one."""
    VERSION_NOT_KEPT = "version_not_kept"
    """PROVISION_FAILED, for good: what was approved was computed from a version that is not kept any more."""
    LOST_RACE = "lost_race"
    """PROVISION_FAILED: somebody else wrote the same table at the same time."""
    TARGET_NOT_OURS = "target_not_ours"
    """PROVISION_FAILED, for good: what is at the destination was not made by this sink."""
    EXCEPTION = "exception"
    """PROVISION_FAILED, DEPROVISION_FAILED: a defect showed in the process of its own in which a stage is worked on."""
    QUARANTINED = "quarantined"
    """NODE_DEGRADED of a validator: too many rows were set apart, so that the version before stays published; held."""
    SCHEMA_DRIFT = "schema_drift"
    """NODE_DEGRADED of a schema: a file has another schema than declared; held, and nothing downstream is touched."""
