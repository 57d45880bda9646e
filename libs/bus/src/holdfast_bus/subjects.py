"""Every subject of the system: builders and parsers. Nothing else in the project writes a subject.

::

    blueprint.<tenant>.<graph>             users -> planner
    graph.<tenant>.<graph>.<event>         planner -> everybody
    node.<tenant>.<graph>.<event>          planner -> everybody
    fault.<tenant>.<graph>.<type>          planner -> everybody
    workitem.<tenant>.<graph or _>.<event> work-items -> everybody
    state.<tenant>.<graph>                 domains, users' systems -> planner
    step.<domain>.<type>                   planner -> provisioners (work queue)
    result.<partition>                     provisioners -> the partition's owner (work queue)
    rpc.planner.<verb>                     any replica of the planner
    rpc.planner.owner.<partition>.<verb>   the replica that owns the partition
    rpc.workitems.<verb>                   work-items
    rpc.domain.<domain>.<verb>             a domain's service
    planner.<partition>                    hint for the partition's owner (may be lost)
    planner.preferences                    hint for every planner: a preference changed (may be lost)
    dlq.<stream>                           what failed for ever
    $O.DOCUMENTS.>                         bodies too large for a message (object store; the client writes these)

Builders check what they are given, because a stray dot or wildcard in a name would address something else. Both
builders and parsers raise ``Invalid``; a parser's message names the subject.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from holdfast_model.errors import Invalid, Problem
from holdfast_model.events import Event, Family, NodeEvent
from holdfast_model.names import PARTITIONS, GraphRef, check_label, check_type

NOBODY = "_"
"""Stands for the tenant or graph of a message that names no valid one, and for work that belongs to no graph."""

PROGRESS = NodeEvent.PROGRESS

BLUEPRINTS = "blueprint.>"
GRAPH_EVENTS = "graph.>"
NODE_EVENTS = "node.>"
FAULTS = "fault.>"
WORKITEM_EVENTS = "workitem.>"
STATES = "state.>"
STEPS = "step.>"
RESULTS = "result.>"
HINTS = "planner.*"
PREFERENCES = "planner.preferences"
DEAD_LETTERS = "dlq.>"
OBJECT_CHUNKS = "$O.DOCUMENTS.C.>"
OBJECT_NAMES = "$O.DOCUMENTS.M.>"
RECOVERED = "node.*.*.recovered"
MAX_DELIVERIES = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"
MSG_TERMINATED = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"

_WORD = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")


class EventSubject(NamedTuple):
    """The parts of ``<family>.<tenant>.<graph>.<name>``."""

    family: Family
    graph: GraphRef
    name: str


class StepSubject(NamedTuple):
    """The parts of ``step.<domain>.<type>``."""

    domain: str
    type: str


class DomainCall(NamedTuple):
    """The parts of ``rpc.domain.<domain>.<verb>``."""

    domain: str
    verb: str


def blueprint(tenant: str, graph: str) -> str:
    """Where users publish what they want."""
    return f"blueprint.{_graph(tenant, graph)}"


def graph_event(tenant: str, graph: str, event: str) -> str:
    """``graph.<tenant>.<graph>.<event>``; both names may be ``_``."""
    return f"graph.{_graph(tenant, graph)}.{_word(event, 'event')}"


def node_event(tenant: str, graph: str, event: str) -> str:
    """``node.<tenant>.<graph>.<event>``."""
    return f"node.{_graph(tenant, graph)}.{_word(event, 'event')}"


def progress(tenant: str, graph: str) -> str:
    """Where a provisioner tells how far a running step is (core NATS, for people only)."""
    return node_event(tenant, graph, PROGRESS)


def fault(tenant: str, graph: str, type: str) -> str:
    """``fault.<tenant>.<graph>.<type>``; a fault type in either case."""
    return f"fault.{_graph(tenant, graph)}.{_word(type.lower(), 'fault type')}"


def workitem_event(tenant: str, graph: str, event: str) -> str:
    """``workitem.<tenant>.<graph or _>.<event>``; an empty graph becomes ``_``."""
    return f"workitem.{_graph(tenant, graph or NOBODY)}.{_word(event, 'event')}"


def told(family: str, tenant: str, graph: str = "*") -> str:
    """What one family of events says about a graph, or about all graphs of a tenant (a filter for subscribers)."""
    check_label(tenant, "tenant")
    return f"{Family(family)}.{tenant}.{graph if graph == '*' else check_label(graph, 'graph')}.>"


def event(event: Event) -> str:
    """The subject an event is published on."""
    return f"{event.family}.{_graph(event.tenant, event.graph or NOBODY)}.{_word(event.name, 'event')}"


def state(tenant: str, graph: str) -> str:
    """Where anybody says "this node changed outside"."""
    return f"state.{_graph(tenant, graph)}"


def step(domain: str, type: str) -> str:
    """The work queue of one node type of one domain."""
    return f"step.{check_label(domain, 'domain')}.{check_type(type)}"


def result(partition: int) -> str:
    """The work queue of outcomes for the graphs of one partition."""
    return f"result.{_partition(partition)}"


def hint(partition: int) -> str:
    """Tells the owner of a partition to look at an inbox; may be lost."""
    return f"planner.{_partition(partition)}"


def rpc_planner(verb: str) -> str:
    """A request that any replica of the planner answers."""
    return f"rpc.planner.{_word(verb, 'verb')}"


def rpc_owner(partition: int, verb: str) -> str:
    """A request that only the owner of the partition answers."""
    return f"rpc.planner.owner.{_partition(partition)}.{_word(verb, 'verb')}"


def rpc_owner_all(partition: int) -> str:
    """Every request to the owner of the partition (what the owner subscribes to)."""
    return f"rpc.planner.owner.{_partition(partition)}.*"


def rpc_workitems(verb: str) -> str:
    """A request to work-items."""
    return f"rpc.workitems.{_word(verb, 'verb')}"


def rpc_domain(domain: str, verb: str) -> str:
    """A request to the service of one domain."""
    return f"rpc.domain.{check_label(domain, 'domain')}.{_word(verb, 'verb')}"


def dlq(stream: str) -> str:
    """Where the dead letters of a stream go."""
    return f"dlq.{check_label(stream, 'stream')}"


def parse_blueprint(subject: str) -> GraphRef:
    """The graph a blueprint is for."""
    return _ref(subject, _split(subject, "blueprint", 3), 1)


def parse_event(subject: str) -> EventSubject:
    """Family, graph and name of an event's subject."""
    tokens = subject.split(".")
    if len(tokens) != 4 or tokens[0] not in set(Family):
        raise _bad(subject, "is not an event's (graph|node|fault|workitem).<tenant>.<graph>.<event>")
    if not _WORD.match(tokens[3]):
        raise _bad(subject, f"names no valid event ({tokens[3]!r})")
    return EventSubject(Family(tokens[0]), _ref(subject, tokens, 1), tokens[3])


