"""The streams and durable consumers, as data. Only :mod:`holdfast_bus.setup` creates them.

Streams that are work queues delete a message once its reader acknowledged it; the others keep what they get for a
while. ``max_deliver`` is unlimited except on STEPS: a peer that is down must not turn good messages into dead letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from holdfast_model.names import PARTITIONS

from . import subjects

UNLIMITED = -1
MINUTE = 60.0
DAY = 86_400.0
MIB = 1024 * 1024


class Retention(StrEnum):
    LIMITS = "limits"
    WORK_QUEUE = "workqueue"


class Discard(StrEnum):
    """What gives way when a stream is full: its oldest message, or the new one (its publisher is told)."""

    OLD = "old"
    NEW = "new"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream. Ages and windows are seconds, sizes bytes; a ``max_age`` of 0 keeps messages for ever."""

    name: str
    subjects: tuple[str, ...]
    description: str
    retention: Retention = Retention.LIMITS
    discard: Discard = Discard.OLD
    max_age: float = 0.0
    max_bytes: int = 512 * MIB
    duplicate_window: float = 2 * MINUTE
    object_store: bool = False

    @property
    def work_queue(self) -> bool:
        return self.retention is Retention.WORK_QUEUE


@dataclass(frozen=True, kw_only=True)
class Durable:
    """One durable pull consumer. Replicas of one service share it; ``ack_wait`` is in seconds."""

    stream: str
    name: str
    filters: tuple[str, ...] = ()
    description: str = ""
    ack_wait: float = 30.0
    max_deliver: int = UNLIMITED
    max_ack_pending: int = 1000

    def __str__(self) -> str:
        return f"{self.stream}/{self.name}"


BLUEPRINTS = Stream(
    name="BLUEPRINTS",
    subjects=(subjects.BLUEPRINTS,),
    description="What users want: blueprints to apply or delete",
    max_age=30 * DAY,
    duplicate_window=10 * MINUTE,
)
EVENTS = Stream(
    name="EVENTS",
    subjects=(subjects.GRAPH_EVENTS, subjects.NODE_EVENTS, subjects.WORKITEM_EVENTS),
    description="What happened to graphs, nodes and WorkItems",
    max_age=7 * DAY,
    duplicate_window=10 * MINUTE,
)
FAULTS = Stream(
    name="FAULTS",
    subjects=(subjects.FAULTS,),
    description="Faults of nodes; full means that their publisher waits, for none may be lost",
    discard=Discard.NEW,
    max_age=30 * DAY,
    duplicate_window=10 * MINUTE,
)
STATE = Stream(
    name="STATE",
    subjects=(subjects.STATES,),
    description="Reports that a node changed outside",
    retention=Retention.WORK_QUEUE,
    discard=Discard.NEW,
    max_bytes=128 * MIB,
)
STEPS = Stream(
    name="STEPS",
    subjects=(subjects.STEPS,),
    description="Batches of steps for provisioners",
    retention=Retention.WORK_QUEUE,
    discard=Discard.NEW,
    duplicate_window=10 * MINUTE,
)
RESULTS = Stream(
    name="RESULTS",
    subjects=(subjects.RESULTS,),
    description="Outcomes of steps, one subject per partition",
    retention=Retention.WORK_QUEUE,
    discard=Discard.NEW,
    duplicate_window=10 * MINUTE,
)
DLQ = Stream(
    name="DLQ",
    subjects=(subjects.DEAD_LETTERS,),
    description="Messages that failed for ever, with reason and history",
    max_age=30 * DAY,
    duplicate_window=60 * MINUTE,
)
ADVISORIES = Stream(
    name="ADVISORIES",
    subjects=(subjects.MAX_DELIVERIES, subjects.MSG_TERMINATED),
    description="The server's word on messages it will not deliver again",
    max_age=30 * DAY,
    max_bytes=64 * MIB,
)
BUCKET = "DOCUMENTS"
OBJECTS = Stream(
    name=f"OBJ_{BUCKET}",
    subjects=(subjects.OBJECT_CHUNKS, subjects.OBJECT_NAMES),
    description="Object store: bodies too large for a message, until they are used",
    discard=Discard.NEW,
    max_age=DAY,
    max_bytes=1024 * MIB,
    object_store=True,
)
STREAMS = (BLUEPRINTS, EVENTS, FAULTS, STATE, STEPS, RESULTS, DLQ, ADVISORIES, OBJECTS)

SOON = 10.0
"""``ack_wait`` (s) of what services take in. A reader says three times per wait that it is at work; what a killed one
held comes to another reader after it. A second delivery does no harm."""

PLANNER_ADMISSION = Durable(
    stream="BLUEPRINTS", name="planner-admission", description="Blueprints to admit", ack_wait=SOON
)
FAULT_POLICY = Durable(stream="FAULTS", name="fault-policy", description="Faults to count and answer", ack_wait=SOON)
PLANNER_STATE = Durable(stream="STATE", name="planner-state", description="Nodes to look at again", ack_wait=SOON)
PLANNER_WORKITEMS = Durable(
    stream="EVENTS",
    name="planner-workitems",
    filters=(subjects.WORKITEM_EVENTS,),
    description="Decisions of people, for the inbox of their graph",
    ack_wait=SOON,
)
FAULT_POLICY_EVENTS = Durable(
    stream="EVENTS",
    name="fault-policy-events",
    filters=(subjects.RECOVERED,),
    description="Recoveries that end an episode",
    ack_wait=SOON,
)
DLQ_MOVER = Durable(stream="ADVISORIES", name="dlq-mover", description="Dead letters to copy")


def result_durable(partition: int) -> Durable:
    """The consumer of one partition's results. Its ``ack_wait`` is short: a new owner must see what the old held."""
    return Durable(
        stream="RESULTS",
        name=f"result-{partition}",
        filters=(subjects.result(partition),),
        description=f"Outcomes for the graphs of partition {partition}",
        ack_wait=5.0,
    )


def step_durable(domain: str, type: str) -> Durable:
    """The consumer of one node type's steps. ``=`` cannot occur in either name, so no two types share a consumer."""
    return Durable(
        stream="STEPS",
        name=f"step={domain}={type.replace(':', '+')}",
        filters=(subjects.step(domain, type),),
        description=f"Steps of {type} for {domain}",
        max_deliver=20,
    )


DURABLES = (
    PLANNER_ADMISSION,
    FAULT_POLICY,
    PLANNER_STATE,
    PLANNER_WORKITEMS,
    FAULT_POLICY_EVENTS,
    DLQ_MOVER,
    *(result_durable(p) for p in range(PARTITIONS)),
)
"""What the set-up job creates. Step consumers are added by the planner when a domain announces itself."""

STREAM_OF_FAMILY = {"graph": "EVENTS", "node": "EVENTS", "workitem": "EVENTS", "fault": "FAULTS"}
