"""The store's promises, over Redis and over its twin."""

from __future__ import annotations

import asyncio

import pytest

from holdfast_model.errors import Forbidden, IllegalState, NotFound, Stale
from holdfast_model.work_items import CreateReply, EscalateTo, Priority, Verb, WorkItem, WorkItemStatus
from holdfast_model.work_items_change import Change, Draft, WrongState
from holdfast_model.work_items_create import Defaults
from holdfast_model.work_items_deadlines import breach
from holdfast_model.work_items_lifecycle import refusal
from holdfast_model.work_items_queries import AuditQuery, ListWorkItems
from holdfast_store.work_item_queries import WorkItemQueries
from holdfast_store.work_items import WorkItemStore

from .building import after, person
from .conftest import Client
from .storing import act, due, make, names, tick

S = WorkItemStatus
REF = "desiredstate:acme:n1:provision"


# One active item for a callerRef, one item for a request.


async def test_racing_requests_for_one_reference_make_one_item(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(8)]

    replies = await asyncio.gather(*(make(stores[n % 8], caller_ref=REF, request=f"r{n}") for n in range(24)))

    assert sum(r.created for r in replies) == 1
    assert len({r.item.id for r in replies}) == 1
    assert await names(stores[0]) == ["created"]


async def test_racing_replacements_leave_exactly_one_active(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(4)]

    replies = await asyncio.gather(*(make(stores[n], caller_ref=REF, request=f"r{n}", replace=True) for n in range(4)))

    items = [await stores[0].find("acme", id=r.item.id) for r in replies]
    active = [i for i in items if i is not None and i.status.active]
    assert len({r.item.id for r in replies}) == 4
    assert len(active) == 1
    assert active[0] == await stores[0].find_active("acme", REF)
    assert sorted(await names(stores[0])) == ["created"] * 4 + ["obsolete"] * 3


async def test_racing_repeats_of_one_request_make_one_item(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(8)]

    replies = await asyncio.gather(*(make(s, request="g1", caller_ref=REF, replace=True) for s in stores))

    assert sum(r.created for r in replies) == 1
    assert len({r.item.id for r in replies}) == 1


@pytest.mark.parametrize("verb", [None, Verb.CLAIM, Verb.COMPLETE, Verb.CANCEL, Verb.OBSOLETE])
async def test_a_request_key_returns_its_item_in_any_status(store: WorkItemStore, verb: Verb | None) -> None:
    item = (await make(store, request="g1", caller_ref=REF)).item
    if verb is not None:
        item = await act(store, verb, item, "ann")

    again = await make(store, request="g1", caller_ref=REF, replace=True)

    assert again == CreateReply(item, False)
    assert await store.find("acme", request="g1") == item


async def test_an_ended_item_never_blocks_its_reference(store: WorkItemStore) -> None:
    first = (await make(store, caller_ref=REF)).item
    assert (await make(store, caller_ref=REF)).item == first
    await act(store, Verb.COMPLETE, first, "ann")
    assert await store.find_active("acme", REF) is None

    second = await make(store, caller_ref=REF)

    assert second.created
    assert await store.find_active("acme", REF) == second.item
    assert await store.find("acme", caller_ref=REF) == second.item


async def test_a_replaced_item_is_obsolete_in_the_same_transaction(store: WorkItemStore) -> None:
    first = (await make(store, caller_ref=REF, request="a")).item
    first = await act(store, Verb.CLAIM, first, "ann")

    second = await make(store, caller_ref=REF, request="b", replace=True)

    old = await store.find("acme", request="a")
    assert old is not None
    assert (old.status, old.version) == (S.OBSOLETE, first.version + 1)
    assert await store.find_active("acme", REF) == second.item
    assert (await names(store))[-2:] == ["obsolete", "created"]


async def test_a_request_withdrawn_before_it_came_makes_no_item(store: WorkItemStore) -> None:
    assert await store.withdraw("acme", "g1")
    with pytest.raises(IllegalState, match="withdrawn"):
        await make(store, caller_ref=REF, request="g1")
    assert await store.find_active("acme", REF) is None
    assert (await make(store, caller_ref=REF, request="g2")).created
    assert not await store.withdraw("acme", "g2")


