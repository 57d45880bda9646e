"""What a handler gets to see of a node."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from msgspec import Raw

from holdfast_model.names import GraphRef

from .specs import SpecCodec

S = TypeVar("S")

_UNREAD = object()


class Node(Generic[S]):
    """One node of a graph. ``spec`` is decoded when it is first read, references already resolved.

    ``desired`` is False for the last known form of a node that was removed; ``digest`` identifies type and
    spec.
    """

    __slots__ = (
        "_codec",
        "_raw",
        "_spec",
        "depends_on",
        "desired",
        "digest",
        "graph",
        "id",
        "incarnation",
        "tenant",
        "type",
    )

    def __init__(
        self,
        id: str,
        type: str,
        raw: Raw | bytes,
        codec: SpecCodec[S],
        digest: str,
        depends_on: tuple[str, ...],
        tenant: str,
        graph: str,
        incarnation: str,
        desired: bool = True,
    ) -> None:
        self.id = id
        self.type = type
        self.digest = digest
        self.depends_on = depends_on
        self.tenant = tenant
        self.graph = graph
        self.incarnation = incarnation
        self.desired = desired
        self._raw = raw
        self._codec = codec
        self._spec: object = _UNREAD

    @property
    def spec(self) -> S:
        """The typed spec. Raises Invalid when the JSON does not fit the type (an older version may have
        written it).
        """
        if self._spec is _UNREAD:
            self._spec = self._codec.decode(self._raw, "/spec")
        return cast(S, self._spec)

    @property
    def raw_spec(self) -> bytes:
        """The spec as JSON text."""
        return bytes(self._raw)

    @property
    def ref(self) -> GraphRef:
        """The graph it belongs to."""
        return GraphRef(self.tenant, self.graph)

    def __repr__(self) -> str:
        return f"Node({self.id!r}, {self.type!r}, {self.tenant}/{self.graph})"
