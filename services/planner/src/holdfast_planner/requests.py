"""Bodies of ``rpc.planner.<verb>``. An unknown key is refused, so that a misspelt one never decides."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Raw

from holdfast_model.blueprint import DEFAULT_OWNER
from holdfast_model.errors import Invalid, Problem
from holdfast_model.manifest import Announcement
from holdfast_model.names import GraphRef, graph_ref

Limit = Annotated[int, msgspec.Meta(ge=1)]
"""At most so many; more than the server gives at once are asked for in pages."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All requests name their tenant; ``actor`` says who asks."""

    tenant: str
    actor: str = ""


class _OfGraph(_Strict, frozen=True, forbid_unknown_fields=True, kw_only=True):
    graph: str

    @property
    def ref(self) -> GraphRef:
        """The checked graph; raises Invalid."""
        return graph_ref(self.tenant, self.graph)


class Apply(_OfGraph, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """apply, plan: the blueprint as JSON, as it would be published. ``wait``: seconds until an answer is due.
    ``after``: only if no blueprint of the graph was published since this sequence (see ``OfOwner.to_change``)."""

    blueprint: Raw
    wait: float = 30.0
    after: int | None = None


class Delete(_OfGraph, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """delete: the whole graph, or what one blueprint (``name``) declares."""

    name: str = ""
    wait: float = 30.0


class OfOwner(_OfGraph, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """blueprint: the newest document of one owner. ``to_change``: with the sequence after which it may be applied
    changed (``Apply.after``), so that nobody's version is overwritten unseen."""

    name: str = DEFAULT_OWNER
    to_change: bool = False


class Get(_OfGraph, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """get: rows of nodes, by id or in pages. ``only``: ``not_ready`` leaves out what is as declared."""

    nodes: list[str] | None = None
    after: str = ""
    limit: Limit = 500
    only: str = ""


class Import(_OfGraph, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """import: what is there of one type, or of all that can be searched for, as a blueprint of the owner ``name``."""

    type: str = ""
    name: str = "imported"


class OfNode(_OfGraph, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """explain, unblock, pause, resume, reconcile. An empty node means the whole graph."""

    node: str = ""


class List(_Strict, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """list: the graphs of a tenant."""


class Log(_OfGraph, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """log, faults: newest first."""

    after: str = ""
    limit: Limit = 100


class OfPreference(_Strict, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """pref_get, pref_unset: ``desiredstate.resync.<type>``, of the tenant or (``platform``) of everybody."""

    name: str
    platform: bool = False


class SetPreference(OfPreference, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """pref_set: a duration (``30s``, ``PT5M``, seconds)."""

    value: str | int | float


class AnyOfGraph(msgspec.Struct, frozen=True):
    """The part of a request that names its graph; the rest is for the graph's owner to judge."""

    tenant: str = ""
    graph: str = ""

    @property
    def ref(self) -> GraphRef:
        """The checked graph; raises Invalid."""
        return graph_ref(self.tenant, self.graph)


class Anything(msgspec.Struct, frozen=True):
    """domains: nothing is needed, not even a body."""

    tenant: str = ""


def check_announcement(announcement: Announcement) -> None:
    """Raises Invalid for an instance without a name, or one that holds less than nothing."""
    problems = [] if announcement.instance else [Problem("/instance", "an instance needs a name")]
    for queue, slots in announcement.slots.items():
        if slots < 0:
            problems.append(Problem(f"/slots/{queue}", f"{slots} slots; at least 0"))
    if problems:
        raise Invalid(f"the announcement of {announcement.manifest.domain!r} is not valid", problems)
