"""What a domain says of itself when it starts: its types, how to treat them, its ladders.

The announcement is also the heartbeat. Manifests are keyed by (domain, version); durations are seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

import msgspec

from .durations import LONGEST
from .errors import Invalid, Problem
from .names import BUILT_IN_TYPES, check_label, check_type

RESYNC_DEFAULT = 300.0
RESYNC_FLOOR = 1.0


class OnDrift(StrEnum):
    HEAL = "heal"
    HOLD = "hold"


class OnUnknown(StrEnum):
    WAIT = "wait"
    PROVISION = "provision"


class Scope(StrEnum):
    """Within what the id of a node names one and the same thing of its type."""

    PLATFORM = "platform"
    TENANT = "tenant"
    GRAPH = "graph"


SCOPES = frozenset(s.value for s in Scope)


class Backoff(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pause after the n-th failed attempt: full jitter over ``min(cap, base * 2**(n-1))`` seconds."""

    base: float = 1.0
    cap: float = 300.0


class NodeType(msgspec.Struct, frozen=True, omit_defaults=True):
    """How nodes of one type are treated.

    ``batch``: most steps in one message. ``concurrency``: steps one instance runs at once. ``rate``: steps
    started per second and instance (0 = no limit). ``timeout``: seconds a started step may take.
    ``outcomes``: reason code of a hold or failure -> what a person may choose. ``covered`` types are never
    poison-quarantined. ``adopt_orphans``: what ``discover`` finds and nobody desires is reported, or removed.
    ``scope``: within what an id names one and the same thing: what any graph there desires is nobody's leftover.
    ``search``: seconds between two searches for leftovers (0: as ``resync``).
    """

    name: str
    spec_schema: dict[str, object] | None = None
    resync: float = RESYNC_DEFAULT
    timeout: float = 60.0
    batch: int = 64
    concurrency: int = 64
    rate: float = 0.0
    on_drift: OnDrift = OnDrift.HEAL
    on_unknown: OnUnknown = OnUnknown.WAIT
    observes: bool = True
    discover: bool = False
    cascade: bool = True
    adopt_orphans: str = "report"
    scope: str = Scope.PLATFORM.value
    search: float = 0.0
    after_human: bool = False
    outcomes: dict[str, list[str]] = {}
    backoff: Backoff = Backoff()


class AddNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rung adds. ``{node}`` in ``id`` stands for the faulted node's id."""

    id: str
    type: str
    gating: str = "NONE"
    spec: dict[str, object] = {}


class Rung(msgspec.Struct, frozen=True, omit_defaults=True):
    """``when`` is a CEL expression over ``fault``, ``node``, ``count`` and ``review(id)``."""

    when: str
    add: AddNode | None = None


