"""lifecycle.json, routing.json and resync.json: phases, who is asked and who acts, and timers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from holdfast_dungeon.compiler import Phase as ExpansionPhase
from holdfast_dungeon.compiler import expand
from holdfast_model.durations import format_duration
from holdfast_model.errors import Invalid
from holdfast_model.graph import Graph
from holdfast_model.messages import Observation, ObserveReply, Status
from holdfast_model.phases import CompleteWhen, GraphPhase, Lifecycle, begin
from holdfast_model.resync import PREFERENCE, Timers, check_interval, interval_for
from holdfast_model.routing import Claims, Question, merged, questions

from . import vectors
from .adapters_faults import step_of
from .running import Run
from .vectors import Case, Json
from .world import Cycle, Host, World

# ---- lifecycle.json


def run_lifecycle(case: Case) -> Run:
    hosts = Hosts(case.given)
    steps: list[Json | None] = []
    for op in case.when:
        try:
            steps.append(hosts.operate(op))
        except Host as refused:
            steps.append({"error": {"kind": refused.kind}})
    facts = {f for world in hosts.worlds for f in world.facts}
    last = steps[-1] or {} if steps else {}
    return Run({**last, "steps": steps}, facts)


class Phased:
    """A world whose desired graph may come in phases."""

    def __init__(self, tenant: str, given: Json) -> None:
        self.world = World({}, tenant=tenant)
        self.lifecycle: Lifecycle | None = None
        self.publish(given)

    def publish(self, given: Json) -> None:
        if "phases" in given:
            before, self.lifecycle = self.lifecycle, begin([_phase(p) for p in given["phases"]], self.lifecycle)
            if self.lifecycle is before:
                self.world.facts.add("phase_kept")
            self.world.declare(_plain(self.lifecycle.phase.graph))
        else:
            self.lifecycle = None
            self.world.declare(given["single"])

    def cycle(self, op: Json) -> Json:
        """One cycle; then the phase moves on, unless somebody has changed the desired graph meanwhile."""
        world = self.world
        if "actual" in op:
            world.actual = vectors.statuses(op["actual"])
        if "outcomes" in op:
            world.outcomes = op["outcomes"]
        world.during_read = (op.get("during_read") or {}).get("set_desired")
        before = world.changes
        cycle = world.run_cycle()
        self.move_on(cycle, undisturbed=world.changes == before)
        return step_of(world, cycle) | self.where()

    def move_on(self, cycle: Cycle, undisturbed: bool) -> None:
        """To the next phase, for which the graph must be as it was; the last phase ends whatever has become of it."""
        now = self.lifecycle
        found = now and now.next(cycle.observed)
        if found is now or not (found is None or undisturbed):
            return
        self.lifecycle = found
        if found is not None:
            self.world.leave_policies_behind()
            self.world.declare(_plain(found.phase.graph))

    def where(self) -> Json:
        index = self.lifecycle.index if self.lifecycle is not None else None
        return {"phase": index, "desired_ids": self.world.desired_ids}


class Hosts:
    """The graphs that are hosted, by tenant: each at most once."""

    def __init__(self, given: Json) -> None:
        self.given = given
        self.running: dict[str, Phased] = {}
        self.worlds: list[World] = []

    def operate(self, op: Json) -> Json | None:
        tenant = op.get("tenant", "t1")
        match op["op"]:
            case "start":
                if tenant in self.running:
                    raise Host("ALREADY_RUNNING")
                published = op if "single" in op or "phases" in op else self.given
                self.running[tenant] = Phased(tenant, published)
                self.worlds.append(self.running[tenant].world)
                return self.running[tenant].cycle(op)
            case "stop":
                self.running.pop(tenant, None)
                return {}
            case "request":
                if tenant in self.running:
                    self.running[tenant].world.reconciler.on_reconcile(self.running[tenant].world.now)
                return {}
            case "compile_expansion":
                return _expansion(self.given["expansion_goal"])
        vectors.must_be(op, "cycle", "replace", "get_desired")
        if tenant not in self.running:
            raise Host("NOT_RUNNING")
        hosted = self.running[tenant]
        match op["op"]:
            case "cycle":
                return hosted.cycle(op)
            case "replace":
                hosted.publish(op)
                return hosted.where()
            case _:
                return hosted.where()


def _phase(given: Json) -> GraphPhase:
    return GraphPhase(given["id"], vectors.graph(given["graph"]), CompleteWhen(given["complete_when"].lower()))


def _plain(graph: Graph) -> Json:
    return {"nodes": [vectors.plain_node(n) for n in graph.nodes.values()], "edges": [list(e) for e in graph.edges]}


def _expansion(goal: Json) -> Json:
    """The worked example of phases: the dungeon's expansions."""
    phases, problems = expand(goal["location"], goal["structures"], goal["posture"])
    if problems:
        return {"error": {"kind": problems[0].message.partition(":")[0], "message": problems[0].message}}
    return {"phases": [_plain_phase(p) for p in phases]}


