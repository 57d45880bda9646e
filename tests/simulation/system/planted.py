"""Mistakes that somebody could make, as switches: each is on for the time of a ``with`` block, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import msgspec

from holdfast_fault_policy import changes as policy_changes
from holdfast_fault_policy import handlers as policy_handlers
from holdfast_model.desired import DesiredGraph
from holdfast_model.merged import MergedGraph
from holdfast_model.messages import StepOutcome
from holdfast_model.reconciler import (
    concluding,
    deciding,
    executing,
    gating,
    graphing,
    loading,
    mending,
    phasing,
    reconciler,
    renaming,
    telling,
)
from holdfast_model.reconciler.records import GateState
from holdfast_planner import changes as admission
from holdfast_planner import effects, hosting, planning, relay
from holdfast_planner.admission import Admission
from holdfast_store import graphs
from holdfast_store.memory_kv import MemoryWatch

Patch = tuple[object, str, Any]
BUGS: dict[str, Callable[[], list[Patch]]] = {}
_replace = msgspec.structs.replace


def bug(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    """What is to be put in place of what."""
    BUGS[make.__name__] = make
    return make


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The system with one mistake in it."""
    with ExitStack() as stack:
        for owner, attribute, instead in BUGS[name]():
            stack.enter_context(patch.object(owner, attribute, instead))
        yield


# ---- the store


@bug
def missing_fence() -> list[Patch]:
    """An owner writes without looking whether another one has taken over."""
    return [(graphs, "_must_own", lambda ref, epoch, found: None)]


@bug
def conflict_not_noticed() -> list[Patch]:
    """A transaction does not notice that somebody else has written: what was computed goes over the newer graph."""
    commit = MemoryWatch.commit

    async def careless(self: Any, *cmds: Any) -> Any:
        if any(cmd[0] == "XADD" and str(cmd[1]).endswith(":log") for cmd in cmds):
            self._seen = {}
        return await commit(self, *cmds)

    return [(MemoryWatch, "commit", careless)]


@bug
def forgotten_counter() -> list[Patch]:
    """A new owner numbers operations from the beginning again."""
    load = reconciler.Reconciler.load

    def forgetting(self: Any, *args: Any, **more: Any) -> None:
        load(self, *args, **{**more, "counter": 0})

    return [(reconciler.Reconciler, "load", forgetting)]


# ---- the planner's host


@bug
def dropped_intent() -> list[Patch]:
    """A new owner does not carry out what its predecessor had stored as to be done."""
    return [(hosting.HostedGraph, "_resume", lambda self, reconciler, field, intent: None)]


@bug
def dropped_event() -> list[Patch]:
    """The outbox is emptied before its events have been published."""

    async def publish(self: Any) -> bool:
        entries = await self._store.outbox(self._ref)
        await self._store.outbox_ack(self._ref, [entry for entry, _ in entries])
        await self._bus.publish_events([event for _, event in entries])
        return False

    return [(relay.Relay, "_publish", publish)]


@bug
def acknowledged_before_commit() -> list[Patch]:
    """A blueprint is acknowledged when it has come, and admitted afterwards."""
    take = Admission.take

    async def later(self: Any, message: Any) -> None:
        async def admit() -> None:
            try:
                await take(self, message)
            except Exception:  # noqa: BLE001  it was acknowledged: nobody hears of it
                return

        self._bus.spawn(admit())

    return [(Admission, "take", later)]


@bug
def turn_not_undone() -> list[Patch]:
    """A turn that could not be committed stays in memory as if it had been."""
    return [(reconciler.Reconciler, "rollback", lambda self, turn: None)]


@bug
def fresh_request_keys() -> list[Patch]:
    """Each try to open a WorkItem is a request of its own."""
    create, numbers = effects.creation, count()

    def creation(ref: Any, intent: Any) -> Any:
        return _replace(create(ref, intent), request=f"{intent.request}-{next(numbers)}")

    return [(effects, "creation", creation)]


