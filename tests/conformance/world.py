"""A small host for the real reconciler: a scripted world is observed and acted upon in cycles, in virtual time.

A cycle is what the reference does in one go: everything is observed; policies hear of drift; steps run until none is
left; policies hear of failures. Graph, reconciler, planner and policy engine are the real ones; only who answers is
scripted. What a run shows of our own decisions is noted as *facts*, for the rules of deviations.toml.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from holdfast_bus.envelope import encode_event
from holdfast_fault_policy.changes import apply_all
from holdfast_model.desired import DesiredGraph
from holdfast_model.errors import HoldfastError
from holdfast_model.events import DESIRED_STATE, Event, Fault, FaultType
from holdfast_model.fault_engine import Policy, evaluate
from holdfast_model.graph import Graph
from holdfast_model.manifest import OnUnknown
from holdfast_model.messages import Action, NodeDeclaration, Observation, Outcome, Status, Step, StepOutcome
from holdfast_model.mutations import Mutation
from holdfast_model.names import BUILT_IN_TYPES, GraphRef
from holdfast_model.plans import REMOVE, UNKNOWN_TYPE, Options, plan
from holdfast_model.reconciler import ItemIntent, Look, Phase, Reconciler, Record, Settings, Turn, TypeInfo
from holdfast_model.reconciler.records import GateState
from holdfast_model.rows import POLICY_OWNER, Delta, Node, Tombstone, declare, digest_of, gone_field

from . import vectors
from .vectors import Json

HOUR = 3600.0
OWNER = "main"
REFERENCE = Options(on_unknown=OnUnknown.PROVISION, adopt_orphans=REMOVE)
"""The planner's options that make its matrix the reference's."""

_VOCABULARY = frozenset(
    DESIRED_STATE + name for name in ("node.recovered", "node.drifted", "node.faulted", "reconciliation.completed")
)
"""Events that the reference knows; ours has more."""


class Host(Exception):
    """A host refuses what it is asked: ``kind`` says why."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass
