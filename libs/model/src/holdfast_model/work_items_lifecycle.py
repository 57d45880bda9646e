"""The life of a WorkItem as pure functions: (item, command, actor, now) -> new item, history and events.

::

    create ──> PENDING ──claim──> ASSIGNED ──start──> IN_PROGRESS ──complete──> COMPLETED
                  ^  ^──release──────┘ │ └──────┬───────────┴──reject────> REJECTED
                  │                    │     suspend/resume (SUSPENDED), delegate (DELEGATED)
                  └─ escalate, decline ┘
    any active status: cancel, obsolete, fault -> CANCELLED, OBSOLETE, FAULTED
    a missed deadline: work_items_deadlines.py

Complete and reject also work from PENDING and ASSIGNED for whoever may claim or holds the item: the missing
transitions are made, audited and announced in the same change.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from .errors import Forbidden, HoldfastError, Invalid, Problem, Stale
from .events import ItemEvent
from .work_items import ACTIVE, DeclineTarget, Verb, WorkItem, WorkItemCommand, WorkItemStatus
from .work_items import WorkItemStatus as S
from .work_items_access import Actor, check_claim, check_holder
from .work_items_change import (
    Change,
    Draft,
    WrongState,
    about,
    assign,
    awake,
    distinct,
    ended,
    fresh_claim,
    pooled,
    words,
)
from .work_items_outcomes import check_decision, check_output
from .work_items_queries import AuditEntry

LEGAL: dict[Verb, frozenset[WorkItemStatus]] = {
    Verb.CLAIM: frozenset({S.PENDING}),
    Verb.START: frozenset({S.ASSIGNED}),
    Verb.COMPLETE: frozenset({S.PENDING, S.ASSIGNED, S.IN_PROGRESS}),
    Verb.REJECT: frozenset({S.PENDING, S.ASSIGNED, S.IN_PROGRESS}),
    Verb.RELEASE: frozenset({S.ASSIGNED}),
    Verb.SUSPEND: frozenset({S.ASSIGNED, S.IN_PROGRESS}),
    Verb.RESUME: frozenset({S.SUSPENDED}),
    Verb.DELEGATE: frozenset({S.ASSIGNED, S.IN_PROGRESS}),
    Verb.ACCEPT: frozenset({S.DELEGATED}),
    Verb.DECLINE: frozenset({S.DELEGATED}),
    Verb.ESCALATE: ACTIVE,
    Verb.EXTEND: ACTIVE,
    Verb.CANCEL: ACTIVE,
    Verb.OBSOLETE: ACTIVE,
    Verb.FAULT: ACTIVE,
    Verb.SIGNAL: ACTIVE,
    Verb.NOTE: frozenset(S),
}
"""From which statuses each verb is legal."""

_REPEATABLE = frozenset({Verb.COMPLETE, Verb.REJECT, Verb.CANCEL, Verb.OBSOLETE, Verb.FAULT})
"""Verbs whose automated variant leaves an ended item as it is, so that messages may be handled twice."""
_ALWAYS_SYSTEM = frozenset({Verb.OBSOLETE, Verb.FAULT})
MAX_NOTE = 65_536
MAX_DATA = 1_048_576
"""Bytes of JSON; the data travels in every event of the decision."""


def apply(verb: Verb, item: WorkItem, command: WorkItemCommand, actor: Actor, now: datetime) -> Change:
    """Carry out a command.

    Raises Stale, :class:`WrongState`, Forbidden (all with ``current``) or Invalid. An automated repeat of
    an ending answers the item unchanged.
    """
    system = actor.system or verb in _ALWAYS_SYSTEM
    if system and verb in _REPEATABLE and item.status.terminal:
        return Change(item)
    if command.version is not None and command.version != item.version:
        raise about(item, Stale(
            f"WorkItem {item.id} is at version {item.version}, not {command.version}",
            hint="read it again and decide on what it is now",
        ))  # fmt: skip
    if not actor.name.strip():
        raise Invalid("a command needs an actor", [Problem("/actor", "must say who does it")])
    if item.status not in LEGAL[verb]:
        raise _wrong_state(verb, item)
    _check_size(command)
    draft = Draft(item, actor.name, now, command)
    _VERBS[verb](draft, command, actor)
    return draft.change()


def refusal(verb: str, item: str, actor: str, error: HoldfastError, now: datetime) -> AuditEntry | None:
    """The line that outlives a refused command, written by itself; None for errors that are no refusals."""
    if not isinstance(error, Forbidden):
        return None
    return AuditEntry(item=item, event=f"{verb.upper()}_DENIED", actor=actor, time=now, detail=error.message)


# Verbs.


def _claim(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    override = check_claim(draft.item, actor)
    assign(draft, actor.name, override)


def _start(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    override = check_holder(draft.item, actor)
    draft.step(ItemEvent.STARTED, override, status=S.IN_PROGRESS, started_at=draft.now)


def _complete(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    override = _take(draft, command, actor)
    check_output(draft.item, command.data)
    if draft.item.status is S.PENDING:
        assign(draft, actor.name, override)
    if draft.item.status is S.ASSIGNED:
        draft.step(ItemEvent.STARTED, override, status=S.IN_PROGRESS, started_at=draft.now)
    draft.step(ItemEvent.COMPLETED, words(command.note, override), status=S.COMPLETED, **_decided(draft, command))


def _reject(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    override = _take(draft, command, actor)
    if draft.item.status is S.PENDING:
        assign(draft, actor.name, override)
    draft.step(ItemEvent.REJECTED, words(command.note, override), status=S.REJECTED, **_decided(draft, command))


def _release(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    override = check_holder(draft.item, actor)
    draft.step(ItemEvent.RELEASED, words(command.note, override), **pooled(draft))


def _suspend(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    override = check_holder(draft.item, actor)
    draft.step(
        ItemEvent.SUSPENDED,
        words(command.note, override),
        status=S.SUSPENDED,
        prior_status=draft.item.status,
        suspended_at=draft.now,
    )


def _resume(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    override = check_holder(draft.item, actor)
    status = draft.item.prior_status or S.ASSIGNED
    draft.step(ItemEvent.RESUMED, words(command.note, override), status=status, **awake(draft))


def _delegate(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    item, to = draft.item, command.to.strip()
    if not to:
        raise Invalid("delegating needs somebody to delegate to", [Problem("/to", "must name a person")])
    override = check_holder(item, actor)
    if to == item.assignee_id:
        raise Invalid(f"WorkItem {item.id} is assigned to {to} already", [Problem("/to", "holds it already")])
    if to in item.excluded_users:
        raise about(item, Forbidden(f"WorkItem {item.id}: {to} is excluded from it", hint="choose another"))
    draft.step(
        ItemEvent.DELEGATED,
        words(f"to {to}", command.note, override),
        status=S.DELEGATED,
        assignee_id=to,
        owner=item.owner or item.assignee_id,
        delegation_chain=(*item.delegation_chain, item.assignee_id),
        delegation_decline_target=command.decline_target,
        claim_deadline=None,
    )


def _accept(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    _check_delegatee(draft.item, actor)
    draft.step(ItemEvent.DELEGATION_ACCEPTED, command.note, status=S.ASSIGNED, assigned_at=draft.now)


def _decline(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    item = draft.item
    _check_delegatee(item, actor)
    if item.delegation_decline_target is DeclineTarget.DELEGATOR and item.delegation_chain:
        changes: dict[str, Any] = {
            "status": S.ASSIGNED,
            "assignee_id": item.delegation_chain[-1],
            "assigned_at": draft.now,
        }
    else:
        changes = pooled(draft)
    draft.step(ItemEvent.DELEGATION_DECLINED, command.note, **changes)


def _escalate_by_hand(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    groups = distinct(command.target_groups)
    if not groups:
        text = "escalating needs groups to escalate to"
        raise Invalid(text, [Problem("/targetGroups", text)])
    detail = words("to " + ", ".join(groups), command.note)
    changes = pooled(draft) | {"candidate_groups": groups} | fresh_claim(draft, None)
    draft.step(ItemEvent.MANUALLY_ESCALATED, detail, **changes)


def _extend(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    until, old = command.expires_at, draft.item.expires_at
    if until is None:
        raise Invalid("extending needs a new expiry", [Problem("/expiresAt", "must be a time")])
    if until <= draft.now or (old is not None and until <= old):
        text = f"{until.isoformat()} is not later than {max(old or draft.now, draft.now).isoformat()}"
        raise Invalid(text, [Problem("/expiresAt", text)])
    detail = words(f"from {old.isoformat() if old else 'never'} to {until.isoformat()}", command.note)
    draft.step(ItemEvent.DEADLINE_EXTENDED, detail, expires_at=until.astimezone(UTC))


def _end(name: ItemEvent, status: WorkItemStatus) -> Callable[[Draft, WorkItemCommand, Actor], None]:
    def end(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
        draft.step(name, command.note, status=status, resolution=command.note, **ended(draft))

    return end


def _signal(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    draft.step(ItemEvent.SIGNAL_RECEIVED, command.note)


def _note(draft: Draft, command: WorkItemCommand, actor: Actor) -> None:
    if not command.note.strip():
        raise Invalid("a note needs text", [Problem("/note", "must not be empty")])
    draft.record("NOTE", command.note)


_VERBS: dict[Verb, Callable[[Draft, WorkItemCommand, Actor], None]] = {
    Verb.CLAIM: _claim,
    Verb.START: _start,
    Verb.COMPLETE: _complete,
    Verb.REJECT: _reject,
    Verb.RELEASE: _release,
    Verb.SUSPEND: _suspend,
    Verb.RESUME: _resume,
    Verb.DELEGATE: _delegate,
    Verb.ACCEPT: _accept,
    Verb.DECLINE: _decline,
    Verb.ESCALATE: _escalate_by_hand,
    Verb.EXTEND: _extend,
    Verb.CANCEL: _end(ItemEvent.CANCELLED, S.CANCELLED),
    Verb.OBSOLETE: _end(ItemEvent.OBSOLETE, S.OBSOLETE),
    Verb.FAULT: _end(ItemEvent.FAULTED, S.FAULTED),
    Verb.SIGNAL: _signal,
    Verb.NOTE: _note,
}


def _take(draft: Draft, command: WorkItemCommand, actor: Actor) -> str:
    """May the actor decide now (by claiming, or as the holder)? The text of an operator's override, or ""."""
    pending = draft.item.status is S.PENDING
    override = (check_claim if pending else check_holder)(draft.item, actor)
    check_decision(draft.item, command, actor)
    return override