@bug
def out_of_order() -> list[Patch]:
    """Blueprints are admitted in the order in which they arrive, not in that of their stream."""
    return [(planning.Floor, "check", lambda self, mine: None), (admission, "_check_floors", lambda *args: None)]


# ---- the reconciler


@bug
def replayed_result() -> list[Patch]:
    """A result is taken for that of whatever step is in flight."""
    take = concluding.on_outcomes

    def accept(core: Any, outcomes: Any) -> int:
        def mine(out: StepOutcome) -> StepOutcome:
            flown = core.flights.get(out.node)
            return out if flown is None else _replace(out, operation=flown[1].operation, attempt=flown[1].attempt)

        return take(core, [mine(out) for out in outcomes])

    return [(concluding, "on_outcomes", accept)]


@bug
def step_before_dependency() -> list[Patch]:
    """A node whose dependencies are not met does not wait for the last one of them."""
    step = deciding._step

    def hasty(core: Any, unit: Any, live: bool) -> Any:
        unmet, unit.unmet = unit.unmet, max(0, unit.unmet - 1)
        try:
            return step(core, unit, live)
        finally:
            unit.unmet = unmet

    return [(deciding, "_step", hasty)]


@bug
def second_step_in_flight() -> list[Patch]:
    """A step that has not been answered for a second is given up, and another one is sent."""
    send = executing._flight

    def impatient(core: Any, unit: Any, batch: str, deadline: float) -> Any:
        return send(core, unit, batch, core.now + 1.0)

    def due(core: Any) -> None:
        core.deadlines = [(min(f.deadline for _, f in core.flights.values() if f.batch == b), b)
                          for _, b in core.deadlines if core.batches.get(b)]  # fmt: skip
        core.deadlines.sort()
        give_up(core)

    give_up = concluding.deadlines_due
    return [(executing, "_flight", impatient), (concluding, "deadlines_due", due)]


@bug
def removed_while_desired() -> list[Patch]:
    """A tombstone stays although its node is wanted again."""
    change = DesiredGraph._bury_journalled

    def bury(self: Any, graves: Any) -> None:
        change(self, {k: t for k, t in graves.items() if t is not None or k[0] not in self.nodes})

    return [(DesiredGraph, "_bury_journalled", bury)]


@bug
def consent_for_another_content() -> list[Patch]:
    """An approval goes on counting when what was approved has changed."""
    respecify, build = graphing.respecified, executing.build_step

    def keeping(core: Any, unit: Any, **more: Any) -> None:
        approval = unit.rec.approval
        respecify(core, unit, **more)
        if approval is not None and approval.state is GateState.PASSED:
            core.change(unit, approval=_replace(approval, digest=unit.form.digest))

    return [(graphing, "respecified", keeping), (loading, "respecified", keeping), (executing, "build_step", build)]


@bug
def decision_used_again() -> list[Patch]:
    """A decision is not used up by the step that carried it, nor by the node's being as declared."""
    made = concluding._made_again
    well = telling.no_longer_needed

    def again(core: Any, unit: Any, *more: Any) -> Any:
        return _replace(made(core, unit, *more), decision=unit.rec.decision)

    def keep(core: Any, unit: Any) -> None:
        if unit.rec.decision is None:
            well(core, unit)

    return [(concluding, "_made_again", again), (telling, "no_longer_needed", keep)]


@bug
def question_not_withdrawn() -> list[Patch]:
    """The WorkItem of a node that changed or left is not made obsolete."""
    return [(gating, "close", lambda core, request, caller_ref, reason: core.todo(f"o:{request}", None))]


# ---- what blueprints say besides their nodes


@bug
def reference_not_followed() -> list[Patch]:
    """A node goes on with the value that it was made from first."""
    find = graphing.values_of

    def first(core: Any, declared: Any, last: Any) -> Any:
        found = find(core, declared, last)
        return found if last is None or found is None or set(found) != set(last) else last

    return [(graphing, "values_of", first)]


@bug
def phase_left_early() -> list[Patch]:
    """A phase does not wait for the last of its nodes."""
    take = phasing.on_phases

    def hasty(core: Any, standings: Any, members: Any) -> None:
        take(core, standings, {owner: sorted(nodes)[1:] for owner, nodes in members.items()})

    return [(phasing, "on_phases", hasty)]