class Cycle:
    """What one cycle did and told."""

    reads: int = 0
    steps: list[tuple[str, Action]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    outcomes: dict[str, Json] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    opened: list[ItemIntent] = field(default_factory=list)
    observed: dict[str, Status] = field(default_factory=dict)
    graph_sizes: list[int] = field(default_factory=list)
    listeners: list[str] = field(default_factory=list)
    listener_graph: list[str] | None = None

    @property
    def executed(self) -> Json | None:
        """Removals and additions that were carried out or asked about, or None."""
        if not self.steps:
            return None
        ids: dict[Action, list[str]] = {Action.DEPROVISION: [], Action.PROVISION: []}
        for node, action in dict.fromkeys(self.steps):
            ids[action].append(node)
        return {"removals": ids[Action.DEPROVISION], "additions": ids[Action.PROVISION]}


Answer = Callable[[Step], StepOutcome]


class World:
    """One graph of one tenant. ``claimed``: the types that somebody provisions (None: all)."""

    def __init__(self, desired: Json, *, tenant: str = "t1", claimed: Collection[str] | None = None) -> None:
        self.ref = GraphRef(tenant, "main")
        self.now = 1_000_000.0
        self.facts: set[str] = set()
        self.actual: dict[str, Status] = {}
        self.everything = True
        self.outcomes: Mapping[str, Any] = {}
        self.policies: Sequence[Json] = ()
        self.listeners: Sequence[Any] = ()
        self.during_policies: Json | None = None
        self.during_read: Json | None = None
        self.answer: Answer = self.scripted
        self.changes = 0
        self.cycle = Cycle()
        self._claimed = claimed
        self._ids = 0
        self._looks: list[Look] = []
        self._types: Collection[str] | None = None
        self._nodes: dict[str, Node | None] = {}
        self._gone: dict[tuple[str, str], Tombstone | None] = {}
        self.graph = DesiredGraph(self.ref)
        self.graph.tracking = True
        self.declare(desired)
        self.epoch = 0
        self.reconciler = self.restart({})

    def new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids}"

    def restart(self, records: Mapping[str, Record]) -> Reconciler:
        """A new owner takes over the graph, with what is known of its nodes."""
        self.epoch += 1
        self.reconciler = Reconciler(self.ref, "i1", self.epoch, self.new_id, Settings())
        self.reconciler.on_catalog(self.now, self.catalog())
        graph = self.graph
        self.reconciler.load(self.now, graph.nodes, graph.gone.values(), records, {}, counter=0)
        graph.drain()
        return self.reconciler

    # ---- the desired graph

    @property
    def desired_ids(self) -> list[str]:
        return list(self.graph.nodes)

    def declare(self, given: Json) -> None:
        """Publish a graph: it replaces what was published before, and nothing else."""
        depends: dict[str, list[str]] = {}
        for source, target in vectors.edges(given):
            depends.setdefault(source, []).append(target)
        declared = [msgspec.structs.replace(n, depends_on=tuple(depends.get(n.id, ()))) for n in vectors.nodes(given)]
        self.graph.declare(OWNER, [(n.id, declare(n)) for n in declared])
        self.graph.take_delta()
        self.changes += 1

    def leave_policies_behind(self) -> None:
        """Forget what policies declared."""
        for owner in [o for o in self.graph.owned if o.startswith(POLICY_OWNER)]:
            self.graph.retract(owner)

    def catalog(self) -> dict[str, TypeInfo]:
        """Every type that is claimed, and treated as the reference treats all of them."""
        types = {n.type for n in self.graph.nodes.values()} | {t.type for t in self.graph.gone.values()}
        types |= {UNKNOWN_TYPE} if self._claimed is None else set()
        known = types - BUILT_IN_TYPES if self._claimed is None else set(self._claimed)
        return {
            name: TypeInfo("scripted", "1", True, resync=1e9, timeout=60.0, batch=1, on_unknown="provision")
            for name in sorted(known)
        }

    # ---- cycles

    def run_cycle(self, types: Collection[str] | None = None) -> Cycle:
        """Observe all nodes, or those of ``types``; let policies hear of drift; act; let them hear of failures."""
        self.cycle = cycle = Cycle()
        self._types = types
        self.now += HOUR
        self.take_in_changes()
        reconciler = self.reconciler
        reconciler.on_time(self.now)
        if types is None:
            reconciler.on_reconcile(self.now)
        else:
            for name in types:
                for unit in reconciler.core.by_type.get(name, ()):
                    reconciler.core.look(unit)
            self.note_others(types)
        self.read()
        faulted = {f.node for f in cycle.faults}
        if any(cycle.observed.get(n) is Status.DRIFTED and n not in faulted for n in self.graph.nodes):
            self.facts.add("drift_told_once")
        if types is None:
            self.tell_listeners()
        self.consult_policies(0)
        self.act()
        return cycle

    def note_others(self, types: Collection[str]) -> None:
        """What a look at some types only leaves alone, and edges that lead out of them."""
        nodes = self.graph.nodes
        mine = {n.id for n in nodes.values() if n.type in types}
        if any(id not in mine and status in (Status.PRESENT, Status.DRIFTED) for id, status in self.actual.items()):
            self.facts.add("others_left_alone")
        if 0 < len(mine) < len(nodes):
            self.facts.add("part_of_graph")
        if any(target not in mine for id in mine for target in nodes[id].depends_on):
            self.facts.add("edges_to_other_types")

    def read(self) -> None:
        """Observe until nothing is left to look at; no step is sent. Leftovers are taken over for removal."""
        self.take(self.reconciler.finish(self.now, {}))
        leftovers = self.leftovers()
        if self._looks or self._types is None:  # who may find leftovers is asked even when nothing is desired
            self.cycle.reads += 1
        if self.during_read is not None:
            given, self.during_read = self.during_read, None
            self.declare(given)
            self.facts.add("graph_moved")
        self.answer_looks()
        if leftovers:
            seen = Graph.seen(self.graph.nodes)
            found = plan(seen, leftovers, gone=self.graph.gone.values(), options=REFERENCE)
            self.adopt([s.node for s in found.removals if s.node.id in leftovers])
            self.take_in_changes()
            self.take(self.reconciler.finish(self.now, {}))
            self.answer_looks()

    def answer_looks(self) -> None:
        while self._looks:
            look = self._looks.pop(0)
            self.reconciler.on_observed(self.now, look, self.seen(look))
            self.take(self.reconciler.finish(self.now, {}))

    def seen(self, look: Look) -> dict[str, Observation]:
        seen = {i.node: Observation(self.actual[i.node]) for i in look.nodes if i.node in self.actual}
        self.cycle.observed.update((id, o.status) for id, o in seen.items())
        return seen

    def leftovers(self) -> dict[str, Status]:
        """What is reported though nobody desires or removes it; a look at some types only does not ask for it."""
        if not self.everything or self._types is not None:
            return {}
        known = {*self.graph.nodes, *(t.id for t in self.graph.gone.values())}
        return {id: status for id, status in self.actual.items() if id not in known}

    def adopt(self, found: Iterable[NodeDeclaration]) -> None:
        graves = [Tombstone(n.id, n.type, n.spec, digest_of(n.type, n.spec)) for n in found]
        self.graph.replay(Delta({}, {gone_field(t.key): t for t in graves}))

    def take_in_changes(self) -> None:
        """Tell the reconciler what has become of the desired graph."""
        self.drain()
        if self._nodes or self._gone:
            self.reconciler.on_catalog(self.now, self.catalog())
            self.reconciler.on_graph(self.now, self._nodes, self._gone)
            self._nodes, self._gone = {}, {}

    def drain(self) -> None:
        nodes, gone = self.graph.drain()
        self._nodes |= nodes
        self._gone |= gone

    def forget(self, keys: list[tuple[str, str]]) -> None:
        """Removed nodes are gone; all other changes still wait."""
        self.graph.forget(keys)
        self.graph.take_delta()
        self.drain()
        forgotten = {k: self._gone.pop(k) for k in keys if k in self._gone}
        self.reconciler.on_graph(self.now, {}, forgotten)

    def act(self) -> None:
        """Send and answer steps until none is left. Changes of the desired graph wait for the next cycle."""
        self.take_in_changes()
        while True:
            turn = self.reconciler.finish(self.now, self.plenty())
            self.take(turn)
            if not turn.dispatch and not turn.forget and not self._looks:
                break
            self.answer_looks()
            first = len(self.cycle.faults)
            # Nothing orders what is sent together: here removals happen to be carried out first.
            for sent in sorted(turn.dispatch, key=lambda d: d.batch.steps[0].action is Action.PROVISION):
                for step in sent.batch.steps:
                    self.cycle.calls.append(step.node)
                    self.reconciler.on_outcomes(self.now, [self.answer(step)])
            self.take(self.reconciler.finish(self.now, {}))
            self.consult_policies(first)
        self.look_around()

    def look_around(self) -> None:
        """Note what waits and what was not tried."""
        core = self.reconciler.core
        for unit in (*core.units.values(), *core.graves.values()):
            if unit.phase is Phase.WAITING:
                self.cycle.steps.append((unit.id, unit.action))
                self.cycle.outcomes.setdefault(unit.id, {"kind": "SKIPPED", "reason": why_waiting(unit)})
            elif unit.phase is Phase.BLOCKED:
                self.facts.add("blocked")
            elif unit.phase in (Phase.REFUSED, Phase.FAILED):
                self.facts.add("remembered")
            elif unit.phase is Phase.NO_PROVISIONER:
                self.cycle.outcomes[unit.id] = {
                    "kind": "FAILED",
                    "reason": f"no provisioner for type {unit.type!r} is running",
                }
        if not any(e.name == "reconciled" for e in self.cycle.events):
            self.facts.add("quiet")
        if any(a is Action.DEPROVISION and self.hidden(n) for n, a in self.cycle.steps):
            self.facts.add("removed_ours")
        acted = {node for node, _ in self.cycle.steps}
        if any(e.name == "recovered" and e.node in acted for e in self.cycle.events):
            self.facts.add("recovered_at_once")

    def plenty(self) -> dict[tuple[str, str], int]:
        return {(info.domain, name): 1_000_000 for name, info in self.catalog().items()}

    def take(self, turn: Turn) -> None:
        """Commit a turn: keep what it tells, forget what it forgets, note what it looks at and sends."""
        cycle = self.cycle
        cycle.faults += turn.faults
        cycle.events += turn.events
        cycle.told += [*(f.event() for f in turn.faults), *turn.events]
        self._looks += [k for k in turn.look if self._types is None or k.type in self._types]
        cycle.opened += [i for i in turn.todo.values() if isinstance(i, ItemIntent)]
        for sent in turn.dispatch:
            cycle.steps += [(s.node, s.action) for s in sent.batch.steps]
            for step in sent.batch.steps:
                if step.action is Action.PROVISION and cycle.observed.get(step.node) is Status.PRESENT:
                    self.facts.add("changed_though_present")
                if self._types is not None and step.type not in self._types:
                    self.facts.add("others_went_on")
        if turn.forget:
            self.forget(turn.forget)
        if any(f.type is FaultType.NODE_DEGRADED for f in turn.faults):
            self.facts.add("degraded")

    def hidden(self, node: str) -> bool:
        """Whether only its tombstone tells that it is to go: an observer that reports desired nodes only would not
        mention it, and one that knows ids only takes the old form of a changed type for the new one."""
        return node in self.graph.nodes or not self.everything

    # ---- the world outside

    def scripted(self, step: Step) -> StepOutcome:
        """The outcome that is scripted for a node, else success. The world is then as it was made until it is told
        otherwise."""
        given = as_outcome(self.outcomes.get(step.node, {"kind": "SUCCEEDED"}))
        if given["kind"] != "PENDING_APPROVAL":  # then it waits, and what it waits for is noted at the end
            self.cycle.outcomes[step.node] = given
        reason = str(given.get("reason", ""))
        match given["kind"]:
            case "SUCCEEDED":
                return self.end(step, Outcome.SUCCEEDED)
            case "REJECTED":
                return self.end(step, Outcome.REJECTED, reason)
            case "SKIPPED":
                return self.end(step, Outcome.SKIPPED, reason)
            case "PENDING_APPROVAL":
                out = self.end(step, Outcome.PENDING_APPROVAL)
                return msgspec.structs.replace(out, plan=str(given["plan"]))
            case "THROW":
                self.facts.add("threw")
                return self.end(step, Outcome.FAILED, reason or "it raised")
            case "FAILED":
                return self.end(step, Outcome.FAILED, reason)
            case other:
                raise ValueError(f"unknown kind of outcome {other!r}")

    @staticmethod
    def end(step: Step, outcome: Outcome, detail: str = "") -> StepOutcome:
        return StepOutcome(step.node, step.operation, step.attempt, outcome, detail=detail)

    # ---- policies and listeners

    def tell_listeners(self) -> None:
        """Whoever subscribes hears of each full cycle; one that fails ends it for nobody."""
        if not self.listeners:
            return
        self.cycle.listener_graph = self.desired_ids
        for listener in self.listeners:
            self.cycle.listeners.append(listener if isinstance(listener, str) else str(listener["name"]))

    def consult_policies(self, first: int) -> None:
        """Let the policies hear of the faults from the ``first`` on, one after the other, each on the newest graph."""
        for fault in self.cycle.faults[first:]:
            if fault.node not in self.graph.nodes:
                self.note_unasked(fault)
                continue
            found = evaluate(Policy(f"p{i}", self.ask(script, fault)) for i, script in enumerate(self.policies))
            if found.failure is not None:
                self.facts.add("policy_failed")
            _, dropped = apply_all(self.graph, found.mutations)
            if dropped:
                self.facts.add("mutation_dropped")
            self.graph.take_delta()

    def move_graph(self) -> None:
        """The desired graph changes at the moment at which the first policy is asked."""
        if self.during_policies is not None:
            given, self.during_policies = self.during_policies, None
            self.declare(given)
            self.facts.add("graph_moved")

    def note_unasked(self, fault: Fault) -> None:
        """That nobody is asked about a removed node, and what would have gone wrong otherwise."""
        if not self.policies:
            return
        self.facts.add("fault_of_removed_node")
        self.move_graph()
        found = evaluate(
            Policy(f"p{i}", partial(scripted_policy, script, fault, self.actual))
            for i, script in enumerate(self.policies)
        )
        if found.failure is not None:
            self.facts.add("policy_failed")
        graph = Graph.seen(self.graph.nodes)
        try:
            for owned in found.mutations:
                graph = graph.apply(owned.mutation)
        except HoldfastError:
            self.facts.add("mutation_dropped")

    def ask(self, script: Json, fault: Fault) -> Callable[[], list[Mutation]]:
        def answer() -> list[Mutation]:
            self.cycle.graph_sizes.append(len(self.graph.nodes))
            self.move_graph()
            return scripted_policy(script, fault, self.actual)

        return answer


