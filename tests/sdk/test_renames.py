"""Nodes that come under another name: what is known of them goes along, and no step follows."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from holdfast_model.blueprint import declarations
from holdfast_model.errors import Dangling, Invalid
from holdfast_model.messages import NodeDeclaration
from holdfast_sdk import Absent, Context, Domain, Drifted, Node, PendingApproval, Present, State, Temporary
from holdfast_sdk.testing import Harness, harness
from holdfast_testkit.waiting import eventually

shop = Domain("shop")


class Sign(BaseModel, extra="forbid"):
    name: str
    text: Any = ""
    fail: bool = False
    plan: str = ""


class Signs:
    """Signs hang by the name in their spec: the graph's names say nothing to them."""

    def __init__(self) -> None:
        self.there: dict[str, Sign] = {}
        self.log: list[str] = []
        self.gate: asyncio.Event | None = None
        self.keys: dict[str, str] = {}

    async def observe(self, node: Node[Sign], ctx: Context) -> State[BaseModel]:
        found = self.there.get(node.spec.name)
        if found is None:
            return Absent()
        if found.text != node.spec.text:
            return Drifted("changed", token=str(found.text))
        return Present(outputs={"at": f"wall of {found.name}"})  # type: ignore[arg-type]

    async def provision(self, node: Node[Sign], ctx: Context) -> dict[str, Any]:
        self.keys[node.id] = ctx.idempotency_key
        if self.gate is not None:
            await self.gate.wait()
        if node.spec.fail:
            raise Temporary("no paint", retry_after=600)
        if node.spec.plan and ctx.approval is None:
            raise PendingApproval(node.spec.plan)
        self.log.append(f"+{node.id}")
        self.there[node.spec.name] = node.spec
        return {"at": f"wall of {node.spec.name}"}

    async def deprovision(self, node: Node[Sign], ctx: Context) -> None:
        self.log.append(f"-{node.id}")
        self.there.pop(node.spec.name, None)


class Named(Signs):
    """Signs that hang by the name of their node."""

    async def observe(self, node: Node[Sign], ctx: Context) -> State[BaseModel]:
        return Present(token=node.id) if node.id in self.there else Absent()

    async def provision(self, node: Node[Sign], ctx: Context) -> None:  # type: ignore[override]
        self.log.append(f"+{node.id}")
        self.there[node.id] = node.spec


class Blind:
    async def provision(self, node: Node[Sign], ctx: Context) -> None: ...


shop.node_type("sign", resync="1h")(Signs)
shop.node_type("named", resync="1h")(Named)
shop.node_type("blind")(Blind)


def sign(id: str, *needs: str, name: str = "", type: str = "sign", gating: str = "NONE", **spec: Any) -> dict[str, Any]:
    spec = {"name": name or id, **spec}
    return {"id": id, "type": type, "spec": spec, "depends_on": list(needs), "gating": gating}


