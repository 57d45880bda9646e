from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from holdfast_model.errors import Invalid
from holdfast_sdk import Context, Domain, GraphBuilder, Node, Ref

from .example_domain import dns


class Host(msgspec.Struct):
    image: str
    port: int | Ref = 80


class Balancer(BaseModel):
    targets: list[str | Ref]


class Hosts:
    async def provision(self, node: Node[Host], ctx: Context) -> None: ...


class Balancers:
    async def provision(self, node: Node[Balancer], ctx: Context) -> None: ...


def domain_with(compiler: Any) -> Domain:
    domain = Domain("web")
    domain.node_type("host")(Hosts)
    domain.node_type("balancer")(Balancers)
    domain.compiler(compiler)
    return domain


def problems_of(domain: Domain, spec: object) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        domain.compile(spec)
    return [(p.path, p.message) for p in refused.value.problems]


def test_a_blueprint_becomes_typed_nodes() -> None:
    # Given the example domain; when a blueprint is compiled
    reply = dns.compile({"records": {"www": {"name": "www.example.org", "address": "192.0.2.1"}}})
    # Then each record is one node with its whole spec
    (node,) = reply.nodes
    assert (node.id, node.type, node.depends_on) == ("www", "dns-record", ())
    assert json.loads(bytes(node.spec)) == {"name": "www.example.org", "address": "192.0.2.1", "ttl": 300}


def test_a_wrong_blueprint_is_refused_with_the_place_of_each_problem() -> None:
    found = problems_of(dns, {"records": {"a/b": {"name": 1, "addres": "192.0.2.1"}}})
    assert {path for path, _ in found} >= {"/records/a~1b/name", "/records/a~1b/addres"}


def test_a_blueprint_that_is_no_json_is_refused() -> None:
    with pytest.raises(Invalid, match="not a valid"):
        dns.compile(b"{")


def test_a_reference_adds_its_edge_once_and_travels_as_ref() -> None:
    # Given a balancer that refers to a host twice and names it as well
    def compile(bp: Any, graph: GraphBuilder) -> None:
        host = graph.add("host#1", "host", Host("nginx"))
        graph.add("lb", "balancer", Balancer(targets=[host.ref("ip"), host.ref("ports", 0)]), depends_on=[host])

    # When it is compiled
    nodes = domain_with(compile).compile({}).nodes
    # Then there is one edge, and the spec holds the references
    assert nodes[1].depends_on == ("host#1",)
    assert json.loads(bytes(nodes[1].spec)) == {"targets": [{"$ref": "host#1#/ip"}, {"$ref": "host#1#/ports/0"}]}


def test_references_work_in_structs_and_plain_dicts() -> None:
    def compile(bp: Any, graph: GraphBuilder) -> None:
        graph.add("a", "host", Host("nginx"))
        graph.add("b", "host", Host("nginx", port=Ref("a#/port")))
        graph.add("c", "host", {"image": "nginx", "port": {"$ref": "b#/port"}})

    nodes = domain_with(compile).compile({}).nodes
    assert [n.depends_on for n in nodes] == [(), ("a",), ("b",)]


@pytest.mark.parametrize("text", ["a", "#/x", "a#x", ""])
def test_a_malformed_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a reference"):
        Ref(text)


def test_everything_that_is_wrong_is_told_at_once_with_pointers() -> None:
    # Given a compiler that adds a node twice, of an unknown type, with a bad gating, and with itself below it
    def compile(bp: Any, graph: GraphBuilder) -> None:
        graph.add("a", "host", Host("nginx"), at="/hosts/0")
        graph.add("a", "host", Host("nginx"), at="/hosts/1")
        graph.add("b", "hots", {}, at="/hosts/2")
        graph.add("c", "host", Host("nginx"), gating="SOMETIMES", at="/hosts/3")
        graph.add("d", "host", Host("nginx"), depends_on=["d"], at="/hosts/4")
        graph.add("e\n", "host", Host("nginx"), at="/hosts/5")
        graph.add("f", "host", {"image": 1}, at="/hosts/6")
        graph.problem("/hosts", "too many")

    # When it is compiled, then each problem names its place
    found = problems_of(domain_with(compile), {})
    assert [path for path, _ in found] == [
        "/hosts/1",
        "/hosts/2",
        "/hosts/3",
        "/hosts/4",
        "/hosts/5",
        "/hosts/6/image",
        "/hosts",
    ]
    assert "this domain has balancer, host" in found[1][1]


def test_a_compiler_that_breaks_refuses_the_blueprint() -> None:
    def compile(bp: Any, graph: GraphBuilder) -> None:
        raise KeyError("oops")

    assert "KeyError" in problems_of(domain_with(compile), {})[0][1]


def test_a_domain_without_compiler_says_so() -> None:
    assert "no compiler" in problems_of(Domain("bare"), {})[0][1]


def test_types_of_other_domains_must_be_announced() -> None:
    def compile(bp: Any, graph: GraphBuilder) -> None:
        graph.add("x", "dns-record", {"name": "x"})

    used = Domain("web", uses=["dns-record"])
    used.compiler(compile)
    assert [n.type for n in used.compile({}).nodes] == ["dns-record"]
    assert problems_of(domain_with(compile), {})[0][1].startswith("node 'x' has the type")


def test_warnings_travel_with_the_nodes() -> None:
    def compile(bp: Any, graph: GraphBuilder) -> None:
        graph.warn("this option is old")

    assert domain_with(compile).compile({}).warnings == ["this option is old"]


def test_struct_specs_name_the_place_of_a_problem() -> None:
    def compile(bp: Any, graph: GraphBuilder) -> None:
        graph.add("a", "host", {"image": "nginx", "port": "eighty"}, at="/hosts/a")

    ((path, message),) = problems_of(domain_with(compile), {})
    assert path == "/hosts/a/port"
    assert "Expected" in message
