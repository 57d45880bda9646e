from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from pydantic import BaseModel

from holdfast_model.errors import Invalid
from holdfast_model.manifest import Backoff, Ladder, Manifest, NodeType, Rung, check_manifest
from holdfast_sdk import PENDING, Changed, Context, Domain, Node, Ref, Review, Reviewed, State
from holdfast_sdk.domain import parse_rate

from .example_domain import Record, Zone, dns


class Spec(msgspec.Struct):
    size: int


class AliasStruct(msgspec.Struct):
    target: str | Ref


class Full:
    async def observe_many(self, nodes: Sequence[Node[Spec]], ctx: Context) -> Mapping[str, State[dict[str, Any]]]:
        return {}

    async def provision(self, node: Node[Spec], ctx: Context) -> None: ...
    async def discover(self, ctx: Context) -> list[str]:
        return []

    async def watch(self) -> AsyncIterator[Changed]:
        yield Changed("t", "g", "n")


def type_of(cls: type[Any], **options: Any) -> NodeType:
    domain = Domain("d")
    domain.node_type("thing", **options)(cls)
    return domain.manifest().types[0]


def test_the_manifest_says_what_the_decorators_say() -> None:
    manifest = dns.manifest()
    assert (manifest.domain, manifest.version, manifest.reviews, manifest.evaluates) == ("dns", "1.0", False, False)
    (record,) = manifest.types
    assert (record.name, record.resync, record.timeout, record.rate, record.observes) == (
        "dns-record", 300, 20, 50, True,
    )  # fmt: skip
    assert manifest.blueprint_schema is not None
    assert manifest.blueprint_schema["additionalProperties"] is False


def test_the_manifest_travels_as_json() -> None:
    manifest = dns.manifest()
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


def test_the_spec_schema_accepts_specs_and_references() -> None:
    class Alias(BaseModel, extra="forbid"):
        target: str | Ref

    for schema in (type_of(Full, spec=Alias).spec_schema, type_of(Full, spec=AliasStruct).spec_schema):
        checked = jsonschema_rs.validator_for(schema or {})
        assert checked.is_valid({"target": "192.0.2.1"})
        assert checked.is_valid({"target": {"$ref": "host#/ip"}})
        assert not checked.is_valid({"target": {"$ref": 1}})
        assert not checked.is_valid({"target": 1})


def test_options_are_read_as_people_write_them() -> None:
    thing = type_of(
        Full, resync="PT1M", timeout=3, rate="90/m", batch=2, concurrency=3, on_drift="hold", on_unknown="provision",
        after_human=True, outcomes={"quarantined": ("accept", "drop")}, cascade=False, adopt_orphans="remove",
        backoff=("2s", "1m"),
    )  # fmt: skip
    assert (thing.resync, thing.timeout, thing.rate) == (60, 3, 1.5)
    assert (thing.on_drift, thing.on_unknown, thing.after_human) == ("hold", "provision", True)
    assert thing.outcomes == {"quarantined": ["accept", "drop"]}
    assert (thing.cascade, thing.adopt_orphans, thing.backoff) == (False, "remove", Backoff(2, 60))
    assert (thing.observes, thing.discover) == (True, True)


def test_a_type_that_cannot_be_observed_says_so() -> None:
    class Blind:
        async def provision(self, node: Node[dict[str, Any]], ctx: Context) -> None: ...

    blind = type_of(Blind)
    assert blind.observes is False
    assert blind.spec_schema is None


@pytest.mark.parametrize(("rate", "per_second"), [("5/s", 5), ("60/m", 1), ("36/h", 0.01), (2.5, 2.5), (0, 0)])
def test_rates_are_starts_per_second(rate: str | float, per_second: float) -> None:
    assert parse_rate(rate) == pytest.approx(per_second)