class Ladder(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fault policy as data. The first rung that is true acts. ``name`` is also the namespace of its
    counts.
    """

    name: str
    faults: list[str]
    rungs: list[Rung]
    node_types: list[str] = []
    skip_types: list[str] = []
    reset: str = "on_recovery"


class OwnedLadder(Ladder, frozen=True, omit_defaults=True):
    """A ladder that a blueprint brought along: it looks after the nodes which that blueprint declares.

    ``meta`` of a graph keeps them in its field ``ladders``, as a JSON list. ``owner``: the blueprint's name; "" = all.
    """

    owner: str = ""

    def concerns(self, owners: Collection[str]) -> bool:
        """Whether it looks after a node that ``owners`` declare."""
        return not self.owner or self.owner in owners


class Reinforcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node that a situation adds, or has another spec while it lasts. ``{zone}`` stands for the zone in ``id``,
    ``depends_on`` and every text of ``spec``.
    """

    id: str
    type: str
    spec: dict[str, object] = {}
    depends_on: list[str] = []
    gating: str = "NONE"


class Situation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Several faults in one place within a time: told once, and answered with nodes, while it lasts.

    ``zone`` is a CEL expression over ``fault`` and ``node`` (id, type, spec) that names the place; a fault without one
    ("") counts nowhere. ``when`` chooses faults in the same way. It begins with ``count`` faults within ``within``
    seconds, and is over when no further one has come for as long (``until: window``), or also as soon as all of its
    nodes have recovered (``until: recovery``).
    """

    name: str
    faults: list[str]
    zone: str
    count: int = 3
    within: float = 60.0
    node_types: list[str] = []
    when: str = ""
    add: list[Reinforcement] = []
    until: str = "window"


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A domain and version: what it compiles, which types it claims, which ladders it brings."""

    domain: str
    version: str
    types: list[NodeType]
    blueprint_schema: dict[str, object] | None = None
    reviews: bool = False
    ladders: list[Ladder] = []
    evaluates: bool = False
    situations: list[Situation] = []

    def type_named(self, name: str) -> NodeType | None:
        return next((t for t in self.types if t.name == name), None)


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Body of ``rpc.planner.announce``. ``slots``: batches per type that this instance will hold at once."""

    manifest: Manifest
    instance: str
    slots: dict[str, int]
    leaving: bool = False


class AnnounceReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """``newest``: the highest live version; an instance of an older one stops pulling.

    ``consumers``: the durable of each type's step queue, once it exists."""

    newest: str
    heartbeat: float = 5.0
    consumers: dict[str, str] = {}


def check_manifest(manifest: Manifest) -> None:
    """Raise Invalid (with JSON pointers) when a manifest cannot be accepted."""
    from .ladders import ladder_problems  # here, because ladders are defined above and compiled there
    from .situations import situation_problems

    problems: list[Problem] = ladder_problems(manifest.ladders) + situation_problems(manifest.situations)

    def wrong(path: str, text: str) -> None:
        problems.append(Problem(path, text))

    for check, value, path in ((check_label, manifest.domain, "/domain"),):
        try:
            check(value, "domain", path)
        except Invalid as e:
            problems.extend(e.problems)
    if not manifest.version:
        wrong("/version", "a manifest needs a version")
    seen: set[str] = set()
    for i, t in enumerate(manifest.types):
        at = f"/types/{i}"
        try:
            check_type(t.name, f"{at}/name")
        except Invalid as e:
            problems.extend(e.problems)
        if t.name in BUILT_IN_TYPES:
            wrong(f"{at}/name", f"type {t.name!r} is built in; no domain may claim it")
        if t.name in seen:
            wrong(f"{at}/name", f"type {t.name!r} is named twice")
        seen.add(t.name)
        if t.resync < RESYNC_FLOOR:
            wrong(f"{at}/resync", f"resync of {t.name!r} is {t.resync:g} s; at least PT1S")
        if t.search and t.search < RESYNC_FLOOR:
            wrong(f"{at}/search", f"search of {t.name!r} is {t.search:g} s; at least PT1S")
        if t.timeout <= 0:
            wrong(f"{at}/timeout", "timeout must be positive")
        spans = {"resync": t.resync, "search": t.search, "timeout": t.timeout}
        for field, seconds in {**spans, "backoff/base": t.backoff.base, "backoff/cap": t.backoff.cap}.items():
            if seconds > LONGEST:
                wrong(f"{at}/{field}", f"{seconds:g} s is too long for a duration; at most 100 years")
        if t.rate < 0:
            wrong(f"{at}/rate", "a rate is not negative; 0 is no limit")
        if t.backoff.base <= 0:
            wrong(f"{at}/backoff/base", "the first pause must be positive, or failures follow upon each other")
        if t.backoff.cap < t.backoff.base:
            wrong(f"{at}/backoff/cap", "the longest pause must not be shorter than the first one")
        for reason, names in t.outcomes.items():
            if not all(names) or len(set(names)) < len(names):
                wrong(f"{at}/outcomes/{reason}", f"the outcomes of {reason!r} need names, each another one")
        if t.batch < 1 or t.concurrency < 1:
            wrong(at, "batch and concurrency must be at least 1")
        if t.adopt_orphans not in ("report", "remove"):
            wrong(f"{at}/adopt_orphans", "adopt_orphans is 'report' or 'remove'")
        if t.scope not in SCOPES:
            wrong(f"{at}/scope", f"scope is one of {', '.join(Scope)}")
    if problems:
        raise Invalid(f"manifest of domain {manifest.domain!r} is not valid", problems)


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts versions as people expect: 1.10 after 1.9; numbers before words."""
    parts = version.replace("-", ".").replace("+", ".").split(".")
    return tuple((1, int(p)) if p.isdigit() else (0, p) for p in parts)


def is_older(mine: str, newest: str) -> bool:
    """Whether the highest live version ("": none is live) is higher than this one."""
    return bool(newest) and version_key(newest) > version_key(mine)
