"""What is there though nobody desires it: found, told, and removed only where its type says so."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from holdfast_model.errors import Invalid
from holdfast_sdk import Absent, Context, Domain, Found, Node, Present, State, Temporary
from holdfast_sdk.testing import Harness, harness


class Plot(msgspec.Struct, forbid_unknown_fields=True):
    size: int


class Land:
    """``there``: plots by id; ``searches`` counts; ``closed``: a search fails; ``stuck``: a removal has no effect."""

    def __init__(self, **there: int) -> None:
        self.there = dict(there)
        self.searches = 0
        self.closed = False
        self.stuck = False
        self.removed: list[str] = []
        self.made: list[str] = []

    async def observe(self, node: Node[Plot], ctx: Context) -> State[dict[str, Any]]:
        return Present() if self.there.get(node.id) == node.spec.size else Absent()

    async def provision(self, node: Node[Plot], ctx: Context) -> None:
        self.made.append(node.id)
        self.there[node.id] = node.spec.size

    async def deprovision(self, node: Node[Plot], ctx: Context) -> None:
        if self.stuck:
            raise Temporary("it does not go", retry_after=5)
        self.removed.append(node.id)
        self.there.pop(node.id, None)

    async def discover(self, ctx: Context) -> list[str | Found]:
        self.searches += 1
        if self.closed:
            raise Temporary("the office is closed")
        return [Found(id, Plot(size)) if size else id for id, size in self.there.items()]


class Tree(Land):
    async def discover(self, ctx: Context) -> list[str | Found]:
        return []


def country(adopt: Literal["report", "remove"] = "report") -> Domain:
    land = Domain("land")
    land.node_type("plot", resync="5m", adopt_orphans=adopt)(Land)
    land.node_type("tree", resync="1h")(Tree)
    return land


def plots(**sizes: int) -> dict[str, Any]:
    return {"nodes": [{"id": id, "type": "plot", "spec": {"size": size}} for id, size in sizes.items()]}


def told(h: Harness) -> list[tuple[str, str]]:
    return [(e.node, str(e.data["nodeType"])) for e in h.events if e.name == "leftover"]


async def test_leftovers_are_told_once_and_left_alone() -> None:
    land = Land(stray=3, mine=1)
    async with harness(country(), land, Tree()) as h:
        await h.apply(plots(mine=1))
        await h.converged()
        assert told(h) == [("stray", "plot")]
        await h.advance("1h")
        assert told(h) == [("stray", "plot")]
        assert [(one.id, one.type, one.spec) for one in h.leftovers] == [("stray", "plot", '{"size":3}')]
        assert (land.there, land.removed, h.faults) == ({"stray": 3, "mine": 1}, [], [])
        assert 12 <= land.searches <= 14


async def test_they_are_found_where_nothing_of_their_type_is_desired_at_little_cost() -> None:
    # Given a graph that has nothing to do with the domain
    land = Land(stray=3)
    async with harness(country("remove"), land, Tree()) as h:
        await h.apply({"nodes": []})
        assert told(h) == [("stray", "plot")]
        # Then it asks rarely, and never removes
        await h.advance("5h")
        assert 5 <= land.searches <= 7
        assert land.there == {"stray": 3}
        # But on request it asks at once
        land.there["other"] = 1
        await h.reconcile()
        assert [one.id for one in h.leftovers] == ["other", "stray"]


async def test_what_goes_by_itself_is_left_over_no_more() -> None:
    land = Land(stray=3)
    async with harness(country(), land, Tree()) as h:
        await h.apply(plots(mine=1))
        del land.there["stray"]
        await h.advance("6m")
        assert h.leftovers == []
        land.there["stray"] = 3
        await h.advance("6m")
        assert told(h) == [("stray", "plot")] * 2


async def test_leftovers_that_are_declared_are_taken_on_without_a_step() -> None:
    land = Land(stray=3)
    async with harness(country(), land, Tree()) as h:
        await h.apply(plots(mine=1))
        await h.apply(plots(mine=1, stray=3))
        await h.converged()
        assert (h.leftovers, land.made) == ([], ["mine"])


async def test_a_type_that_says_so_has_them_removed_once_they_were_found_twice() -> None:
    land = Land(stray=3, nameless=0)
    async with harness(country("remove"), land, Tree()) as h:
        await h.apply(plots(mine=1))
        await h.advance("5s")
        assert land.removed == []
        await h.advance("10s")
        assert sorted(land.removed) == ["nameless", "stray"]
        assert (land.there, h.removed, h.leftovers) == ({"mine": 1}, [], [])
        await h.converged()


async def test_what_is_found_once_only_is_never_removed() -> None:
    land = Land(passing=3)
    async with harness(country("remove"), land, Tree()) as h:
        await h.apply(plots(mine=1))
        del land.there["passing"]
        await h.advance("1m")
        land.there["passing"] = 3
        assert land.removed == []


async def test_a_graph_that_only_observes_or_is_paused_removes_nothing() -> None:
    land = Land(stray=3)
    async with harness(country("remove"), land, Tree()) as h:
        await h.pause()
        await h.apply(plots(mine=1))
        await h.advance("1h")
        assert (land.there, h.removed) == ({"stray": 3}, [])
        await h.resume()
        await h.advance("6m")
        assert land.there == {"mine": 1}


async def test_a_search_that_fails_says_nothing() -> None:
    land = Land(stray=3)
    land.stuck = True
    async with harness(country("remove"), land, Tree()) as h:
        # Given one leftover that is to be removed and does not go
        await h.apply(plots(mine=1))
        await h.advance("15s")
        assert h.removed == ["stray"]
        # When searches fail, it stays to be removed, and others stay as they were told
        land.closed = True
        land.there["later"] = 1
        await h.advance("10m")
        assert (h.removed, h.leftovers, told(h)) == (["stray"], [], [("stray", "plot")])
        # Until they work again
        land.closed, land.stuck = False, False
        await h.advance("40m")
        assert (h.removed, land.there) == ([], {"mine": 1})


async def test_what_the_graph_is_about_to_remove_is_no_leftover() -> None:
    land = Land()
    async with harness(country(), land, Tree()) as h:
        await h.apply(plots(mine=1, other=2))
        await h.converged()
        land.stuck = True
        await h.apply(plots(mine=1))
        await h.advance("20m")
        assert (h.removed, told(h)) == (["other"], [])
        land.stuck = False
        await h.advance("40m")
        assert (land.there, h.leftovers) == ({"mine": 1}, [])


async def test_a_node_of_another_type_is_nobodys_leftover() -> None:
    land = Land(oak=3)
    async with harness(country(), land, Tree()) as h:
        await h.apply({"nodes": [{"id": "oak", "type": "tree", "spec": {"size": 1}}]})
        await h.advance("1h")
        assert h.leftovers == []


async def test_a_deleted_graph_looks_for_nothing() -> None:
    land = Land(mine=1)
    async with harness(country(), land, Tree()) as h:
        await h.apply(plots(mine=1))
        h._host.reconciler.deleting = True
        await h.delete()
        await h.converged()
        searches = land.searches
        h._host.reconciler.deleted = True
        land.there["stray"] = 1
        await h.advance("5h")
        assert (land.searches, h.leftovers) == (searches, [])


async def test_the_manifest_refuses_a_scope_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="galaxy"):
        Domain("land").node_type("plot", scope="galaxy")(Land)  # type: ignore[arg-type]


class Estate:
    """One handler of two types: what differs is the type that is asked about."""

    def __init__(self) -> None:
        self.searches: list[str] = []
        self.removed: list[str] = []

    async def observe(self, node: Node[Plot], ctx: Context) -> State[dict[str, Any]]:
        return Absent() if node.id in self.removed else Present()

    async def deprovision(self, node: Node[Plot], ctx: Context) -> None:
        self.removed.append(node.id)

    async def discover(self, ctx: Context) -> list[str | Found]:
        self.searches.append(ctx.type)
        if ctx.type == "garden":
            return []
        left = [Found("barn", Plot(1), ["yard"], "DEPROVISION_ONLY"), "yard"]
        return [one for one in left if (one if isinstance(one, str) else one.id) not in self.removed]


def estate(adopt: Literal["report", "remove"]) -> Domain:
    domain = Domain("estate")
    for name, search in (("house", "1h"), ("garden", None)):
        domain.node_type(name, resync="5m", search=search, adopt_orphans=adopt)(Estate)
    return domain


async def test_a_handler_of_several_types_knows_which_one_is_searched_for_and_how_often_is_its_own() -> None:
    handler = Estate()
    async with harness(estate("report"), handler) as h:
        await h.apply({"nodes": [{"id": "mine", "type": "garden", "spec": {"size": 1}}]})
        before = len(handler.searches)
        await h.advance("3h")
        later = handler.searches[before:]
        assert 34 <= later.count("garden") <= 37
        assert later.count("house") <= 5
        assert set(later) == {"house", "garden"}


async def test_a_leftover_whose_removal_is_gated_is_removed_after_a_person_agreed() -> None:
    handler = Estate()
    async with harness(estate("remove"), handler) as h:
        await h.apply({"nodes": [{"id": "mine", "type": "garden", "spec": {"size": 1}}]})
        await h.advance("1m")
        assert handler.removed == ["yard"]
        (item,) = h.workitems
        assert item.node == "barn"
        await h.reject(item.id)
        await h.advance("2h")
        assert handler.removed == ["yard"]


def test_a_search_more_often_than_every_second_is_refused() -> None:
    domain = Domain("estate")
    domain.node_type("house", search=0.5)(Estate)
    with pytest.raises(Invalid) as refused:
        domain.manifest()
    assert [p.path for p in refused.value.problems] == ["/types/0/search"]


async def test_gating_that_does_not_exist_fails_the_search_instead_of_removing() -> None:
    class Careless(Estate):
        async def discover(self, ctx: Context) -> list[str | Found]:
            return [Found("barn", gating="NEVER")]

    domain = Domain("estate")
    domain.node_type("house", resync="5m", adopt_orphans="remove")(Careless)
    handler = Careless()
    async with harness(domain, handler) as h:
        await h.apply({"nodes": [{"id": "mine", "type": "house", "spec": {"size": 1}}]})
        await h.advance("1h")
        assert (handler.removed, h.leftovers) == ([], [])
