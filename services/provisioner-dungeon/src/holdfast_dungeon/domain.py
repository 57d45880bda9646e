"""The dungeon domain as the SDK knows it. Handlers only translate between nodes and the world."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec

from holdfast_model.events import FaultType
from holdfast_model.manifest import Reinforcement, Situation
from holdfast_model.messages import Observation
from holdfast_model.names import GraphRef
from holdfast_sdk import Absent, Context, Domain, Drifted, Found, GraphBuilder, Node, Present
from holdfast_sdk.states import observation_of

from . import building, specs
from .blueprint import Blueprint
from .compiler import Piece, compile_dungeon
from .things import Thing
from .world import World

NAME = "dungeon"
VERSION = "2"
STEP_TIMEOUT = 5.0
"""Seconds for a step or a look, beside the pace: also how long the planner waits for a killed replica's answer."""

SEARCH = 60.0
"""Seconds between two searches for things that nobody declares."""
MOST = 10_000
"""Things of a graph up to which it is searched."""

UNDER_ATTACK = "under-attack"
"""The situation of a location that loses much in a short time."""
LOSSES = 3
ALARM = 60.0


class Builder:
    """All types: what differs is in their specs. ``pace`` is how many seconds it takes to build one thing."""

    def __init__(self, world: World, pace: float = 0.0) -> None:
        self._world = world
        self._pace = pace

    async def observe_many(self, nodes: Sequence[Node[specs.Spec]], ctx: Context) -> dict[str, Observation]:
        """What stands, in one look."""
        found = await self._world.look(nodes[0].ref, [node.id for node in nodes])
        return {node.id: seen(node, thing) for node, thing in zip(nodes, found, strict=True)}

    async def provision(self, node: Node[specs.Spec], ctx: Context) -> Observation:
        """Build it, or build it again over what is left of it."""
        if self._pace:
            ctx.progress(0, 1, text=f"building {node.id}")
            await asyncio.sleep(self._pace)
        places = node.spec.places
        thing = await self._world.build(node.ref, node.id, node.type, form_of(node), places, ctx.idempotency_key)
        return seen(node, thing)

    async def deprovision(self, node: Node[specs.Spec], ctx: Context) -> None:
        await self._world.remove(node.ref, node.id, ctx.idempotency_key)

    async def discover(self, ctx: Context) -> list[Found]:
        """What stands of a type, whoever declares it. Who must be asked to let a creature in, no thing tells."""
        things = await self._world.things(GraphRef(ctx.tenant, ctx.graph), most=MOST)
        return [Found(t.id, msgspec.json.decode(t.form), t.places) for t in things.values() if t.type == ctx.type]


def form_of(node: Node[specs.Spec]) -> str:
    """The spec as the world keeps it: equal specs are equal texts, however they were written."""
    return msgspec.json.encode(node.spec).decode()


def seen(node: Node[specs.Spec], thing: Thing | None) -> Observation:
    """What is known of a node when this is what stands there."""
    if thing is None:
        return observation_of(Absent())
    info: dict[str, object] = {"built": thing.built, "wounds": thing.wounds}
    if thing.posture:
        info["posture"] = thing.posture
    # What is not desired any more has no declared form: that it stands is all there is to say.
    reason = building.drift(thing, node.type, form_of(node)) if node.desired else ""
    if reason:
        return observation_of(Drifted(reason, token=thing.token, info=info))
    return observation_of(Present(token=thing.token, info=info))


def make_domain(
    resync: float = 5.0, pace: float = 0.0, alarm: float = ALARM, leftovers: Literal["report", "remove"] = "report"
) -> Domain:
    """The domain without its handler, which is one :class:`Builder`. Seconds: ``resync``, ``pace``, and ``alarm``, for
    which a location stays fortified after the last loss there. ``leftovers``: what becomes of things that nobody
    declares.
    """
    domain = Domain(NAME, blueprint=Blueprint, version=VERSION)
    domain.situation(under_attack(alarm))
    for node_type, spec in specs.SPEC_OF_TYPE.items():
        domain.node_type(
            node_type,
            spec=spec,
            resync=resync,
            timeout=STEP_TIMEOUT + pace,
            concurrency=8,
            batch=8,
            after_human=node_type == specs.CREATURE,
            backoff=(1.0, 30.0),
            adopt_orphans=leftovers,
            scope="graph",
            search=SEARCH,
        )(Builder)

    @domain.compiler
    def compile(blueprint: Blueprint, graph: GraphBuilder) -> None:
        compiled = compile_dungeon(blueprint)
        for problem in compiled.problems:
            graph.problem(problem.path, problem.message)
        add(graph, compiled.pieces)
        for phase in compiled.phases:
            with graph.phase(phase.id, phase.complete_when, at="/location"):
                add(graph, phase.pieces)

    return domain


def add(graph: GraphBuilder, pieces: Sequence[Piece]) -> None:
    """Declare some pieces, in the phase that is open."""
    for piece in pieces:
        graph.add(piece.id, piece.type, piece.spec, piece.depends_on, piece.gating, at=piece.pointer)


def under_attack(alarm: float) -> Situation:
    """Several losses at one location: its garrison takes the posture FORTIFY, and a wall is built, until it is calm.

    Rooms and what is in them have no location, so that raids there are no attack on an expansion.
    """
    at = {"location": "{zone}"}
    return Situation(
        UNDER_ATTACK,
        faults=[FaultType.NODE_DESTROYED],
        zone="has(node.spec.location) ? node.spec.location : ''",
        count=LOSSES,
        within=alarm,
        add=[
            Reinforcement(f"{specs.GARRISON}-{{zone}}", specs.GARRISON, {**at, "posture": specs.FORTIFY}),
            Reinforcement(f"{specs.WALL}-{{zone}}", specs.WALL, dict(at)),
        ],
    )
