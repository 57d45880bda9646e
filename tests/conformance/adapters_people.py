"""approval.json and work_items.json: gating, approvals, and the WorkItems behind them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from holdfast_model.events import Fault, FaultType
from holdfast_model.gatings import actions_of, merged
from holdfast_model.messages import Action, Status, Step, StepOutcome
from holdfast_model.names import GraphRef
from holdfast_model.plans import plan
from holdfast_model.reconciler import Ended, ItemIntent, Record
from holdfast_model.reconciler.gating import bind
from holdfast_model.reconciler.records import ApprovalGate, GateState, grave_field
from holdfast_model.rows import Gating, digest_of
from holdfast_model.work_items import SYSTEM, CreateWorkItem, WorkItem, WorkItemStatus, approval_ref, gate_ref
from holdfast_model.work_items_create import Defaults, create
from holdfast_planner.effects import ended

from . import vectors
from .running import Run
from .vectors import Case, Json
from .world import REFERENCE, World, as_outcome

# ---- gating


def run_gating(case: Case) -> Run:
    steps = [_gated(op, case.given) for op in case.when]
    last = steps[-1] if steps and isinstance(steps[-1], dict) else {}
    return Run({**last, "steps": steps})


def _gated(op: Json, given: Json) -> Any:
    match op["op"]:
        case "requires_human":
            return needs(Gating(op.get("gating", "NONE")), Gating(op.get("spec_gating", "NONE")))
        case "merge":
            return merged(Gating(op["a"]), Gating(op["b"])).value
        case "planned_removal" | "plan":
            seen = vectors.statuses(op.get("actual") or given.get("actual") or {"x": "PRESENT"})
            removal = plan(vectors.graph(given.get("desired", {})), seen, options=REFERENCE).removals[0].node
            facts = needs(Gating(removal.gating), Gating(removal.spec_gating))
            return {"gating": removal.gating, "spec_gating": removal.spec_gating, "node": removal.id, **facts}
        case _:
            raise vectors.unknown(op)


def needs(gating: Gating, spec_gating: Gating) -> Json:
    """Which actions need a person."""
    covered = actions_of(merged(gating, spec_gating))
    return {**{a.value: a in covered for a in Action}, "any": bool(covered)}


# ---- the executor: one node, one action


def run_executor(case: Case) -> Run:
    facts: set[str] = set()
    steps = []
    for op in case.when:
        vectors.must_be(op, "execute")
        world = OneNode(case.given | op)
        steps.append(world.execute())
        facts |= world.facts
    return Run({"steps": steps}, facts)


class OneNode(World):
    """A world of one node on which one action is due, with an approval in the state that is given."""

    def __init__(self, given: Json) -> None:
        self.node = node = vectors.node(given["node"])
        super().__init__({"nodes": [given["node"]]}, tenant=given["tenant"], claimed=[node.type])
        self.given = given
        self.action = Action(given["action"])
        self.actual = {node.id: Status.ABSENT if self.action is Action.PROVISION else Status.PRESENT}
        self.approvals: list[Json | None] = []
        if self.action is Action.DEPROVISION:
            self.declare({})
        self.answer = self.provision
        self.before = self.approval_before(digest_of(node.type, node.spec))
        field = node.id if self.action is Action.PROVISION else grave_field(node.id, node.type)
        record = Record(type=node.type, digest="was", approval=self.before)
        self.restart({field: record} if self.before else {})

    def approval_before(self, digest: str) -> ApprovalGate | None:
        """The approval that was asked for earlier, still open; a decision on it comes as an input."""
        state = self.given["approval"]
        if state["kind"] == "NONE":
            return None
        asked = state.get("plan", "")
        binding = bind("i1", self.node.id, self.action, digest, asked, None)
        return ApprovalGate("gate-1", self.action, digest, asked, binding)

    def execute(self) -> Json:
        """One cycle; a handler of people that answers at once does so within it."""
        state = self.given["approval"]
        decided = {"APPROVED": ("COMPLETED", "approve"), "REJECTED": ("REJECTED", "")}.get(state["kind"])
        if state["kind"] == "REJECTED" and needs(Gating(self.node.gating), Gating(self.node.spec_gating))[self.action]:
            self.facts.add("refused_before_asked")
        if decided is not None:
            at = datetime.fromisoformat(state["at"]).timestamp() if "at" in state else self.now
            end = Ended("gate-1", "w1", *decided, by=state.get("by", ""), note=state.get("reason", ""), at=at)
            self.reconciler.on_decision(self.now, end)
        cycle = self.run_cycle()
        asked = [i for i in cycle.opened if i.kind == "human"]
        self.answer_people(asked)
        recorded = [str(i.payload["plan"]) for i in cycle.opened if i.kind == "approval"]
        return {
            "outcome": self.outcome(),
            "provisioner_called": bool(cycle.calls),
            "approval_in_context": self.approvals[-1] if self.approvals else None,
            "recorded": recorded,
            "acknowledged": sum(f.type is FaultType.APPROVAL_REJECTED for f in cycle.faults),
            "human_handler_called": len(asked),
        }

    def answer_people(self, asked: list[ItemIntent]) -> None:
        """A handler that returns an outcome is a person who acts at once."""
        returned = str(self.given.get("human_handler", "NOOP"))
        statuses = {"SUCCEEDED": "COMPLETED", "REJECTED": "REJECTED", "FAILED": "FAULTED"}
        status = statuses.get(returned.removeprefix("RETURNS:"))
        if returned == "PROVISION_ONLY_IMPL" and self.action is Action.PROVISION:
            status = "COMPLETED"
        if status is None or not asked:
            return
        self.cycle.outcomes.clear()
        for item in asked:
            self.reconciler.on_decision(self.now, Ended(item.request, "w1", status, by="grace", at=self.now))
        self.act()

    def outcome(self) -> Json:
        """How the step ended: by the provisioner, by waiting for somebody, or by a person's word."""
        for fault in self.cycle.faults:
            if fault.type is FaultType.APPROVAL_REJECTED:
                return {"kind": "REJECTED", "reason": fault.detail}
        return self.cycle.outcomes.get(self.node.id, {"kind": "SUCCEEDED"})

    def provision(self, step: Step) -> StepOutcome:
        """The scripted provisioner."""
        consent = step.approval
        at = datetime.fromtimestamp(consent.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if consent else ""
        self.approvals.append({"plan": consent.plan, "by": consent.by, "at": at} if consent else None)
        answer = as_outcome(self.given["provisioner"])
        if answer["kind"] == "PENDING_UNLESS_APPROVED":
            answer = {"kind": "SUCCEEDED"} if consent else {"kind": "PENDING_APPROVAL", "plan": answer["reason"]}
        self.outcomes = {step.node: answer}
        return self.scripted(step)


# ---- WorkItems behind approvals


def run_approval_handler(case: Case) -> Run:
    desk = Desk(case.given.get("store_contract") == "OBSOLETE_ACTIVE_ONLY")
    steps = [desk.operate(op) for op in case.when]
    created = [desk.plain(i) for i in desk.created]
    return Run({"steps": steps, "created": created, "created_count": len(created)}, desk.facts)


def run_caller_ref(case: Case) -> Run:
    refs = []
    for op in case.when:
        make = gate_ref if op.get("kind") == "HUMAN" else approval_ref
        refs.append(make(GraphRef(op["tenant"], "main"), op["node"], Action(op["action"])))
    return Run({"steps": refs})


class Desk:
    """Approvals of several nodes, each in a world of its own, and the items that were opened for them."""

    def __init__(self, keeps_ended: bool) -> None:
        self.keeps_ended = keeps_ended
        self.facts: set[str] = set()
        self.worlds: dict[tuple[str, str, str], Asking] = {}
        self.items: dict[str, WorkItem] = {}
        self.owners: dict[str, Asking] = {}
        self.created: list[CreateWorkItem] = []

    def operate(self, op: Json) -> Any:
        match op["op"]:
            case "record_pending":
                world = self.world(op)
                for intent in world.want(op["plan"]):
                    self.open(intent, world)
                return {"outcome": world.cycle.outcomes[op["node"]]}
            case "check":
                key = (op["tenant"], op["node"], op["action"])
                return self.worlds[key].state() if key in self.worlds else {"kind": "NONE"}
            case "set_status":
                return self.set_status(op)
            case "acknowledge_rejection":
                return self.acknowledge(op)
            case _:
                raise vectors.unknown(op)

    def acknowledge(self, op: Json) -> None:
        """A rejection is remembered until what was rejected changes; nothing else ends a question that is open."""
        world = self.worlds.get((op["tenant"], op["node"], op["action"]))
        state = world.state()["kind"] if world is not None else "NONE"
        if state != "NONE" and not (state == "REJECTED" and self.keeps_ended):
            self.facts.add("kept_in_mind")

    def world(self, op: Json) -> Asking:
        key = (op["tenant"], op["node"], op["action"])
        if key not in self.worlds:
            self.worlds[key] = Asking(*key)
        return self.worlds[key]

    def open(self, intent: ItemIntent, world: Asking) -> None:
        """What work-items makes of the intent."""
        request = CreateWorkItem(
            tenant=world.ref.tenant, graph=world.ref.graph, request=intent.request, caller_ref=intent.caller_ref,
            title=intent.title, plan_ref=str(intent.payload["plan"]), types=(f"desiredstate/{intent.kind}",),
            replace=True, claim_deadline=None, expires_at=None,
        )  # fmt: skip
        item = create(request, f"w{len(self.created) + 1}", datetime.fromtimestamp(world.now, UTC), Defaults()).item
        self.created.append(request)
        self.items[intent.caller_ref] = item
        self.owners[intent.caller_ref] = world
        world.reconciler.on_item_opened(world.now, intent.request, item.id)

    def set_status(self, op: Json) -> None:
        item = self.items[op["caller_ref"]]
        world = self.owners[op["caller_ref"]]
        by = op.get("assignee") or SYSTEM  # nothing is done by nobody
        item = msgspec.structs.replace(
            item, status=WorkItemStatus(op["status"]), assignee_id=by, decided_by=by, outcome=op.get("outcome", "")
        )
        self.items[op["caller_ref"]] = item
        if item.status.terminal:
            world.hear(ended(item))

    @staticmethod
    def plain(request: CreateWorkItem) -> Json:
        return {
            "title": request.title,
            "caller_ref": request.caller_ref,
            "payload": request.plan_ref,
            "tenant": request.tenant,
            "types": list(request.types),
        }


class Asking(World):
    """A world of one node whose provisioner wants its plan approved."""

    def __init__(self, tenant: str, node: str, action: str) -> None:
        super().__init__({"nodes": [node]}, tenant=tenant, claimed=["t"])
        self.node, self.action = node, Action(action)
        self.round = 0
        self.actual = {node: Status.ABSENT if self.action is Action.PROVISION else Status.PRESENT}
        self.rejection: Fault | None = None
        if self.action is Action.DEPROVISION:
            self.declare({})

    def want(self, plan: str) -> list[ItemIntent]:
        """Let the provisioner ask. While a question is open no step is sent: what it is about must change first."""
        if self.state()["kind"] in ("PENDING", "REJECTED"):
            self.round += 1
            self.declare({"nodes": [{"id": self.node, "spec": {"round": self.round}}]})
            if self.action is Action.DEPROVISION:
                self.declare({})
        self.outcomes = {self.node: {"kind": "PENDING_APPROVAL", "plan": plan}}
        cycle = self.run_cycle()
        return [i for i in cycle.opened if i.kind == "approval"]

    def hear(self, end: Ended) -> None:
        self.reconciler.on_decision(self.now, end)
        turn = self.reconciler.finish(self.now, {})
        self.take(turn)
        rejections = [f for f in turn.faults if f.type is FaultType.APPROVAL_REJECTED]
        self.rejection = rejections[0] if rejections else self.rejection

    def state(self) -> Json:
        """What is known of the approval."""
        core = self.reconciler.core
        unit = core.units.get(self.node) or core.graves.get((self.node, "t"))
        approval = unit.rec.approval if unit is not None else None
        if approval is None:
            return {"kind": "NONE"}
        match approval.state:
            case GateState.OPEN:
                return {"kind": "PENDING", "plan": approval.plan}
            case GateState.PASSED:
                return {"kind": "APPROVED", "plan": approval.plan, "by": approval.by}
            case GateState.REFUSED:
                assert self.rejection is not None
                f = self.rejection
                reason = f"{f.type.value} of {f.node}: {f.reason} ({f.detail})"
                return {"kind": "REJECTED", "plan": approval.plan, "reason": reason}
