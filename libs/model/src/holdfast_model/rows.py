"""How the desired graph is kept: one row per node with every owner's declaration, and tombstones.

A row holds the declarations in the order in which they were written; the last one wins. What other code sees is the
merge, a :class:`Node`. Rows and tombstones are stored as compact JSON arrays.

There are many of them and they cannot form cycles, so the garbage collector is told to leave them alone.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

import msgspec
from msgspec import Raw

from .messages import Action, NodeDeclaration
from .names import BUILT_IN_TYPES
from .plain import plain
from .references import MARKED, nodes_in, texts_in

POLICY_OWNER = "policy:"
"""How the names of policies begin, as owners; all other owners are blueprints."""

EDGES_ONLY = ""
"""The type of a declaration that adds or removes edges of a node which somebody else declares."""


class Gating(StrEnum):
    """Which actions on a node need a person first."""

    NONE = "NONE"
    PROVISION_ONLY = "PROVISION_ONLY"
    DEPROVISION_ONLY = "DEPROVISION_ONLY"
    ALL = "ALL"

    def covers(self, action: Action) -> bool:
        return self is Gating.ALL or self.value.startswith(f"{action.value}_")


class Declaration(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """What one owner says of one node. ``absent``: the owner wants it gone; ``without``: edges it takes away;
    ``refs``: the references in its spec, whose nodes are among ``depends_on``; ``observe``: it is only looked at;
    ``was``: what the node was called before, the latest name first."""

    type: str
    spec: Raw
    digest: str
    depends_on: tuple[str, ...] = ()
    gating: Gating = Gating.NONE
    spec_gating: Gating = Gating.NONE
    absent: bool = False
    without: tuple[str, ...] = ()
    refs: tuple[str, ...] = ()
    observe: bool = False
    was: tuple[str, ...] = ()

    @property
    def says_what(self) -> bool:
        """Whether it declares the node, rather than wishing it gone or only speaking of its edges."""
        return not self.absent and self.type != EDGES_ONLY

    def same_as(self, other: Declaration) -> bool:
        """Equal in everything that matters: a spec that differs in spelling only has the same digest."""
        return self is other or (
            self.same_content(other)
            and set(self.depends_on) == set(other.depends_on)
            and set(self.without) == set(other.without)
        )

    def same_content(self, other: Declaration) -> bool:
        """Equal in everything but the edges."""
        return (
            self.digest == other.digest
            and self.type == other.type
            and self.gating is other.gating
            and self.spec_gating is other.spec_gating
            and self.absent == other.absent
            and self.observe == other.observe
        )


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All declarations of one node id, oldest first: ``((owner, declaration), ...)``."""

    declarations: tuple[tuple[str, Declaration], ...]

    def of(self, owner: str) -> Declaration | None:
        for name, declaration in self.declarations:
            if name == owner:
                return declaration
        return None

    def with_declaration(self, owner: str, new: Declaration, *, first: bool = False) -> Row:
        """``owner``'s declaration replaced; a changed one becomes the newest (or, with ``first``, the oldest)."""
        rest = tuple(p for p in self.declarations if p[0] != owner)
        return Row(((owner, new), *rest) if first else (*rest, (owner, new)))

    def rewritten(self, owner: str) -> Row:
        """The row once ``owner`` has written the same again: after every blueprint that says otherwise, and before what
        policies say. This very row where that changes nothing.
        """
        mine = next(i for i, (name, _) in enumerate(self.declarations) if name == owner)
        pair = self.declarations[mine]
        later = [
            i
            for i, (name, d) in enumerate(self.declarations)
            if i > mine and not name.startswith(POLICY_OWNER) and d.type != EDGES_ONLY and not d.same_as(pair[1])
        ]
        if not later:
            return self
        last = later[-1] + 1
        return Row((*self.declarations[:mine], *self.declarations[mine + 1 : last], pair, *self.declarations[last:]))

    def without_owner(self, owner: str) -> Row | None:
        rest = tuple(p for p in self.declarations if p[0] != owner)
        return Row(rest) if rest else None

    def winner(self) -> tuple[str, Declaration] | None:
        """The declaration that decides, or None when no owner wants the node."""
        for owner, d in reversed(self.declarations):
            if d.type != EDGES_ONLY:
                return None if d.absent else (owner, d)
        return None

    def edges(self) -> tuple[str, ...]:
        """The union of what the owners declare, in order, less what later ones take away."""
        if len(self.declarations) == 1:
            return self.declarations[0][1].depends_on
        found: dict[str, None] = {}
        for _, d in self.declarations:
            if not d.absent:
                found.update(dict.fromkeys(d.depends_on))
                for target in d.without:
                    found.pop(target, None)
        return tuple(found)