def nodes(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": list(nodes)}


def open_shop(signs: Signs | None = None, named: Named | None = None) -> Any:
    return harness(shop, signs or Signs(), named or Named(), Blind())


async def refused(h: Harness, graph: dict[str, Any], moved: dict[str, str]) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        await h.apply(graph, moved=moved)
    return caught.value.problems[0].path, caught.value.problems[0].message


async def test_a_renamed_node_keeps_what_is_known_of_it_and_gets_no_step() -> None:
    signs = Signs()
    async with open_shop(signs) as h:
        await h.apply(nodes(sign("a"), sign("top", "a")))
        await h.converged()
        signs.log.clear()
        # When a node and one that stands on it are renamed
        await h.apply(nodes(sign("b", name="a"), sign("peak", "b", name="top")), moved={"a": "b", "top": "peak"})
        await h.converged()
        assert signs.log == []
        assert (sorted(h.nodes), h.removed) == (["b", "peak"], [])
        assert h.nodes["b"].outputs == {"at": "wall of a"}
        # Then it is removed under its new name, after what stands on it
        await h.apply(nodes())
        await h.converged()
        assert signs.log == ["-peak", "-b"]


async def test_a_rename_that_was_carried_out_may_stay_in_the_blueprint() -> None:
    signs = Signs()
    async with open_shop(signs) as h:
        await h.apply(nodes(sign("a")), moved={"never": "a"})
        for _ in range(3):
            await h.apply(nodes(sign("b", name="a")), moved={"a": "b"})
        # And the next version may change it
        await h.apply(nodes(sign("b", name="a", text="new")), moved={"a": "b"})
        await h.converged()
        assert (signs.log, h.nodes["b"].spec["text"]) == (["+a", "+b"], "new")


async def test_what_is_renamed_and_edited_at_once_is_made_anew_once() -> None:
    signs = Signs()
    async with open_shop(signs) as h:
        await h.apply(nodes(sign("a"), sign("top", "a")))
        await h.converged()
        await h.apply(nodes(sign("b", name="a", text="new"), sign("top", "b")), moved={"a": "b"})
        await h.converged()
        assert signs.log == ["+a", "+top", "+b"]
        assert h.faults == []


async def test_references_to_a_renamed_node_keep_their_values() -> None:
    signs = Signs()
    async with open_shop(signs) as h:
        await h.apply(nodes(sign("a"), sign("user", text={"$ref": "a#/at"})))
        await h.converged()
        await h.apply(nodes(sign("b", name="a"), sign("user", text={"$ref": "b#/at"})), moved={"a": "b"})
        await h.converged()
        assert signs.log == ["+a", "+user"]
        assert h.nodes["user"].spec["text"] == "wall of a"
        # Also where the user is renamed along
        await h.apply(nodes(sign("c", name="a"), sign("u", name="user", text={"$ref": "c#/at"})),
                      moved={"b": "c", "user": "u"})  # fmt: skip
        await h.converged()
        assert signs.log == ["+a", "+user"]


async def test_failures_and_questions_go_along() -> None:
    signs = Signs()
    async with open_shop(signs) as h:
        await h.apply(nodes(sign("bad", fail=True), sign("door", gating="ALL"), sign("asks", plan="paint it")))
        door, asks = h.workitem("door"), h.workitem("asks")
        before = h.nodes["bad"]
        moved = {"bad": "worse", "door": "gate", "asks": "begs"}
        renamed = [sign("worse", name="bad", fail=True), sign("gate", name="door", gating="ALL")]
        await h.apply(nodes(*renamed, sign("begs", name="asks", plan="paint it")), moved=moved)
        # Then nothing is tried or asked anew
        after = h.nodes["worse"]
        assert (after.failures, after.error, after.next_try) == (before.failures, "no paint", before.next_try)
        assert [item.id for item in h.workitems] == [door.id, asks.id]
        assert {n: v.phase for n, v in h.nodes.items()} == {"worse": "backoff", "gate": "waiting", "begs": "waiting"}
        # And the answers count
        await h.decide(door.id, "done")
        await h.decide(asks.id, "approve")
        assert (h.nodes["gate"].phase, h.nodes["begs"].phase) == ("present", "present")
        assert len(h.all_workitems) == 2
        await h.advance("11m")
        assert h.nodes["worse"].failures == before.failures + 1
        assert signs.keys["worse"] == signs.keys["bad"], "another attempt of one intention has another key"


async def test_a_question_about_a_renamed_node_is_withdrawn_when_it_goes() -> None:
    async with open_shop() as h:
        await h.apply(nodes(sign("door", gating="ALL")))
        item = h.workitem("door")
        await h.apply(nodes(sign("gate", name="door", gating="ALL")), moved={"door": "gate"})
        await h.apply(nodes())
        assert (h.workitems, item.status) == ([], "OBSOLETE")


async def test_a_step_that_is_under_way_ends_under_the_new_name() -> None:
    signs = Signs()
    async with open_shop(signs) as h:
        await h.apply(nodes(sign("a")))
        signs.gate = asyncio.Event()
        edit = asyncio.create_task(h.apply(nodes(sign("a", text="new"), sign("top", "a"))))
        await eventually(lambda: h.nodes["a"].phase == "running")
        h._host.graph.declare("main", _declared(sign("b", name="a", text="new"), sign("top", "b")), moved=[("a", "b")])
        h._host._regraph()
        h._host.reconciler.finish(h.now, {})
        assert h.nodes["b"].phase == "running"
        signs.gate.set()
        await edit
        await h.converged()
        assert signs.log == ["+a", "+a", "+top"]


def _declared(*raw: dict[str, Any]) -> Any:
    return declarations(msgspec.json.decode(msgspec.json.encode(list(raw)), type=list[NodeDeclaration]))


async def test_wrong_renames_are_refused_with_their_place() -> None:
    async with open_shop() as h:
        await h.apply(nodes(sign("a"), sign("x")))
        await h.apply(nodes(sign("a"), sign("theirs")), name="other")
        await h.converged()
        b, x = sign("b", name="a"), sign("x")
        assert await refused(h, nodes(sign("a"), b, x), {"a": "b"}) == (
            "/moved/0/from", "'a' is still declared; a node has one name"
        )  # fmt: skip
        assert await refused(h, nodes(x), {"a": "b"}) == ("/moved/0/to", "'b' is not declared")
        assert "is declared by blueprint 'other' too" in (await refused(h, nodes(b, x), {"a": "b"}))[1]
        assert "would be a named" in (await refused(h, nodes(sign("y", type="named")), {"x": "y"}))[1]
        path, text = await refused(h, nodes(sign("a"), sign("theirs")), {"x": "theirs"})
        assert (path, "is there already" in text) == ("/moved/0/to", True)
        assert sorted(h.nodes) == ["a", "theirs", "x"]


async def test_who_still_names_the_old_name_is_told() -> None:
    async with open_shop() as h:
        await h.apply(nodes(sign("a")))
        await h.apply(nodes(sign("top", "a")), name="other")
        with pytest.raises(Dangling):
            await h.apply(nodes(sign("b", name="a")), moved={"a": "b"})


async def test_a_domain_that_finds_its_things_by_the_nodes_name_refuses() -> None:
    named = Named()
    async with open_shop(named=named) as h:
        await h.apply(nodes(sign("a", type="named"), sign("eye", type="blind")))
        await h.converged()
        path, text = await refused(h, nodes(sign("b", name="a", type="named"), sign("eye", type="blind")), {"a": "b"})
        assert (path, "there is one as 'a', and none as 'b'" in text) == ("/moved/0", True)
        assert (sorted(h.nodes), sorted(named.there)) == (["a", "eye"], ["a"])
        # Until somebody renames the thing itself
        named.there["b"] = named.there.pop("a")
        await h.apply(nodes(sign("b", name="a", type="named"), sign("eye", type="blind")), moved={"a": "b"})
        await h.converged()
        assert (named.log, sorted(h.nodes)) == (["+a"], ["b", "eye"])
        # And another thing of that name is not taken for it
        named.there["c"] = named.there["b"]
        assert "something else as 'c'" in (await refused(h, nodes(sign("c", name="a", type="named")), {"b": "c"}))[1]


async def test_an_old_name_may_be_given_to_something_new() -> None:
    signs = Signs()
    async with open_shop(signs) as h:
        await h.apply(nodes(sign("a")))
        await h.converged()
        await h.apply(nodes(sign("b", name="a")), moved={"a": "b"})
        await h.apply(nodes(sign("b", name="a"), sign("a", name="fresh")))
        await h.converged()
        assert (signs.log, sorted(signs.there)) == (["+a", "+a"], ["a", "fresh"])
