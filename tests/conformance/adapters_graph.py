"""graph.json, planner.json, mutations.json: the value graph, the pure planner, differences, and cycles of a world."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from holdfast_model.diffs import diff
from holdfast_model.errors import HoldfastError
from holdfast_model.gatings import needs_human
from holdfast_model.graph import Graph
from holdfast_model.messages import Action
from holdfast_model.plans import Plan, plan
from holdfast_model.rows import Gating

from . import vectors
from .running import Run, plain_error
from .vectors import Case, Json
from .world import REFERENCE, World


def run_graph(case: Case) -> Run:
    """Operations on a graph, one after the other."""
    first = graph = vectors.graph(case.given["graph"])
    for op in case.when:
        try:
            done = _operate(graph, case.given, op)
        except HoldfastError as error:
            if "expect_error" not in op:
                raise
            _must_be(error, op["expect_error"])
        else:
            assert "expect_error" not in op, f"{op} was expected to fail"
            graph = done
    frozen = [name for name in case.then.get("read_only", ()) if _refuses_change(graph, name)]
    original = facts_of(first, case.then.get("original") or {})
    return Run({**facts_of(graph, case.then), "original": original, "read_only": frozen})


def _operate(graph: Graph, given: Json, op: Json) -> Graph:
    match op["op"]:
        case "with_node":
            return graph.with_node(vectors.node(op["node"]))
        case "without_node":
            return graph.without_node(op["id"])
        case "with_edge":
            return graph.with_edge(*op["edge"])
        case "without_edge":
            return graph.without_edge(*op["edge"])
        case "build":
            return vectors.graph(op["graph"])
        case "overlay":
            return graph.overlay(vectors.graph(given["other"]))
        case "connect":
            return graph.connect(vectors.graph(given["other"]))
        case "filter_types":
            return graph.filter_by_types(op["types"])
        case "apply":
            return graph.apply(vectors.mutation(op["mutation"]))
        case "try_mutate_views":
            return graph
        case _:
            raise vectors.unknown(op)


def _refuses_change(graph: Graph, name: str) -> bool:
    """Whether a view of a graph, as vectors call it, cannot be changed."""
    some = next(iter(graph.nodes), "")
    views: dict[str, Any] = {
        "dependencies": graph.edges,
        "dependencies_of": graph.dependencies_of(some),
        "dependents_of": graph.dependents_of(some),
        "node_ids": graph.nodes,
    }
    view = views[name] if name in views else getattr(graph, name)
    return isinstance(view, frozenset | MappingProxyType)


def _must_be(error: HoldfastError, expected: Any) -> None:
    actual = plain_error(error)
    wanted = expected if isinstance(expected, Mapping) else {"kind": expected}
    assert expected is True or all(actual.get(k) == v for k, v in wanted.items()), f"{actual} is not {expected}"


def facts_of(graph: Graph, asked: Mapping[str, Any]) -> Json:
    """All that a vector may ask of a graph."""
    return {
        "node_ids": list(graph.nodes),
        "nodes": {id: vectors.plain_node(n) for id, n in graph.nodes.items()},
        "edges": [list(e) for e in graph.edges],
        "version": graph.version,
        "is_empty": graph.is_empty,
        "roots": sorted(graph.roots),
        "leaves": sorted(graph.leaves),
        "dependencies_of": {id: sorted(graph.dependencies_of(id)) for id in asked.get("dependencies_of", ())},
        "dependents_of": {id: sorted(graph.dependents_of(id)) for id in asked.get("dependents_of", ())},
        "requires_human": {
            id: {a.value: needs_human(a, Gating(n.gating), Gating(n.spec_gating)) for a in Action}
            for id, n in graph.nodes.items()
        },
    }


# ---- planner.json


def run_planner(case: Case) -> Run:
    """A plan of everything at once, or the steps of it carried out by the reconciler."""
    desired = vectors.graph(case.given["desired"])
    made = plan(desired, vectors.statuses(case.given["actual"]), options=REFERENCE)
    actual = _plan_facts(made, desired, case)
    facts: set[str] = set()
    for op in case.when:
        vectors.must_be(op, "plan", "execute")
        if op["op"] == "execute":
            ran = _execute(case, op)
            actual |= ran.actual
            facts |= ran.facts
    return Run(actual, facts)


def _plan_facts(made: Plan, desired: Graph, case: Case) -> Json:
    order = [s.node.id for s in (*made.removals, *made.additions)]
    steps = {s.node.id: {**vectors.plain_node(s.node), "action": s.action.value} for s in made.removals}
    added = {s.node.id: {**vectors.plain_node(s.node), "action": s.action.value} for s in made.additions}
    return {
        "removals": list(steps),
        "additions": list(added),
        "addition_order": list(added),
        "order": order,
        "is_empty": made.is_empty,
        "removal_node": _the_one(steps, case.then.get("removal_node")),
        "removal_nodes": steps,
        "addition_nodes": added,
        "before_graph_ids": list(desired.nodes),
        "after_graph_ids": list(desired.nodes),
        "unordered_pairs": case.then.get("unordered_pairs", []),  # where nothing is promised, anything holds
    }


def _the_one(steps: Mapping[str, Json], wanted: Any) -> Any:
    """The removal that is asked about: the only one, or those by id."""
    if isinstance(wanted, Mapping) and set(wanted) <= set(steps):
        return steps
    return next(iter(steps.values()), None)


def _execute(case: Case, op: Json) -> Run:
    given = case.given | op
    world = World(given["desired"], claimed=given.get("provisioner_types", ["t"]))
    world.actual = vectors.statuses(given["actual"])
    world.outcomes = given.get("results", {})
    cycle = world.run_cycle()
    return Run({"calls": {"set": cycle.calls, "order": cycle.calls}, "outcomes": cycle.outcomes}, world.facts)


# ---- mutations.json


def run_mutations(case: Case) -> Run:
    """Mutations applied one after the other."""
    return run_graph(case)


def run_diff(case: Case) -> Run:
    current, adapted = vectors.graph(case.given["current"]), vectors.graph(case.given["adapted"])
    for op in case.when:
        vectors.must_be(op, "diff")
    made = diff(current, adapted)
    kinds = [vectors.plain_mutation(m)["kind"] for m in made]
    actual: Json = {
        "mutations": [vectors.plain_mutation(m) for m in made],
        "order_constraints": [
            pair for pair in case.then.get("order_constraints", []) if _comes_before(kinds, pair[0], pair[1])
        ],
    }
    graph = current
    try:
        for mutation in made:
            graph = graph.apply(mutation)
        actual["apply_in_order"] = {**facts_of(graph, case.then.get("apply_in_order") or {}), "error": None}
    except HoldfastError as error:
        actual["apply_in_order"] = {"error": plain_error(error)}
    return Run(actual)


def _comes_before(kinds: list[str], first: str, second: str) -> bool:
    if first not in kinds or second not in kinds:
        return False
    last_of_first = len(kinds) - 1 - kinds[::-1].index(first)
    return last_of_first < kinds.index(second)
