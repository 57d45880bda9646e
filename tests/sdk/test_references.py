"""References to what other nodes publish: in the harness, that is on the planner's own reconciler."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from holdfast_model.errors import Dangling, Invalid
from holdfast_model.events import Family
from holdfast_model.messages import Status
from holdfast_sdk import Absent, Context, Domain, Drifted, Node, PendingApproval, Present, State
from holdfast_sdk.testing import Harness, harness

cloud = Domain("cloud")


class Host(BaseModel, extra="forbid"):
    image: str = "plain"


class Site(BaseModel, extra="forbid"):
    address: str
    port: int = 80


class Cloud:
    """What there is; hosts get an address, and a new one whenever they are made anew."""

    def __init__(self) -> None:
        self.hosts: dict[str, dict[str, Any]] = {}
        self.sites: dict[str, Site] = {}
        self.log: list[str] = []
        self.seen: list[dict[str, object] | None] = []
        self.count = 0


class Hosts:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    async def observe(self, node: Node[Host], ctx: Context) -> State[BaseModel]:
        outputs = self.cloud.hosts.get(node.id)
        return Absent() if outputs is None else Present(outputs=dict(outputs))  # type: ignore[arg-type]

    async def provision(self, node: Node[Host], ctx: Context) -> dict[str, Any]:
        self.cloud.count += 1
        self.cloud.log.append(f"+{node.id}")
        self.cloud.hosts[node.id] = {"ip": f"10.0.0.{self.cloud.count}", "ports": [80, 443]}
        return dict(self.cloud.hosts[node.id])

    async def deprovision(self, node: Node[Host], ctx: Context) -> None:
        self.cloud.log.append(f"-{node.id}")
        self.cloud.hosts.pop(node.id, None)


class Sites:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    async def observe(self, node: Node[Site], ctx: Context) -> State[BaseModel]:
        there = self.cloud.sites.get(node.id)
        if there is None:
            return Absent()
        return Present() if there == node.spec else Drifted("changed", token=there.address)

    async def provision(self, node: Node[Site], ctx: Context) -> None:
        plan = f"point {node.id} to {node.spec.address}"
        if node.id.startswith("asks") and (ctx.approval is None or ctx.approval.plan != plan):
            raise PendingApproval(plan)
        self.cloud.log.append(f"+{node.id} {node.spec.address}:{node.spec.port}")
        self.cloud.seen.append(ctx.refs)
        self.cloud.sites[node.id] = node.spec

    async def deprovision(self, node: Node[Site], ctx: Context) -> None:
        self.cloud.log.append(f"-{node.id} {node.spec.address}")
        self.cloud.sites.pop(node.id, None)


cloud.node_type("host", resync="1m")(Hosts)
cloud.node_type("site", resync="1m")(Sites)

WEB = {"id": "web", "type": "host"}


def site(id: str = "site", address: Any = None, **more: Any) -> dict[str, Any]:
    spec = {"address": {"$ref": "web#/ip"} if address is None else address, **more.pop("spec", {})}
    return {"id": id, "type": "site", "spec": spec, **more}


def faults_of(h: Harness) -> list[str]:
    return [f"{f.node} {f.type} {f.reason}" for f in h.faults]


async def test_a_step_gets_the_value_that_the_other_node_published() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        # Given a raw graph that names no edge but refers to another node's outputs, in two places
        await h.apply({"nodes": [site(spec={"port": {"$ref": "web#/ports/1"}}), WEB]})
        await h.converged()
        # Then the reference made the edge, and the handler saw values only
        assert there.log == ["+web", "+site 10.0.0.1:443"]
        assert there.seen == [{"web#/ip": "10.0.0.1", "web#/ports/1": 443}]
        assert h.nodes["site"].spec == {"address": "10.0.0.1", "port": 443}


async def test_a_changed_output_has_its_users_made_anew_without_a_fault() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site(), site("fixed", "10.9.9.9", depends_on=["web"])]})
        await h.converged()
        there.log.clear()
        # When an observation finds other outputs
        there.hosts["web"] = {"ip": "10.0.0.77"}
        await h.wake("web")
        await h.converged()
        # Then who refers to them is made anew, and nobody else
        assert there.log == ["+site 10.0.0.77:80"]
        assert faults_of(h) == []
        # And the same when the other node is made anew
        await h.apply({"nodes": [{**WEB, "spec": {"image": "new"}}, site(), site("fixed", "10.9.9.9")]})
        await h.converged()
        assert there.log == ["+site 10.0.0.77:80", "+web", "+site 10.0.0.2:80"]
        assert faults_of(h) == []


async def test_an_unchanged_output_of_a_node_that_was_made_anew_leaves_its_users_alone() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site(address={"$ref": "web#/name"})]})
        there.hosts["web"] = {"name": "web.example", "ip": "1"}
        await h.wake("web")
        await h.converged()
        there.hosts["web"] = {"name": "web.example", "ip": "2"}
        await h.wake("web")
        await h.converged()
        assert there.log == ["+web", "+site web.example:80"]


async def test_a_missing_pointer_blocks_with_that_reason_until_it_is_published() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site(address={"$ref": "web#/name"})]})
        await h.advance("10s")
        node = h.nodes["site"]
        assert (node.phase, node.blocked_by, node.status) == ("blocked", "web", None)
        with pytest.raises(AssertionError, match="web publishes nothing at /name"):
            await h.converged("5m")
        assert faults_of(h) == []
        there.hosts["web"]["name"] = "web.example"
        await h.converged()
        assert there.log == ["+web", "+site web.example:80"]


async def test_a_value_that_goes_blocks_its_user_and_leaves_what_is_there() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site()]})
        await h.converged()
        there.hosts["web"] = {}
        await h.wake("web")
        assert h.nodes["site"].phase == "blocked"
        assert there.sites["site"].address == "10.0.0.1"
        # The same value again: it is as it was, with no step
        there.hosts["web"] = {"ip": "10.0.0.1"}
        await h.converged()
        assert there.log == ["+web", "+site 10.0.0.1:80"]


async def test_a_node_that_is_gone_for_a_while_disturbs_no_user_who_has_its_value() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site()]})
        await h.converged()
        del there.hosts["web"]
        there.count = 0  # it will come back with the same address
        await h.wake("web")
        await h.converged()
        assert there.log == ["+web", "+site 10.0.0.1:80", "+web"]


async def test_a_removal_knows_the_values_even_of_a_node_that_has_gone() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site()]})
        await h.converged()
        await h.delete()
        await h.converged()
        assert there.log[2:] == ["-site 10.0.0.1", "-web"]


async def test_a_removal_of_what_has_lost_its_value_goes_by_what_was_known_last() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site()]})
        await h.converged()
        there.hosts["web"] = {}
        await h.wake("web")
        await h.apply({"nodes": [WEB]})
        await h.converged()
        assert there.log[2:] == ["-site 10.0.0.1"]


async def test_what_was_never_known_is_forgotten_without_a_step() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site(address={"$ref": "web#/name"})]})
        await h.advance("10s")
        await h.apply({"nodes": [WEB]})
        await h.converged()
        assert there.log == ["+web"]
        assert h.removed == []


async def test_an_approval_is_for_the_values_it_was_given_for() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site("asks")]})
        await h.advance("1s")
        first = h.workitem("asks")
        assert first.payload["plan"] == "point asks to 10.0.0.1"
        # When the value changes before anybody has decided
        there.hosts["web"] = {"ip": "10.0.0.9"}
        await h.wake("web")
        # Then the old question is obsolete, and the answer to the new one counts
        assert first.status == "OBSOLETE"
        second = h.workitem("asks")
        assert second.payload["plan"] == "point asks to 10.0.0.9"
        await h.pause()
        await h.decide(second.id, "approve")
        # And approved, but changed before the step: asked again
        there.hosts["web"] = {"ip": "10.0.0.10"}
        await h.wake("web")
        await h.resume()
        assert there.sites == {}
        await h.decide(h.workitem("asks").id, "approve")
        await h.converged()
        assert there.log == ["+web", "+asks 10.0.0.10:80"]


async def test_a_person_is_asked_about_values() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site(gating="PROVISION_ONLY")]})
        await h.advance("1s")
        assert h.workitem("site").payload["spec"] == {"address": "10.0.0.1"}
        await h.decide("site")
        assert h.nodes["site"].status is Status.PRESENT
        there.hosts["web"] = {"ip": "10.0.0.2"}
        await h.wake("web")
        await h.advance("1s")
        assert h.workitem("site").payload["spec"] == {"address": "10.0.0.2"}


async def test_the_fault_of_an_older_value_is_over_when_the_value_changes() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site(spec={"port": {"$ref": "web#/ip"}})]})  # no number: it cannot work
        await h.advance("1s")
        (fault,) = h.faults
        assert fault.node == "site"
        there.hosts["web"] = {"ip": 8080}
        await h.wake("web")
        told = [e for e in h.events if e.family is Family.NODE and e.name == "recovered"]
        assert [e.data["episode"] for e in told][:1] == [fault.episode]


@pytest.mark.parametrize(
    ("address", "place"),
    [({"$ref": "nobody#/ip"}, "/nodes/1/spec/address"), ({"$ref": "web"}, "/nodes/1/spec/address"),
     ({"$ref": "#/ip"}, "/nodes/1/spec/address"), ({"deep": [{"$ref": "nobody#"}]}, "/nodes/1/spec/address/deep/0")],
)  # fmt: skip
async def test_a_reference_that_leads_nowhere_is_refused_with_its_place(address: Any, place: str) -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        with pytest.raises(Invalid) as refused:
            await h.apply({"nodes": [WEB, site(address=address)]})
        assert [p.path for p in refused.value.problems] == [place]
        assert h.nodes == {}


async def test_what_others_refer_to_cannot_be_left_out() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB]}, name="base")
        await h.apply({"nodes": [site()]}, name="sites")
        await h.converged()
        with pytest.raises(Dangling) as refused:
            await h.apply({"nodes": [{**WEB, "id": "other"}]}, name="base")
        assert "'web'" in refused.value.message
        # A deletion is meant: it takes the edge along, and the last value stays
        await h.delete("base")
        await h.converged()
        assert there.log == ["+web", "+site 10.0.0.1:80", "-web"]


async def test_a_plain_value_in_place_of_a_reference_and_back_needs_no_step_if_it_is_the_same() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site()]})
        await h.converged()
        for address in ("10.0.0.1", None):
            await h.apply({"nodes": [WEB, site(address=address)]})
            await h.converged()
        assert there.log == ["+web", "+site 10.0.0.1:80"]


async def test_true_is_another_value_than_one() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        await h.apply({"nodes": [WEB, site(address="a", spec={"port": {"$ref": "web#/n"}})]})
        there.hosts["web"] = {"n": 1, "other": 1}
        await h.wake("web")
        await h.converged()
        there.hosts["web"] = {"n": True, "other": 2}
        await h.wake("web")
        assert h.nodes["site"].spec["port"] is True


async def test_a_change_costs_its_users_and_nobody_else() -> None:
    there = Cloud()
    async with harness(cloud, Hosts(there), Sites(there)) as h:
        many = [site(f"s{i}", "10.1.1.1", depends_on=["web"]) for i in range(500)]
        await h.apply({"nodes": [WEB, *many, site()]})
        await h.converged()
        core = h._host.reconciler.core
        h._host.reconciler.on_wake(h.now, [])
        there.hosts["web"] = {"ip": "10.0.0.5"}
        unit = core.units["web"]
        core.change(unit, outputs={"ip": "10.0.0.5"})
        assert [u.id for u in core.to_resolve] == ["site"]