def _plain_phase(phase: ExpansionPhase) -> Json:
    return {
        "id": phase.id,
        "nodes": {piece.id: piece.type for piece in phase.pieces},
        "edges": [[piece.id, target] for piece in phase.pieces for target in piece.depends_on],
        "complete_when": phase.complete_when.upper(),
    }


# ---- routing.json


def run_adapters(case: Case) -> Run:
    adapters = {a["name"]: a for a in case.given["adapters"]}
    claims = Claims((name, a["types"]) for name, a in adapters.items())
    actual: Json = {"types": sorted(claims.types)}
    for op in case.when:
        vectors.must_be(op, "read_actual", "construct", "handled_types")
        if op["op"] == "read_actual":
            actual |= _read(vectors.graph(case.given["desired"]), claims, adapters)
    return Run(actual)


def _read(desired: Graph, claims: Claims, adapters: Mapping[str, Json]) -> Json:
    """Ask every adapter for what it looks after, whether any of that is desired or not."""
    calls: dict[str, list[list[str]]] = {name: [] for name in adapters}
    edges: dict[str, list[list[str]]] = {name: [] for name in adapters}
    answers = []
    for asked in questions(desired, claims, discovers=sorted(claims.types)):
        calls[asked.domain].append([n.node for n in asked.nodes])
        edges[asked.domain] += [[n.node, target] for n in asked.nodes for target in n.depends_on]
        answers.append(_answer(adapters[asked.domain], asked))
    statuses = {id: status.value for id, status in merged(desired, claims, answers).items()}
    return {"statuses": statuses, "calls": calls, "edges_seen": edges}


def _answer(adapter: Json, asked: Question) -> ObserveReply:
    if "reports_each_desired" in adapter:
        status = Status(adapter["reports_each_desired"])
        return ObserveReply({n.node: Observation(status) for n in asked.nodes})
    return ObserveReply({id: Observation(s) for id, s in vectors.statuses(adapter.get("reports", {})).items()})


def run_provisioners(case: Case) -> Run:
    provisioners = case.given["provisioners"]
    claims = Claims((p["name"], p["types"]) for p in provisioners)
    actual: Json = {"types": sorted(claims.types)}
    facts: set[str] = set()
    for op in case.when:
        vectors.must_be(op, "provision", "deprovision", "construct", "handled_types")
        if op["op"] in ("provision", "deprovision"):
            step, world = _route(op, claims, {p["name"]: p for p in provisioners})
            actual |= step
            facts |= world.facts
    return Run(actual, facts)


