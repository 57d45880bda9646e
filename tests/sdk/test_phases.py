"""Blueprints in phases and deadlines, under the planner's own reconciler."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from holdfast_model.errors import Invalid
from holdfast_sdk import Absent, Context, Domain, GraphBuilder, Node, Present, State, Temporary
from holdfast_sdk.testing import Harness, harness


class Stages(BaseModel):
    """Phases by id: what each holds. ``last`` names the ones that never end."""

    phases: dict[str, list[str]]
    never: list[str] = []
    always: list[str] = []
    deadline: dict[str, str] = {}


class Bricks:
    """A world in memory. What is in ``stuck`` cannot be built."""

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.stuck: set[str] = set()
        self.log: list[str] = []
        self.due: dict[str, float | None] = {}

    async def observe(self, node: Node[dict[str, Any]], ctx: Context) -> State[dict[str, Any]]:
        return Present() if node.id in self.there else Absent()

    async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> State[dict[str, Any]]:
        self.due[node.id] = ctx.due
        if node.id in self.stuck:
            raise Temporary("no clay", retry_after=12.0)
        self.there.add(node.id)
        self.log.append(f"+{node.id}")
        return Present()

    async def deprovision(self, node: Node[dict[str, Any]], ctx: Context) -> None:
        self.there.discard(node.id)
        self.log.append(f"-{node.id}")


def make() -> Domain:
    domain = Domain("bricks", blueprint=Stages)
    domain.node_type("brick", resync="10s", backoff=(1, 12))(Bricks)
    domain.node_type("gate", resync="10s", after_human=True)(Bricks)

    @domain.compiler
    def compile(bp: Stages, graph: GraphBuilder) -> None:
        for id in bp.always:
            graph.add(id, "brick", gating="ALL" if id.startswith("gate") else "NONE")
        for phase, ids in bp.phases.items():
            with graph.phase(phase, "never" if phase in bp.never else "all_present", bp.deadline.get(phase)):
                for id in ids:
                    graph.add(id, "brick")

    return domain


def told(h: Harness, name: str) -> list[Any]:
    return [e.data for e in h.events if e.name == name]


async def test_a_phase_follows_when_all_of_the_one_before_is_there_and_shared_nodes_stay_without_steps() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a", "b"], "defend": ["b", "c"]}, "never": ["defend"]})
        await h.converged()

        assert bricks.there == {"b", "c"}
        assert sorted(bricks.log[:2]) == ["+a", "+b"]
        assert sorted(bricks.log[2:]) == ["+c", "-a"]
        (advanced,) = told(h, "phase_advanced")
        assert (advanced["from"], advanced["phase"], advanced["index"], advanced["name"]) == (
            "build", "defend", 1, "main",
        )  # fmt: skip
        assert h.phase == "defend"
        assert len(told(h, "converged")) == 1


async def test_the_last_phase_stays_repaired() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a"], "run": ["b"]}})
        await h.converged()
        await h.advance("1s")  # the timer of regular looks runs from here
        bricks.there.discard("b")
        await h.advance("30s")
        assert bricks.there == {"b"}
        assert h.phase == "run"


async def test_a_phase_waits_for_its_own_nodes_and_not_for_those_of_all_phases() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a"], "run": ["b"]}, "always": ["gate"]})
        await h.advance("1s")
        assert h.phase == "run"
        assert [item.node for item in h.workitems] == ["gate"]


async def test_empty_phases_are_complete_at_once_and_passed_one_by_one() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"one": [], "two": [], "three": ["a"]}})
        await h.converged()
        assert [d["phase"] for d in told(h, "phase_advanced")] == ["two", "three"]
        assert bricks.there == {"a"}


async def test_a_phase_that_never_ends_is_never_left() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"keep": ["a"], "later": ["b"]}, "never": ["keep"]})
        await h.converged()
        await h.advance("10m")
        assert (h.phase, bricks.there, told(h, "phase_advanced")) == ("keep", {"a"}, [])


async def test_the_same_blueprint_again_keeps_the_phase_and_a_changed_one_starts_over() -> None:
    bricks = Bricks()
    spec = {"phases": {"build": ["a"], "run": ["b"]}}
    async with harness(make(), bricks) as h:
        await h.apply(spec)
        await h.converged()
        await h.apply(spec)
        await h.converged()
        assert (h.phase, sorted(bricks.log)) == ("run", ["+a", "+b", "-a"])

        await h.apply({"phases": {"build": ["a"], "run": ["b", "c"]}})
        assert [d["phase"] for d in told(h, "phase_advanced")] == ["run", "run"]
        await h.converged()
        assert bricks.there == {"b", "c"}


async def test_two_blueprints_go_through_their_phases_by_themselves() -> None:
    bricks = Bricks()
    bricks.stuck = {"x"}
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a"], "run": ["b"]}})
        await h.apply({"phases": {"build": ["x"], "run": ["y"]}}, name="other")
        await h.advance("10s")
        assert [(d["name"], d["phase"]) for d in told(h, "phase_advanced")] == [("main", "run")]
        bricks.stuck = set()
        await h.converged()
        assert bricks.there == {"b", "y"}


async def test_a_paused_graph_stays_in_its_phase_and_goes_on_when_it_is_resumed() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        bricks.there.add("a")
        await h.pause()
        before = told(h, "converged")  # nothing was desired
        await h.apply({"phases": {"build": ["a"], "run": ["b"]}})
        await h.advance("1m")
        assert (h.phase, told(h, "phase_advanced"), told(h, "converged")) == ("build", [], before)
        await h.resume()
        await h.converged()
        assert (h.phase, bricks.there) == ("run", {"b"})


async def test_a_graph_deleted_in_its_first_phase_leaves_nothing() -> None:
    bricks = Bricks()
    bricks.stuck = {"b"}
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a", "b"], "run": ["c"]}})
        await h.advance("20s")
        await h.delete()
        await h.converged()
        assert (bricks.there, bricks.log, h.phase) == (set(), ["+a", "-a"], "")


async def test_a_deadline_that_passes_is_told_before_its_fault_and_reconciliation_goes_on() -> None:
    bricks = Bricks()
    bricks.stuck = {"b"}
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a", "b"], "run": ["c"]}, "deadline": {"build": "30s"}})
        start = h.now
        await h.advance("29s")
        assert told(h, "timed_out") == []
        assert bricks.due["b"] == start + 30
        await h.advance("2s")

        (out,) = told(h, "timed_out")
        assert (out["phase"], out["of"], out["deadline"], out["missing"]) == ("build", "phase", start + 30, ["b"])
        (fault,) = [f for f in h.faults if f.reason == "timed_out"]
        assert (fault.node, fault.type, fault.time) == ("b", "PROVISION_FAILED", start + 30)

        # What comes later has no deadline any more, and the phase is still left when it is complete.
        bricks.stuck = set()
        await h.converged()
        assert (h.phase, bricks.due["b"]) == ("run", None)
        assert len(told(h, "timed_out")) == 1


async def test_a_deadline_of_the_whole_is_met_when_the_last_phase_is_there() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a"], "run": ["b"]}, "never": ["run"]}, deadline="1m")
        await h.advance("10m")
        assert told(h, "timed_out") == []


async def test_a_new_version_ends_having_timed_out() -> None:
    bricks = Bricks()
    bricks.stuck = {"a"}
    spec = {"phases": {"build": ["a"]}}
    async with harness(make(), bricks) as h:
        await h.apply(spec, deadline="10s")
        await h.advance("1m")
        assert len(told(h, "timed_out")) == 1
        await h.apply(spec, deadline="10s")
        await h.advance("9s")
        assert len(told(h, "timed_out")) == 1
        await h.advance("1m")
        assert len(told(h, "timed_out")) == 2


async def test_a_question_to_a_person_expires_with_its_blueprint() -> None:
    bricks = Bricks()
    async with harness(make(), bricks) as h:
        await h.apply({"phases": {"build": ["a"]}, "always": ["gate"]}, deadline="1m")
        assert h.workitem("gate").expires_at == h.now + 60
        await h.apply({"phases": {"build": ["a"]}, "always": ["gate2"]})
        assert h.workitem("gate2").expires_at is None


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"phases": {"a": ["n"]}, "deadline": {"a": "soon"}}, "/phases/0/deadline"),
        ({"phases": {"a": ["n"]}, "deadline": {"a": "2026-01-01T10:00:00"}}, "/phases/0/deadline"),
        ({"phases": {"a": ["n"]}, "deadline": {"a": "0s"}}, "/phases/0/deadline"),
        ({"phases": {"a": ["n"], "": []}}, "/phases/1/id"),
    ],
)
async def test_phases_that_cannot_be_are_refused_with_their_place(spec: dict[str, Any], place: str) -> None:
    async with harness(make(), Bricks()) as h:
        with pytest.raises(Invalid) as refused:
            await h.apply(spec)
        assert [p.path for p in refused.value.problems] == [place]