class Node(msgspec.Struct, frozen=True, gc=False):
    """A node as the planner sees it: the merge of its declarations. ``depends_on`` names visible nodes only.

    ``refs`` are the references in its spec. The digest of a declared node covers their texts; that of one whose
    references have been resolved covers the values.
    ``observe``: the declaration that decides it only wants it looked at. ``was``: what it was called before, the latest
    name first; what is known of that name is known of this one.
    """

    id: str
    type: str
    spec: Raw
    digest: str
    depends_on: tuple[str, ...]
    gating: Gating
    spec_gating: Gating
    owner: str
    refs: tuple[str, ...] = ()
    observe: bool = False
    was: tuple[str, ...] = ()

    def needs_human(self, action: Action) -> bool:
        """Effective gating: the node's OR the spec's, per action."""
        if self.gating is Gating.NONE and self.spec_gating is Gating.NONE:
            return False
        return self.gating.covers(action) or self.spec_gating.covers(action)


class Tombstone(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """The last known form of a removed node, kept until it is deprovisioned.

    ``dependents`` are the nodes that depended on it when it went: its removal waits for those of them that were
    removed too, and for those that stay but are not yet current in their new form. ``found``: it never was ours; all
    that is known of it is what a search for leftovers told, perhaps not even its spec. ``was``: as of a node.
    """

    id: str
    type: str
    spec: Raw
    digest: str
    depends_on: tuple[str, ...] = ()
    dependents: tuple[str, ...] = ()
    gating: Gating = Gating.NONE
    spec_gating: Gating = Gating.NONE
    refs: tuple[str, ...] = ()
    found: bool = False
    was: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return (self.id, self.type)

    def needs_human(self, action: Action) -> bool:
        if self.gating is Gating.NONE and self.spec_gating is Gating.NONE:
            return False
        return self.gating.covers(action) or self.spec_gating.covers(action)


class Delta(msgspec.Struct, omit_defaults=True):
    """What a commit changed: new rows (None = removed) and tombstones (None = forgotten).

    Tombstone keys are written ``<type> <id>``, so that a delta is a plain JSON object.
    """

    rows: dict[str, Row | None] = {}
    gone: dict[str, Tombstone | None] = {}

    def __bool__(self) -> bool:
        return bool(self.rows or self.gone)


def gone_field(key: tuple[str, str]) -> str:
    """The field of a tombstone in the ``gone`` hash and in deltas: types hold no space, so this is unambiguous."""
    return f"{key[1]} {key[0]}"


def gone_key(field: str) -> tuple[str, str]:
    """The (id, type) that :func:`gone_field` was made from."""
    kind, _, node = field.partition(" ")
    return node, kind


_canonical = msgspec.json.Encoder(order="sorted").encode
_plain = msgspec.json.Decoder().decode
_gatings = {gating.value: gating for gating in Gating}


def digest_of(kind: str, spec: Raw | bytes) -> str:
    """Digest of a node's type and spec, independent of key order and white space (32 hex digits)."""
    return _digest(kind, _canonical(_plain(spec)))


def _digest(kind: str, canonical: bytes) -> str:
    return blake2b(kind.encode() + b"\0" + canonical, digest_size=16).hexdigest()


def declare(node: NodeDeclaration, names: dict[str, str] | None = None) -> Declaration:
    """A declaration made from a node as a blueprint or compiler states it. ValueError for an unknown gating,
    Unreadable for a spec or a reference that cannot be read; references add their edges.

    ``names`` holds the strings that declarations of one document share: ids and types, each under itself.
    """
    kind, edges = node.type, node.depends_on
    if names is not None:
        kind = names.setdefault(kind, kind)
        if edges:
            edges = tuple([names.setdefault(edge, edge) for edge in edges])
    gating, spec_gating = _gatings.get(node.gating), _gatings.get(node.spec_gating)
    value = plain(node.spec)
    canonical = _canonical(value)
    refs: tuple[str, ...] = ()
    if MARKED in canonical and kind not in BUILT_IN_TYPES:
        refs = texts_in(value)
        edges = (*edges, *nodes_in(refs))
    return Declaration(
        kind,
        node.spec,
        _digest(kind, canonical),
        edges if len(edges) < 2 else tuple(dict.fromkeys(edges)),
        gating or Gating(node.gating),
        spec_gating or Gating(node.spec_gating),
        refs=refs,
    )


def declares(old: Declaration, node: NodeDeclaration) -> bool:
    """Whether ``node`` says, letter by letter, what ``old`` says already."""
    return (
        old.spec == node.spec
        and old.depends_on == node.depends_on
        and old.type == node.type
        and old.gating == node.gating
        and old.spec_gating == node.spec_gating
        and not old.absent
        and not old.without
    )