def parse_state(subject: str) -> GraphRef:
    """The graph whose node changed outside."""
    return _ref(subject, _split(subject, "state", 3), 1)


def parse_step(subject: str) -> StepSubject:
    """Domain and node type of a work queue's subject."""
    tokens = _split(subject, "step", 3)
    try:
        return StepSubject(check_label(tokens[1], "domain"), check_type(tokens[2]))
    except Invalid as error:
        raise _bad(subject, f"is not a step's: {error.message}") from error


def parse_result(subject: str) -> int:
    """The partition of a result's subject."""
    return _number(subject, _split(subject, "result", 2)[1])


def parse_hint(subject: str) -> int:
    """The partition of a hint's subject."""
    return _number(subject, _split(subject, "planner", 2)[1])


def parse_dlq(subject: str) -> str:
    """The stream whose dead letters are on this subject."""
    return _split(subject, "dlq", 2)[1]


def parse_rpc_domain(subject: str) -> DomainCall:
    """Domain and verb of a request to a domain."""
    tokens = _split(subject, "rpc", 4)
    if tokens[1] != "domain" or not _WORD.match(tokens[3]):
        raise _bad(subject, "is not rpc.domain.<domain>.<verb>")
    return DomainCall(tokens[2], tokens[3])


def _graph(tenant: str, graph: str) -> str:
    return f"{check_label(tenant, 'tenant')}.{check_label(graph, 'graph')}"


def _word(value: str, what: str) -> str:
    if not _WORD.match(value):
        text = f"{what} {value!r} must be a word of a-z 0-9 _"
        raise Invalid(text, [Problem("", text)])
    return value


def _partition(value: int) -> int:
    if not 0 <= value < PARTITIONS:
        text = f"partition {value} is not within 0..{PARTITIONS - 1}"
        raise Invalid(text, [Problem("", text)])
    return value


def _split(subject: str, first: str, count: int) -> list[str]:
    tokens = subject.split(".")
    if len(tokens) != count or tokens[0] != first:
        raise _bad(subject, f"must have {count} tokens, the first of them {first!r}")
    return tokens


def _ref(subject: str, tokens: list[str], at: int) -> GraphRef:
    try:
        return GraphRef(check_label(tokens[at], "tenant"), check_label(tokens[at + 1], "graph"))
    except Invalid as error:
        raise _bad(subject, f"names no valid graph: {error.message}") from error


def _number(subject: str, token: str) -> int:
    if not token.isascii() or not token.isdigit() or int(token) >= PARTITIONS:
        raise _bad(subject, f"names no partition within 0..{PARTITIONS - 1}")
    return int(token)


def _bad(subject: str, why: str) -> Invalid:
    text = f"subject {subject!r} {why}"
    return Invalid(text, [Problem("", text)])
