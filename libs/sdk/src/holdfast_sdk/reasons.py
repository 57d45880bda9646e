"""Reason codes that the SDK gives for an author's code."""

from __future__ import annotations

from enum import StrEnum


class SdkReason(StrEnum):
    """Why an attempt ended as it did, or why a node cannot be seen. Authors give codes of their own besides:
    ``Temporary(..., reason=...)``, ``Permanent(..., reason=...)``, ``Drifted(reason)``."""

    EXCEPTION = "exception"
    """PROVISION_FAILED, DEPROVISION_FAILED: the handler raised something that is neither Temporary nor Permanent."""
    TIMEOUT = "timeout"
    """PROVISION_FAILED, DEPROVISION_FAILED: the step took longer than its type's ``timeout``. UNKNOWN: the observation
    did."""
    CANCELLED = "cancelled"
    """PROVISION_FAILED, DEPROVISION_FAILED: the handler was cancelled by something it waited for."""
    NO_HANDLER = "no_handler"
    """PROVISION_FAILED, for good: the type has no ``provision``."""
    LATE = "late"
    """An ``expired`` step, which costs no attempt: it could not start in time."""
    STOPPING = "stopping"
    """An ``expired`` step, which costs no attempt: the service stops before it could start."""
    VERSION_GONE = "version_gone"
    """An ``expired`` step, which costs no attempt: it was meant for a version of the domain that is gone."""
    UNSENDABLE_RESULT = "unsendable_result"
    """PROVISION_FAILED, DEPROVISION_FAILED, for good: the bus does not take the step's result (too large)."""
    OBSERVE_FAILED = "observe_failed"
    """UNKNOWN: the observer raised an error without a code of its own."""
    NO_OBSERVER = "no_observer"
    """UNKNOWN: the type has no observer."""