def _decided(draft: Draft, command: WorkItemCommand) -> dict[str, Any]:
    return ended(draft) | {
        "outcome": command.outcome,
        "resolution": command.note,
        "data": command.data,
        "decided_by": draft.actor,
    }


def _check_delegatee(item: WorkItem, actor: Actor) -> None:
    if actor.name != item.assignee_id:
        raise about(item, Forbidden(
            f"WorkItem {item.id} is delegated to {item.assignee_id}, not to {actor.name}",
            hint=f"only {item.assignee_id} may accept or decline it",
        ))  # fmt: skip


def _check_size(command: WorkItemCommand) -> None:
    if len(command.note) > MAX_NOTE:
        raise Invalid("the note is too long", [Problem("/note", f"longer than {MAX_NOTE} characters")])
    if command.data is not None and len(msgspec.json.encode(command.data)) > MAX_DATA:
        raise Invalid("the data is too large", [Problem("/data", f"more than {MAX_DATA} bytes as JSON")])


def _wrong_state(verb: Verb, item: WorkItem) -> HoldfastError:
    if item.status.terminal:
        hint = f"it ended as {item.status} and stays so"
    elif item.status is S.SUSPENDED:
        hint = "resume it first"
    elif item.status is S.DELEGATED:
        hint = f"{item.assignee_id} has to accept or decline it first"
    elif item.assignee_id:
        hint = f"it is held by {item.assignee_id}"
    else:
        hint = "claim it first"
    return about(item, WrongState(f"cannot {verb} WorkItem {item.id}: it is {item.status}", hint=hint))
