"""Names of things, their grammar, and the partition a graph belongs to."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote
from zlib import crc32

from .errors import Invalid, Problem

PARTITIONS = 64
DEFAULT_TENANT = "default"
DEFAULT_GRAPH = "main"

_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}\Z")
_TYPE = re.compile(r"[a-z0-9][a-z0-9:_-]{0,62}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MAX_NODE_ID = 256

AI_REVIEW = "ai-review"
HUMAN_REVIEW = "human-review"
BUILT_IN_TYPES = frozenset({AI_REVIEW, HUMAN_REVIEW})
"""Types that no domain may claim: the planner itself knows what to do with them."""


class GraphRef(NamedTuple):
    """Which graph: every subject, key and payload names both parts."""

    tenant: str
    graph: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.graph}"

    @property
    def partition(self) -> int:
        """The partition (0..63) whose owner plans this graph: crc32 of ``tenant/graph``."""
        return crc32(str(self).encode()) % PARTITIONS

    @property
    def caller_part(self) -> str:
        """The tenant part of a callerRef: ``tenant``, or ``tenant/graph`` unless the graph is ``main``."""
        tenant = quote(self.tenant, safe="")
        return tenant if self.graph == DEFAULT_GRAPH else f"{tenant}/{quote(self.graph, safe='')}"


def check_label(value: str, what: str, path: str = "") -> str:
    """Return ``value`` if it is a valid tenant, graph or domain name; raise Invalid otherwise."""
    if not isinstance(value, str) or not _LABEL.match(value):
        text = f"{what} {value!r} must be 1 to 63 of A-Z a-z 0-9 _ -"
        raise Invalid(text, [Problem(path, text)])
    return value


def check_type(value: str, path: str = "") -> str:
    """Return ``value`` if it is a valid node type; raise Invalid otherwise."""
    if not isinstance(value, str) or not _TYPE.match(value):
        text = f"node type {value!r} must be 1 to 63 of a-z 0-9 : _ - and start with a letter or digit"
        raise Invalid(text, [Problem(path, text)])
    return value


def check_node_id(value: str, path: str = "") -> str:
    """Return ``value`` if it is a valid node id: 1 to 256 characters, none of them a control character."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NODE_ID or _CONTROL.search(value):
        text = f"node id {value!r} must be 1 to {MAX_NODE_ID} characters without control characters"
        raise Invalid(text, [Problem(path, text)])
    return value


def graph_ref(tenant: str, graph: str) -> GraphRef:
    """A checked :class:`GraphRef`."""
    return GraphRef(check_label(tenant, "tenant", "/tenant"), check_label(graph, "graph", "/graph"))
