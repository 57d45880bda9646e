"""fault_engine.json, threshold.json and the cycles of mutations.json: policies, counts, and a world in cycles."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from holdfast_model.errors import Invalid
from holdfast_model.events import Fault, FaultType
from holdfast_model.fault_engine import Policy, evaluate
from holdfast_model.mutations import AddDependency, Mutation, RemoveDependency
from holdfast_model.thresholds import FaultCounts, ThresholdPolicy, add_review

from . import vectors
from .running import Run, plain_error
from .vectors import Case, Json
from .world import Cycle, World, scripted_policy, told


def as_fault(op: Json, tenant: str = "t1") -> Fault:
    return Fault(
        "f", "i1", op.get("tenant", tenant), "main", op["node"], FaultType(op["type"]), "", 0.0,
        detail=op.get("detail", ""), episode="e1",
    )  # fmt: skip


# ---- one fault, several policies


def run_engine(case: Case) -> Run:
    actual: Json = {"steps": []}
    facts: set[str] = set()
    for op in case.when:
        vectors.must_be(op, "evaluate")
        fault = as_fault(op["fault"], op["tenant"])
        seen = vectors.statuses(case.given["actual"])
        scripts = case.given["policies"]
        found = evaluate(
            Policy(f"p{i}", partial(scripted_policy, script, fault, seen)) for i, script in enumerate(scripts)
        )
        emitted = [m["edge"] for script in scripts for m in script.get("emit", ()) if "edge" in m]
        if found.failure is None and len(found.edges) < len(emitted):
            facts.add("equal_edges_collapsed")
        if found.failure is not None:
            mutations = [vectors.plain_mutation(m) for m in found.failure.mutations]
            error = {"kind": found.failure.kind.value, "message": found.failure.message, "mutations": mutations}
            step: Json = {"error": {**error, "node": found.failure.node}}
        else:
            kinds = [isinstance(o.mutation, AddDependency | RemoveDependency) for o in found.mutations]
            step = {
                "node_mutations": [vectors.plain_mutation(o.mutation) for o in found.nodes],
                "edge_mutations": [vectors.plain_mutation(o.mutation) for o in found.edges],
                "nodes_first": kinds == sorted(kinds),
            }
        actual = {**step, "steps": [*actual["steps"], step]}
    return Run(actual, facts)


# ---- cycles


def run_cycles(case: Case) -> Run:
    given = case.given
    world = World(given["desired"])
    world.policies = given.get("policies", ())
    world.listeners = given.get("listeners", ())
    steps = []
    for op in [given, *case.when]:
        if "actual" in op:
            world.actual = vectors.statuses(op["actual"])
        if "outcomes" in op:
            world.outcomes = op["outcomes"]
        if "actual_scope" in op:
            world.everything = op["actual_scope"] == "ALL"
        if op is given:
            continue
        if op["op"] == "typed_cycle":
            world.facts.add("typed")
            steps.append(step_of(world, world.run_cycle(op["types"])))
        elif op["op"] == "cycle":
            swap = op.get("during_fault_evaluation") or {}
            world.during_policies = swap.get("set_desired")
            world.during_read = (op.get("during_read") or {}).get("set_desired")
            steps.append(step_of(world, world.run_cycle()))
        elif op["op"] in ("set_desired", "replace"):
            world.declare(op.get("desired") or op.get("graph") or op["single"])
            steps.append({"desired_ids": world.desired_ids})
        else:
            raise vectors.unknown(op)
    return Run({"steps": steps}, world.facts)


def step_of(world: World, cycle: Cycle) -> Json:
    """One cycle in the notation of the vectors."""
    return {
        "faults": [{"node": f.node, "type": f.type.value, "detail": f.detail} for f in cycle.faults],
        "executed": cycle.executed,
        "desired_ids": world.desired_ids,
        "events": told(cycle),
        "listener_calls": cycle.listeners,
        "listener_graph_ids": cycle.listener_graph,
        "reads": cycle.reads,
        "working_graph_sizes_seen": cycle.graph_sizes,
        "outcomes": cycle.outcomes,
    }


# ---- thresholds and counts


def run_threshold(case: Case) -> Run:
    shared = FaultCounts()
    stores = {n: shared if c.get("store") == "shared" else FaultCounts() for n, c in case.given["policies"].items()}
    policies = {name: build(config) for name, config in case.given["policies"].items()}
    graphs = {name: vectors.graph(given).nodes for name, given in case.given.get("graphs", {}).items()}
    types = {name: {n.id: n.type for n in nodes.values()} for name, nodes in graphs.items()}
    steps: list[Json] = []
    for i, op in enumerate(case.when):
        name = "p" if op["op"] == "build_policy" else op.get("policy", "p")
        mutations: list[Mutation] = []
        step: Json = {}
        match op["op"]:
            case "fault":
                there = types[op["graph"]]
                mutations = list(policies[name].on_fault(as_fault(op), there.get(op["node"]), there, stores[name]))
            case "reset_count":
                stores[name].reset(policies[name].namespace, op["tenant"], op["node"])
            case "build_policy":
                try:
                    build(op["policy"])
                except NotAPolicy as error:
                    step["error"] = plain_error(error)
            case "namespace_of":
                step["namespace"] = policies[name].namespace
            case "recovered":
                pass  # by themselves, thresholds are not told of recovery
            case _:
                raise vectors.unknown(op)
        step |= {"fired": len(mutations), "mutations": [vectors.plain_mutation(m) for m in mutations]}
        step["edge_mutations"] = sum(isinstance(m, AddDependency | RemoveDependency) for m in mutations)
        step["counts"] = counted(stores.get(name, shared), case.step(i).get("counts", []))
        steps.append(step)
    last = steps[-1] if steps else {}
    errors = [{"error": s["error"]} for s in steps if "error" in s]
    return Run({**last, "steps": steps} | (errors[0] if errors else {}))


def build(config: Mapping[str, Any]) -> ThresholdPolicy:
    """A policy from its configuration; one that shares its counts must say under which name."""
    try:
        if config.get("store") == "shared" and not config.get("namespace"):
            raise Invalid("a policy on a shared store needs a namespace")
        action = add_review(config.get("review_type", "review")) if config.get("action") else None
        return ThresholdPolicy(
            config.get("fault_types", ()),
            action,
            node_types=config.get("node_types", ()),
            ignore_types=config.get("ignore_types", ()),
            threshold=config.get("threshold", 3),
            namespace=config.get("namespace", ""),
        )
    except Invalid as error:
        raise NotAPolicy(error.message) from error


class NotAPolicy(Invalid):
    """The configuration makes no policy."""

    code = "invalid_policy"


def run_store(case: Case) -> Run:
    store, returns = FaultCounts(), []
    for op in case.when:
        answer: Any = None
        match op["op"]:
            case "increment":
                key = (op["namespace"], op["tenant"], op["node"])
                answer = [store.increment(*key) for _ in range(op.get("times", 1))]
            case "reset" | "remove":
                getattr(store, op["op"])(op["namespace"], op["tenant"], op["node"])
            case "get" | "count":
                answer = [store.get(op["namespace"], op["tenant"], op["node"])]
            case "evict":
                store.evict(op["namespace"], op["tenant"], op["retained"])
            case "evict_across":
                store.evict_across(op["tenant"], op["retained"])
            case "cycle_completed":
                store.evict_across(op["tenant"], op["graph_ids"])
            case "tenant_stopped":
                store.evict_tenant(op["tenant"])
            case _:
                raise vectors.unknown(op)
        returns.append(answer)
    return Run({"returns": returns, "counts": counted(store, case.then.get("counts", []))})


def counted(store: FaultCounts, wanted: list[list[Any]]) -> list[list[Any]]:
    return [[ns, tenant, node, store.get(ns, tenant, node)] for ns, tenant, node, _ in wanted]
