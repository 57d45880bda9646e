"""How a WorkItem begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from .errors import Forbidden, Invalid, Problem
from .events import ItemEvent
from .names import check_label
from .work_items import SYSTEM, CreateWorkItem, WorkItem
from .work_items_breach import policy_problems
from .work_items_change import Change, Draft, assign, distinct
from .work_items_outcomes import declaration_problems

MAX_TITLE = 500
MAX_TEXT = 1_048_576
MAX_KEY = 4000
"""A callerRef names a node, of up to 256 characters, each of which may take twelve there."""
MAX_NAMES = 1000
LEFT_OUT = "left_out"
"""The member of a payload that names those it had no room for."""


@dataclass(frozen=True)
class Defaults:
    """Deadlines of items whose request names none, in seconds; None = no deadline."""

    expiry: float | None = 86_400.0
    claim: float | None = 14_400.0


def create(request: CreateWorkItem, id: str, now: datetime, defaults: Defaults) -> Change:
    """A new item, PENDING or (with an assignee) ASSIGNED. Raises Invalid, or Forbidden for an excluded
    assignee.
    """
    _check_request(request, now)
    if request.assignee_id and request.assignee_id in request.excluded_users:
        raise Forbidden(f"{request.assignee_id} is excluded from {request.title!r}", hint="name another assignee")
    claim_by = _deadline(request.claim_deadline, defaults.claim, now)
    item = WorkItem(
        id=id,
        tenancy_id=request.tenant,
        graph=request.graph,
        request=request.request,
        version=0,
        caller_ref=request.caller_ref,
        created_by=request.created_by,
        created_at=now,
        updated_at=now,
        title=request.title.strip(),
        description=request.description,
        types=request.types,
        payload=request.payload,
        plan_ref=request.plan_ref,
        priority=request.priority,
        candidate_users=distinct(request.candidate_users),
        candidate_groups=distinct(request.candidate_groups),
        excluded_users=distinct(request.excluded_users),
        permitted_outcomes=request.permitted_outcomes,
        input_data_schema=request.input_data_schema,
        output_data_schema=request.output_data_schema,
        claim_deadline=claim_by,
        claim_budget_seconds=(claim_by - now).total_seconds() if claim_by else None,
        expires_at=_deadline(request.expires_at, defaults.expiry, now),
        on_expiry=request.on_expiry,
        on_claim_expiry=request.on_claim_expiry,
    )
    draft = Draft(item, request.created_by or SYSTEM, now)
    draft.step(ItemEvent.CREATED)
    if request.assignee_id:
        assign(draft, request.assignee_id, "named by the request")
    return draft.change()


def fitted(request: CreateWorkItem) -> CreateWorkItem:
    """The request with its texts cut to what an item holds: one that is refused for its length asks nobody."""
    return msgspec.structs.replace(
        request,
        title=_cut(request.title, MAX_TITLE),
        description=_cut(request.description, MAX_TEXT),
        plan_ref=_cut(request.plan_ref, MAX_KEY),
    )


def payload_text(payload: Mapping[str, object]) -> str:
    """A payload as JSON text that an item holds. The largest members are left out where it is too large, and named."""
    kept, left_out = dict(payload), list[str]()
    while len(text := msgspec.json.encode(kept)) > MAX_TEXT:
        sizes = {name: len(msgspec.json.encode(value)) for name, value in kept.items() if name != LEFT_OUT}
        largest = max(sizes, key=sizes.__getitem__)
        left_out.append(largest)
        del kept[largest]
        kept[LEFT_OUT] = left_out
    return text.decode()


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _check_request(request: CreateWorkItem, now: datetime) -> None:
    problems: list[Problem] = []
    for name, path in ((request.tenant, "tenant"), (request.graph, "graph")):
        if path == "graph" and not name:
            continue
        try:
            check_label(name, path, f"/{path}")
        except Invalid as error:
            problems += error.problems
    if not request.title.strip():
        problems.append(Problem("/title", "an item needs a title"))
    for text, limit, path in (
        (request.title, MAX_TITLE, "title"),
        (request.description, MAX_TEXT, "description"),
        (request.payload, MAX_TEXT, "payload"),
        (request.request, MAX_KEY, "request"),
        (request.caller_ref, MAX_KEY, "callerRef"),
    ):
        if len(text) > limit:
            problems.append(Problem(f"/{path}", f"longer than {limit} characters"))
    for field, path in (
        ("candidate_users", "candidateUsers"),
        ("candidate_groups", "candidateGroups"),
        ("excluded_users", "excludedUsers"),
        ("types", "types"),
    ):
        if len(getattr(request, field)) > MAX_NAMES:
            problems.append(Problem(f"/{path}", f"more than {MAX_NAMES} names"))
    for moment, path in ((request.claim_deadline, "claimDeadline"), (request.expires_at, "expiresAt")):
        if isinstance(moment, datetime) and moment <= now:
            problems.append(Problem(f"/{path}", f"{moment.isoformat()} has passed"))
    problems += policy_problems(request.on_expiry, "/onExpiry")
    problems += policy_problems(request.on_claim_expiry, "/onClaimExpiry")
    problems += declaration_problems(request)
    if problems:
        raise Invalid("; ".join(f"{p.path}: {p.message}" for p in problems), problems)


def _deadline(given: datetime | msgspec.UnsetType | None, default: float | None, now: datetime) -> datetime | None:
    if isinstance(given, datetime):
        return given.astimezone(UTC)
    if given is None or not default:
        return None
    return now + timedelta(seconds=default)