@pytest.mark.parametrize("rate", ["5", "5/d", "fast", "-1/s", "/s"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(Invalid, match="not a rate"):
        parse_rate(rate)


def test_a_resync_below_a_second_is_refused() -> None:
    with pytest.raises(Invalid) as refused:
        type_of(Full, resync="10ms")
    assert refused.value.problems[0].path == "/types/0/resync"


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"resync": 1e300}, "resync"),
        ({"search": 1e300}, "search"),
        ({"timeout": 1e300}, "timeout"),
        ({"rate": -1.0}, "rate"),
        ({"backoff": Backoff(0.0, 1.0)}, "backoff/base"),
        ({"backoff": Backoff(2.0, 1.0)}, "backoff/cap"),
        ({"backoff": Backoff(1.0, 1e300)}, "backoff/cap"),
        ({"outcomes": {"odd": ["yes", ""]}}, "outcomes/odd"),
        ({"outcomes": {"odd": ["yes", "yes"]}}, "outcomes/odd"),
    ],
)
def test_what_no_planner_could_follow_is_refused_with_its_place(options: dict[str, Any], place: str) -> None:
    """However the manifest was written: an announcement need not come from here."""
    with pytest.raises(Invalid) as refused:
        check_manifest(Manifest("d", "1", [NodeType("thing", **options)]))
    assert [p.path for p in refused.value.problems] == [f"/types/0/{place}"]


def test_built_in_types_cannot_be_claimed() -> None:
    domain = Domain("d")
    domain.node_type("human-review")(Full)
    with pytest.raises(Invalid, match="not valid"):
        domain.manifest()


def test_a_type_is_declared_once() -> None:
    domain = Domain("d")
    domain.node_type("thing")(Full)
    with pytest.raises(Invalid, match="declared twice"):
        domain.node_type("thing")(Full)


def test_handlers_must_be_async() -> None:
    class Sync:
        def provision(self, node: Node[Spec], ctx: Context) -> None: ...

    with pytest.raises(Invalid, match=r"Sync\.provision must be async"):
        type_of(Sync)


def test_spec_types_must_agree() -> None:
    class Split:
        async def observe(self, node: Node[Record], ctx: Context) -> None: ...
        async def provision(self, node: Node[Spec], ctx: Context) -> None: ...

    with pytest.raises(Invalid, match="different spec types"):
        type_of(Split)


def test_an_unresolvable_annotation_names_the_way_out() -> None:
    class Lost:
        async def provision(self, node: Node[Nowhere], ctx: Context) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(Invalid, match="spec="):
        type_of(Lost)
    assert type_of(Lost, spec=Spec).spec_schema is not None


def test_a_type_without_handler_names_its_class() -> None:
    with pytest.raises(Invalid, match="pass an instance of DnsRecord"):
        dns.bind()


def test_a_handler_of_no_type_is_refused() -> None:
    domain = Domain("d")
    domain.node_type("thing")(Full)
    with pytest.raises(Invalid, match="Zone handles no type"):
        domain.bind([Full(), Zone()])


def test_a_class_without_arguments_is_made_and_serves_all_its_types() -> None:
    domain = Domain("d")
    domain.node_type("one")(domain.node_type("two")(Full))
    bound = domain.bind()
    assert bound["one"].provision.__self__ is bound["two"].provision.__self__  # type: ignore[union-attr]


def test_reviewer_policy_and_ladders_are_announced() -> None:
    domain = Domain("d")

    @domain.reviewer(timeout="10s")
    async def review(review: Review, ctx: Context) -> Reviewed:
        return Reviewed(PENDING)

    @domain.policy
    async def policy(request: Any) -> list[Any]:
        return []

    domain.ladder(Ladder("l", ["PROVISION_FAILED"], [Rung("count >= 3")]))
    manifest = domain.manifest()
    assert (manifest.reviews, manifest.evaluates, manifest.ladders[0].name) == (True, True, "l")
    assert domain.review_options.timeout == 10


def test_a_ladder_that_cannot_work_is_refused_where_it_is_declared() -> None:
    domain = Domain("d")
    with pytest.raises(Invalid) as refused:
        domain.ladder(Ladder("l", ["PROVISION_FAILED"], [Rung("cuont >= 3")]))
    assert refused.value.problems[0].path == "/ladders/0/rungs/0/when"