async def test_a_withdrawal_racing_its_request_leaves_no_orphan(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(2)]
    for n in range(20):
        made, withdrawn = await asyncio.gather(
            make(stores[0], request=f"g{n}"), stores[1].withdraw("acme", f"g{n}"), return_exceptions=True
        )
        assert isinstance(made, IllegalState) is withdrawn


async def test_items_without_a_reference_do_not_meet(store: WorkItemStore) -> None:
    replies = [await make(store), await make(store)]
    assert all(r.created for r in replies)


# Changing.


async def test_of_two_racing_claims_one_wins_and_one_conflicts(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(2)]
    for _ in range(10):
        item = (await make(stores[0])).item

        results = await asyncio.gather(
            act(stores[0], Verb.CLAIM, item, "ann"), act(stores[1], Verb.CLAIM, item, "bob"),
            return_exceptions=True,
        )  # fmt: skip

        won = [r for r in results if isinstance(r, WorkItem)]
        lost = [r for r in results if isinstance(r, WrongState)]
        assert (len(won), len(lost)) == (1, 1)
        assert lost[0].current == won[0]


async def test_a_claim_racing_a_replacement_is_never_lost_in_between(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(2)]
    for n in range(10):
        item = (await make(stores[0], caller_ref=f"x:{n}")).item

        claimed, replaced = await asyncio.gather(
            act(stores[0], Verb.CLAIM, item, "ann"),
            make(stores[1], caller_ref=f"x:{n}", request=f"r{n}", replace=True),
            return_exceptions=True,
        )

        old = await stores[0].find("acme", id=item.id)
        assert isinstance(replaced, CreateReply)
        assert replaced.created
        assert old is not None
        assert old.status is S.OBSOLETE
        assert old.version == (2 if isinstance(claimed, WrongState) else 3)


async def test_versions_grow_by_one_and_a_stale_one_is_refused(store: WorkItemStore) -> None:
    item = (await make(store)).item
    claimed = await act(store, Verb.CLAIM, item, "ann", version=1)
    assert (item.version, claimed.version) == (1, 2)

    with pytest.raises(Stale) as caught:
        await act(store, Verb.START, item, "ann", version=1)
    assert caught.value.current == claimed


async def test_what_is_not_there_is_not_found(store: WorkItemStore) -> None:
    item = (await make(store)).item
    with pytest.raises(NotFound):
        await store.change("acme", "item99999999", lambda i: pytest.fail("decided on nothing"))
    with pytest.raises(NotFound):
        await store.change("other", item.id, lambda i: pytest.fail("another tenant's"))