def _route(op: Json, claims: Claims, provisioners: Mapping[str, Json]) -> tuple[Json, World]:
    """Send the step that a node needs; ``routed_to`` is the domain that got it."""
    node = vectors.node(op["node"])
    world = World({"nodes": [op["node"]]}, claimed=sorted(claims.types))
    if op["op"] == "deprovision":
        world.declare({})
    world.actual = {node.id: Status.ABSENT if op["op"] == "provision" else Status.PRESENT}
    scripted = provisioners.get(claims.domain_of(node.type) or "", {})
    world.outcomes = {node.id: scripted.get("result", scripted.get("returns", "SUCCESS"))}
    cycle = world.run_cycle()
    outcome = cycle.outcomes[node.id]
    result = {**outcome, "kind": {"SUCCEEDED": "SUCCESS"}.get(outcome["kind"], outcome["kind"])}
    for asked in cycle.opened:  # what its provisioner wants approved
        result = {"kind": "PENDING_APPROVAL", "plan": asked.payload["plan"]}
    return {"routed_to": claims.domain_of(node.type) if cycle.calls else None, "result": result}, world


# ---- resync.json


def run_resync(case: Case) -> Run:
    try:
        return _Clockwork(case.given).run(case)
    except IntervalTooShort:
        return Run({"error": {"kind": "INTERVAL_BELOW_FLOOR"}}, {"interval_refused"})


class IntervalTooShort(Exception):
    """An interval below the floor was refused."""


def _checked(value: str) -> float:
    try:
        return check_interval(value)
    except Invalid as error:
        raise IntervalTooShort from error


class _Clockwork:
    """Timers of one graph, kept up to date with it."""

    def __init__(self, given: Json) -> None:
        provisioners = given.get("provisioners", ()) if given.get("router", True) else ()
        self.declared = {t: _checked(p["interval"]) for p in provisioners if "interval" in p for t in p["types"]}
        Claims((p.get("name", str(i)), p["types"]) for i, p in enumerate(provisioners))
        self.preferences = given.get("preferences", {})
        for name, value in self.preferences.items():
            if name.startswith(PREFERENCE):
                _checked(value)
        self.single = given.get("loop_interval") or (None if given.get("router", True) else "PT5M")
        self.policies = given.get("policies", ())
        self.timers = Timers()
        self.full_cycles = 0
        self.world: World | None = None

    def interval(self, node_type: str) -> float:
        return interval_for(node_type, self.declared, self.preferences)

    def run(self, case: Case) -> Run:
        steps = [self.operate(op) for op in case.when]
        last = steps[-1] if steps else {}
        return Run({**last, "steps": steps, "returns": steps}, self.world.facts if self.world else set())

    def operate(self, op: Json) -> Json:
        match op["op"]:
            case "construct":
                return {}
            case "interval_for":
                return {"interval": format_duration(self.interval(op["type"]))}
            case "set_preference":
                self.preferences[op["key"]] = op["value"]
                _checked(op["value"])
                return self.regroup(self.types())
            case "start":
                return self.start(op)
            case "update_desired" | "cas_desired":
                assert self.world is not None
                self.world.declare(op["graph"])
                return self.regroup(self.types())
            case "cycle":
                assert self.world is not None
                self.world.actual = vectors.statuses(op.get("actual", {}))
                self.world.outcomes = op.get("outcomes", {})
                self.world.run_cycle()
                self.full_cycles += 1
                return self.regroup(self.types())
            case _:
                raise vectors.unknown(op)

    def start(self, op: Json) -> Json:
        """The first cycle comes before any timer."""
        self.world = world = World(op["graph"])
        world.policies = self.policies
        world.actual = vectors.statuses(op.get("actual", {}))
        world.outcomes = op.get("outcomes", {})
        world.run_cycle()
        self.full_cycles += 1
        return self.regroup(self.types())

    def types(self) -> Iterator[str]:
        assert self.world is not None
        return (n.type for n in self.world.graph.nodes.values())

    def regroup(self, types: Collection[str] | Iterator[str]) -> Json:
        before = self.timers
        self.timers = before.regrouped(types, self.interval)
        groups = {format_duration(interval): list(names) for interval, names in self.timers.groups.items()}
        assert self.world is not None
        return {
            "groups": {} if self.single else groups,
            "single_timer": self.single,
            "timers_replaced": not self.single and self.timers is not before,
            "full_cycles": self.full_cycles,
            "desired_ids": self.world.desired_ids,
        }
