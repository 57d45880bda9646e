"""Questions about WorkItems and their answers, and commands for many items. Verbs: see work_items.py."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .work_items import Instant, Priority, Strict, WorkItem, WorkItemStatus


class WorkItemQuery(Strict, frozen=True, kw_only=True):
    """Names one item, by the first of ``id``, ``request`` and ``callerRef`` that is given."""

    tenant: str
    id: str = ""
    request: str = ""
    caller_ref: str = ""


class ListWorkItems(Strict, frozen=True, kw_only=True):
    """Filters are ANDed; ``types`` match a type or any below it (``a``: ``a/b``). ``limit`` is 1 to 1000."""

    tenant: str
    actor: str = ""
    groups: tuple[str, ...] = ()
    status: tuple[WorkItemStatus, ...] = ()
    graph: str | None = None
    assignee_id: str = ""
    caller_ref: str = ""
    priority: Priority | None = None
    types: tuple[str, ...] = ()
    outcome: str = ""
    offset: int = 0
    limit: int = 200


class ItemPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``total`` counts what the filters match, before ``offset`` and ``limit``."""

    items: tuple[WorkItem, ...]
    total: int


class Summary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Counts: per status, per priority (active ones), active, and active ones whose deadline has passed."""

    total: int
    active: int
    overdue: int
    by_status: dict[str, int]
    by_priority: dict[str, int]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One line of an item's history. ``event`` is upper case (``CREATED``, ``CLAIM_DENIED``, ...)."""

    item: str
    event: str
    actor: str
    time: Instant
    detail: str = ""
    version: int = 0


class AuditQuery(Strict, frozen=True, kw_only=True):
    """History of one item, or of the tenant when ``id`` is "". ``after`` is a page's ``next``."""

    tenant: str
    id: str = ""
    actor: str = ""
    event: str = ""
    since: Instant | None = None
    until: Instant | None = None
    after: str = ""
    limit: int = 200


class AuditPage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``next`` is "" on the last page."""

    entries: tuple[AuditEntry, ...]
    next: str = ""


class BulkVerb(StrEnum):
    CLAIM = "claim"
    CANCEL = "cancel"


MAX_BULK = 100


class BulkCommand(Strict, frozen=True, kw_only=True):
    """Claims or cancels up to 100 items; each succeeds or fails by itself."""

    tenant: str
    verb: BulkVerb
    ids: tuple[str, ...]
    actor: str
    groups: tuple[str, ...] = ()
    note: str = ""


class BulkResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """``code`` and ``message`` are "" on success."""

    id: str
    ok: bool
    code: str = ""
    message: str = ""


class BulkReply(msgspec.Struct, frozen=True):
    results: tuple[BulkResult, ...]