def scripted_policy(script: Json, fault: Fault, actual: Mapping[str, Status]) -> list[Mutation]:
    """What a scripted policy says to a fault. Missing filters match everything."""
    wrong_type = script.get("on", fault.type.value) != fault.type.value
    wrong_node = script.get("node", fault.node) != fault.node
    wrong_state = any(actual.get(n) != s for n, s in script.get("when_actual", {}).items())
    if wrong_type or wrong_node or wrong_state:
        return []
    if "throw" in script:
        raise RuntimeError(script["throw"])
    return [vectors.mutation(m) for m in script["emit"]]


def why_waiting(unit: Any) -> str:
    """Why a step is skipped: a plan that is to be approved, or a person who is to act."""
    gate, approval = unit.rec.gate, unit.rec.approval
    if gate is not None and gate.state is GateState.OPEN:
        return f"pending human action: WorkItem {gate.workitem}" if gate.workitem else "requires human"
    return f"pending approval: {approval.plan}" if approval is not None else "waits"


def as_outcome(given: Any) -> Json:
    """An outcome as vectors write it: an object, or ``SUCCESS``, ``FAIL:reason``, ``PENDING:plan``."""
    if not isinstance(given, str):
        kind = {"SUCCESS": "SUCCEEDED"}.get(given["kind"], given["kind"])
        return {**given, "kind": kind}
    kind, _, text = given.partition(":")
    match kind:
        case "SUCCESS" | "SUCCEEDED":
            return {"kind": "SUCCEEDED"}
        case "FAIL" | "FAILED":
            return {"kind": "FAILED", "reason": text}
        case "PENDING":
            return {"kind": "PENDING_APPROVAL", "plan": text}
        case _:
            return {"kind": kind, "reason": text}


def _as_reference(cloud: Json) -> Json:
    """What the reference's events say besides, where ours say the same under other names."""
    named = {"tenancyId": cloud["tenancyid"]}
    if "subject" in cloud:
        named["nodeId"] = cloud["subject"]
    if cloud.get("faulttype"):
        named |= {"faultType": cloud["faulttype"], "reason": cloud["data"]["detail"]}
    return named


def told(cycle: Cycle) -> list[Json]:
    """The cycle's events and faults as CloudEvents, as far as the reference knows their types."""
    out = []
    for event in cycle.told:
        cloud = msgspec.json.decode(encode_event(event))
        if cloud["type"] not in _VOCABULARY:
            continue
        out.append(
            {
                "type": cloud["type"],
                "subject": cloud.get("subject") or event.tenant,
                "extensions": {"tenancyid": cloud["tenancyid"], "faulttype": cloud.get("faulttype", "")},
                "data": cloud["data"] | _as_reference(cloud),
            }
        )
    return out