@bug
def mode_forgotten() -> list[Patch]:
    """The merge of all owners does not say of a node that it is only observed."""
    see = MergedGraph._see

    def enforced(self: Any, node: str, owner: str, d: Any) -> None:
        see(self, node, owner, d)
        self.nodes[node] = _replace(self.nodes[node], observe=False)

    return [(MergedGraph, "_see", enforced)]


@bug
def removals_miscounted() -> list[Patch]:
    """As many removals as somebody is to be asked about are done without."""
    too_much = planning.removes_too_much
    return [(planning, "removes_too_much", lambda removed, before, **bounds: too_much(removed - 1, before, **bounds))]


@bug
def refusal_taken_for_consent() -> list[Patch]:
    """Whatever a person says about removals, they are done."""
    decided = Admission.decided

    async def agreed(self: Any, ref: Any, end: Any) -> None:
        await decided(self, ref, _replace(end, status="COMPLETED", outcome="approve"))

    return [(Admission, "decided", agreed)]


@bug
def fix_without_consent() -> list[Patch]:
    """What a reviewer proposes is carried out, whether or not that was allowed."""
    return [(mending, "review_spec", lambda node: {"auto_apply": True})]


@bug
def selection_ignored() -> list[Patch]:
    """Nodes that were not selected become as the new version says, too."""
    select = planning.select

    def every(new: Any, before: Any, target: Any) -> Any:
        wanted = dict(new)
        return [(node, wanted.get(node, d)) for node, d in select(new, before, target)]

    return [(planning, "select", every)]


# ---- faults


@bug
def fault_counted_twice() -> list[Patch]:
    """A fault is counted by its message and by the sweep: nobody looks whether it has been handled."""
    case, numbers = policy_changes.FaultHandled.case, count()

    def always(self: Any, graph: Any, reads: list[Any]) -> Any:
        return case(self, graph, [reads[0] or msgspec.json.encode(self._fault), *reads[1:]])

    return [
        (policy_changes.FaultHandled, "case", always),
        (policy_handlers, "fault_op", lambda id: f"fault:{id}:{next(numbers)}"),
    ]


@bug
def fault_forgotten() -> list[Patch]:
    """A fault is deleted without having been counted."""
    return [(policy_changes, "counts_cmds", lambda ref, node, before, after: [])]


# ---- what forbids a step


def _blind_to(**fields: Any) -> list[Patch]:
    """Whoever decides about a step does not see these fields of a record."""
    step = deciding._step

    def blind(core: Any, unit: Any, live: bool) -> Any:
        seen, unit.rec = unit.rec, _replace(unit.rec, **fields)
        try:
            return step(core, unit, live)
        finally:
            unit.rec = seen

    return [(deciding, "_step", blind)]


@bug
def pause_of_a_node_ignored() -> list[Patch]:
    """A node that is paused gets its step all the same."""
    return _blind_to(paused=False)


@bug
def failure_for_ever_ignored() -> list[Patch]:
    """What failed for ever is tried again and again."""
    return _blind_to(permanent="")


@bug
def backoff_ignored() -> list[Patch]:
    """What failed is tried again at once."""
    return _blind_to(next_try=0.0)


# ---- renames


@bug
def question_lost_by_a_rename() -> list[Patch]:
    """What somebody is asked about a node is forgotten when it gets another name."""
    take = renaming.record_of

    def record(*args: Any) -> Any:
        return _replace(take(*args), gate=None, approval=None)

    return [(renaming, "record_of", record)]


@bug
def step_lost_by_a_rename() -> list[Patch]:
    """A step that is under way stays with the name under which it was sent."""
    return [(renaming, "take_flights", lambda core, names, types, stands: None)]


@bug
def record_lost_by_a_rename() -> list[Patch]:
    """A renamed node is taken for another one, of which nothing is known."""
    return [(renaming, "renames", lambda core, nodes, gone: ({}, {}, {}))]