async def test_history_and_events_are_written_with_the_change(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    item = (await make(store, graph="shop")).item
    await act(store, Verb.COMPLETE, item, "ann", outcome="ok")
    await act(store, Verb.NOTE, item, "bob", note="good")

    events = [e for _, e in await store.outbox("acme")]
    audit = await queries.audit(AuditQuery(tenant="acme", id=item.id))

    assert [e.name for e in events] == ["created", "assigned", "started", "completed"]
    assert {(e.graph, e.node) for e in events} == {("shop", item.id)}
    assert [a.event for a in audit.entries] == ["CREATED", "ASSIGNED", "STARTED", "COMPLETED", "NOTE"]


async def test_a_refusal_outlives_the_failed_command(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    item = (await make(store, candidate_users=("ann",))).item
    with pytest.raises(Forbidden) as caught:
        await act(store, Verb.CLAIM, item, "eve")
    entry = refusal("claim", item.id, "eve", caught.value, after())
    assert entry is not None
    await store.refuse("acme", entry)

    mine = await queries.audit(AuditQuery(tenant="acme", id=item.id, event="CLAIM_DENIED"))
    all_of_eve = await queries.audit(AuditQuery(tenant="acme", actor="eve"))
    assert mine.entries == all_of_eve.entries == (entry,)


# Deadlines.

DAY = Defaults(expiry=86_400, claim=3600)


async def test_a_passed_deadline_is_carried_out_once_by_racing_sweepers(client: Client) -> None:
    stores = [WorkItemStore(client()) for _ in range(4)]
    item = (await make(stores[0], defaults=DAY)).item
    assert await due(stores[0], after(minutes=59)) == []
    assert await due(stores[0], after(minutes=60)) == [item.id]

    done = await asyncio.gather(*(tick(s, item, after(hours=1)) for s in stores))

    assert sum(change is not None for change in done) == 1
    assert (await names(stores[0])) == ["created", "claim_expired", "expired"]
    assert await due(stores[0], after(days=9)) == []


async def test_the_schedule_follows_the_item(store: WorkItemStore) -> None:
    item = (await make(store, defaults=DAY)).item
    await act(store, Verb.CLAIM, item, "ann")
    assert await due(store, after(hours=2)) == []
    assert await due(store, after(days=1)) == [item.id]
    await act(store, Verb.SUSPEND, item, "ann")
    assert await due(store, after(days=9)) == []
    await act(store, Verb.RESUME, item, "ann", after(days=3))
    assert await due(store, after(days=3)) == []
    assert await due(store, after(days=4)) == [item.id]
    await act(store, Verb.COMPLETE, item, "ann")
    assert await due(store, after(days=9)) == []


async def test_a_wrong_entry_of_the_schedule_is_put_right(client: Client) -> None:
    kv = client()
    store = WorkItemStore(kv)
    item = (await make(store, defaults=DAY)).item
    gone = item.id + "x"
    await kv.run(("ZADD", "hf:wi:{acme}:due", 5, item.id), ("ZADD", "hf:wi:{acme}:due", 5, gone))

    for id in await due(store, after()):
        assert await store.tick("acme", id, after(), lambda i: breach(i, after())) is None

    assert await due(store, after()) == []
    assert await due(store, after(hours=1)) == [item.id]


async def test_a_deadline_that_cannot_be_carried_out_is_looked_at_again_later(store: WorkItemStore) -> None:
    item = (await make(store, defaults=DAY)).item

    def spoil(i: WorkItem) -> Change:
        draft = Draft(i, "test", after())
        draft.step("signal_received", on_claim_expiry=EscalateTo(()))
        return draft.change()

    await store.change("acme", item.id, spoil)

    change = await tick(store, item, after(hours=1))

    assert change is not None
    assert [a.event for a in change.audit] == ["BREACH_POLICY_MISCONFIGURED"]
    assert await due(store, after(hours=1)) == []
    assert await due(store, after(hours=2)) == [item.id]
    assert change.item.status is S.PENDING


# Tenants, names, lists.


async def test_tenants_share_nothing(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    mine = (await make(store, tenant="acme", caller_ref=REF, request="g1", defaults=DAY)).item
    theirs = await make(store, tenant="evil", caller_ref=REF, request="g1", defaults=DAY)

    assert theirs.created
    assert await store.find("evil", id=mine.id) is None
    assert await store.tenants() == ["acme", "evil"]
    assert await due(store, after(days=2), "evil") == [theirs.item.id]
    for tenant in ("acme", "evil"):
        page = await queries.page(ListWorkItems(tenant=tenant))
        assert [i.tenancy_id for i in page.items] == [tenant]
        inbox = await queries.inbox(ListWorkItems(tenant=tenant), person("ann"))
        assert [i.tenancy_id for i in inbox.items] == [tenant]
        assert await names(store, tenant) == ["created"]
        assert len((await queries.audit(AuditQuery(tenant=tenant))).entries) == 1


async def test_bob_is_not_bobby(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    await make(store, title="bobby's", candidate_users=("bobby",))
    await make(store, title="bob's", candidate_users=("bob",))
    await make(store, title="admins'", candidate_groups=("admins",))
    await make(store, title="held by bobby", assignee_id="bobby", candidate_users=("bobby",))

    async def inbox(name: str, *groups: str) -> set[str]:
        page = await queries.inbox(ListWorkItems(tenant="acme"), person(name, *groups))
        return {i.title for i in page.items}

    assert await inbox("bob", "admin") == {"bob's"}
    assert await inbox("bobby", "admins") == {"bobby's", "admins'", "held by bobby"}
    page = await queries.page(ListWorkItems(tenant="acme", assignee_id="bob"))
    assert page.total == 0


async def test_an_inbox_holds_what_one_may_take_or_holds(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    await make(store, title="anybody's", excluded_users=("eve",))
    done = (await make(store, title="done", candidate_users=("ann",))).item
    await act(store, Verb.COMPLETE, done, "ann")

    async def inbox(name: str, **fields: object) -> list[str]:
        page = await queries.inbox(ListWorkItems(tenant="acme", **fields), person(name))  # type: ignore[arg-type]
        return [i.title for i in page.items]

    assert await inbox("ann") == ["anybody's"]
    assert await inbox("eve") == []
    assert await inbox("ann", status=(S.COMPLETED,)) == ["done"]


async def test_lists_are_sorted_by_priority_then_deadline_and_filtered(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    await make(store, title="low", priority=Priority.LOW, types=("review/ai",))
    await make(store, title="soon", expires_at=after(hours=1), graph="shop", types=("reviews",))
    await make(store, title="later", expires_at=after(hours=2), types=("review",))
    await make(store, title="urgent", priority=Priority.URGENT)
    ended = (await make(store, title="ended", graph="shop")).item
    await act(store, Verb.COMPLETE, ended, "ann", outcome="ok")

    async def titles(**fields: object) -> list[str]:
        page = await queries.page(ListWorkItems(tenant="acme", **fields))  # type: ignore[arg-type]
        assert page.total >= len(page.items)
        return [i.title for i in page.items]

    assert await titles() == ["urgent", "soon", "later", "low", "ended"]
    assert await titles(offset=1, limit=2) == ["soon", "later"]
    assert await titles(graph="shop") == ["soon", "ended"]
    assert await titles(graph="") == ["urgent", "later", "low"]
    assert await titles(graph="shop", status=(S.COMPLETED,)) == ["ended"]
    assert await titles(types=("review",)) == ["later", "low"]
    assert await titles(priority=Priority.LOW) == ["low"]
    assert await titles(outcome="ok") == ["ended"]
    assert await titles(assignee_id="ann") == ["ended"]


async def test_a_summary_counts_statuses_priorities_and_overdue_items(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    await make(store, expires_at=after(hours=1))
    await act(store, Verb.CLAIM, (await make(store, candidate_users=("ann",))).item, "ann")
    await act(store, Verb.CANCEL, (await make(store)).item, "ann")

    everything = await queries.summary(ListWorkItems(tenant="acme"), None, after(hours=2))
    bobs = await queries.summary(ListWorkItems(tenant="acme"), person("bob"), after())

    assert (everything.total, everything.active, everything.overdue) == (3, 2, 1)
    assert everything.by_status == {"PENDING": 1, "ASSIGNED": 1, "CANCELLED": 1}
    assert everything.by_priority == {"MEDIUM": 2}
    assert (bobs.total, bobs.overdue) == (1, 0)


async def test_history_comes_in_pages(client: Client) -> None:
    store, queries = WorkItemStore(client()), WorkItemQueries(client())
    item = (await make(store)).item
    for n in range(7):
        await act(store, Verb.NOTE, item, "ann", note=str(n))

    seen, after_entry, pages = [], "", 0
    while pages == 0 or after_entry:
        page = await queries.audit(AuditQuery(tenant="acme", id=item.id, event="NOTE", limit=3, after=after_entry))
        seen += [e.detail for e in page.entries]
        after_entry, pages = page.next, pages + 1

    assert seen == list("0123456")
    assert pages == 3


# Outbox.


async def test_events_stay_until_the_bus_has_them(store: WorkItemStore) -> None:
    await make(store)
    await make(store)
    (first, _), (second, _) = await store.outbox("acme")
    assert await store.waiting(["acme", "evil"]) == ["acme"]

    await store.published("acme", [first])
    assert [id for id, _ in await store.outbox("acme")] == [second]
    await store.published("acme", [second])

    assert await store.waiting(["acme", "evil"]) == []


async def test_one_replica_relays_at_a_time(client: Client) -> None:
    one, two = WorkItemStore(client()), WorkItemStore(client())
    assert await one.take_relay("acme", "one", 5)
    assert await one.take_relay("acme", "one", 5)
    assert not await two.take_relay("acme", "two", 5)
    await two.leave_relay("acme", "two")
    assert not await two.take_relay("acme", "two", 5)
    await one.leave_relay("acme", "one")
    assert await two.take_relay("acme", "two", 5)
