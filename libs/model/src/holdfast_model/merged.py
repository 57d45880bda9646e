"""What follows from the rows of a graph: the merge of all owners, visible edges, their order. No rule, no journal.

Everything here is kept up while rows come and go, at the cost of what changes; a change of a large part of the graph,
and the first one, are entered in passes over everything instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import msgspec

from .fans import Fan, copied, joined, left
from .names import BUILT_IN_TYPES, GraphRef
from .order import TopologicalOrder
from .rows import Declaration, Node, Row, Tombstone

_REBUILD_SHARE = 8  # re-order the whole graph when at least 1/8 of it changes

type_key = tuple[str, str]


class MergedGraph:
    """Rows and tombstones of one graph, and what is derived from them.

    ``version`` is the CAS word at which this replica stands; the store sets it.
    """

    def __init__(self, ref: GraphRef) -> None:
        self.ref = ref
        self.version = 0
        self.rows: dict[str, Row] = {}
        self.gone: dict[type_key, Tombstone] = {}
        self.nodes: dict[str, Node] = {}
        self.owned: dict[str, dict[str, None]] = {}
        self._dangling: dict[str, dict[str, None]] = {}  # target that is not visible -> visible sources that want it
        self._below: dict[str, Fan] = {}  # target -> visible dependents
        self._above: dict[str, tuple[str, ...]] = {}  # source -> visible dependencies
        self._reviews: dict[str, dict[str, None]] = {}  # target -> review nodes that speak of it
        self._order = TopologicalOrder()
        self.tracking = False
        """Whether touched ids are kept for :meth:`drain`; off, so that nobody pays who does not follow."""
        self._touched: dict[str, None] = {}
        self._touched_gone: dict[type_key, None] = {}

    # ---- reading

    def __contains__(self, node: str) -> bool:
        return node in self.nodes

    def __len__(self) -> int:
        return len(self.nodes)

    def dependents(self, node: str) -> frozenset[str]:
        """Ids of the visible nodes that depend on ``node``."""
        return frozenset(self._below.get(node, ()))

    def order_of(self, node: str) -> int:
        """The node's place in the topological order (0 for one that is not visible)."""
        return self._order[node] if node in self.nodes else 0

    def reviews_of(self, node: str) -> frozenset[str]:
        """Ids of the built-in review nodes whose target is ``node``."""
        return frozenset(self._reviews.get(node, ()))

    def drain(self) -> tuple[dict[str, Node | None], dict[type_key, Tombstone | None]]:
        """Nodes whose merge or visible edges may have changed since the last call, and tombstones: as they are now."""
        nodes = {i: self.nodes.get(i) for i in self._touched}
        gone = {k: self.gone.get(k) for k in self._touched_gone}
        self._touched.clear()
        self._touched_gone.clear()
        return nodes, gone

    # ---- large changes, aside

    def draft(self) -> Self:
        """An independent graph with the same content, to try a large change on (in a thread, say); see :meth:`adopt`.

        It keeps touched ids. Copies the indexes, not what they hold.
        """
        other = type(self)(self.ref)
        other.version, other.tracking = self.version, True
        other.rows, other.gone, other.nodes = dict(self.rows), dict(self.gone), dict(self.nodes)
        other.owned = {owner: dict(ids) for owner, ids in self.owned.items()}
        other._dangling = {target: dict(sources) for target, sources in self._dangling.items()}
        other._below, other._above = copied(self._below), dict(self._above)
        other._reviews = {target: dict(reviews) for target, reviews in self._reviews.items()}
        other._order = self._order.copy()
        return other

    def replacement(self, rows: Mapping[str, Row], gone: Iterable[Tombstone]) -> Self:
        """A graph of these rows instead, to be adopted; only what differs counts as touched, the rest is shared."""
        known = self.rows.get
        other = type(self)(self.ref)
        other._enter({node: old if (old := known(node)) == row else row for node, row in rows.items()})
        other.gone = {t.key: t for t in gone}
        other.version, other.tracking = self.version, True
        for node, seen in other.nodes.items():
            if self.nodes.get(node) != seen:
                other._touched[node] = None
        other._touched.update(dict.fromkeys(n for n in self.nodes if n not in other.nodes))
        for key, tomb in other.gone.items():
            if self.gone.get(key) != tomb:
                other._touched_gone[key] = None
        other._touched_gone.update(dict.fromkeys(k for k in self.gone if k not in other.gone))
        return other

    def adopt(self, draft: Self) -> None:
        """Become what a draft or replacement has become; it must not be used any more.

        Only right while this graph has not changed since it was made.
        """
        self.rows, self.gone, self.nodes, self.owned = draft.rows, draft.gone, draft.nodes, draft.owned
        self._dangling, self._below, self._above = draft._dangling, draft._below, draft._above
        self._reviews, self._order = draft._reviews, draft._order
        if self.tracking:
            self._touched.update(draft._touched)
            self._touched_gone.update(draft._touched_gone)

    # ---- rows -> merge, edges, order

    def _enter(self, changed: Mapping[str, Row | None]) -> None:
        """Put rows in place and bring every derived structure up to date: O(changes), except for bulk changes."""
        if not self.rows:
            self._build(changed)
            return
        touched = self._merge(changed)
        if self.tracking:
            self._touched.update(touched)
        nodes, above, below = self.nodes, self._above, self._below
        bulk = len(touched) > 1000 and len(touched) * _REBUILD_SHARE >= len(nodes)
        # First every edge that goes, then those that come: a reversed edge must not look like a cycle.
        wanted: dict[str, tuple[str, ...]] = {}
        for node in touched:
            old = above.get(node, ())
            if node not in nodes:
                for target in old:
                    below[target] = left(below[target], node)
                above.pop(node, None)
                continue
            edges = self.rows[node].edges()
            new = tuple([t for t in edges if t in nodes]) if edges else edges
            if len(new) < len(edges):
                for target in dict.fromkeys(t for t in edges if t not in nodes):
                    self._dangling.setdefault(target, {})[node] = None
            wanted[node] = new
            if old and old != new:
                kept = set(new)
                for target in old:
                    if target not in kept and target in below:
                        below[target] = left(below[target], node)
                above[node] = tuple(t for t in old if t in kept)
        for node in touched:
            if node not in nodes:
                below.pop(node, None)
        for node, targets in wanted.items():
            if not bulk:
                for target in targets:
                    if target not in above.get(node, ()):
                        self._order.insert_edge(node, target, above, below)
                        above[node] = (*above.get(node, ()), target)
                        below[target] = joined(below.get(target), node)
            else:
                for target in targets:
                    below[target] = joined(below.get(target), node)
            above[node] = targets
            if nodes[node].depends_on != targets:
                nodes[node] = msgspec.structs.replace(nodes[node], depends_on=targets)
        if bulk:
            self._order.rebuild(above)

    def _build(self, rows: Mapping[str, Row | None]) -> None:
        """:meth:`_enter` into an empty graph, in a few passes over everything. Raises Cycle."""
        nodes, above, below, owned = self.nodes, self._above, self._below, self.owned
        for node, row in rows.items():
            if row is None:
                continue
            self.rows[node] = row
            for owner, _ in row.declarations:
                ids = owned.get(owner)
                if ids is None:
                    ids = owned[owner] = {}
                ids[node] = None
            winner = row.winner()
            if winner is not None:
                owner, d = winner
                edges = row.edges()
                nodes[node] = Node(
                    node, d.type, d.spec, d.digest, edges, d.gating, d.spec_gating, owner, d.refs, d.observe, d.was
                )
                if d.type in BUILT_IN_TYPES:
                    self._reviews.setdefault(review_target(d.spec), {})[node] = None
        for node, seen in nodes.items():
            targets = seen.depends_on
            for target in targets:
                if target not in nodes:
                    self._dangling.setdefault(target, {})[node] = None
            if self._dangling:
                visible = tuple([t for t in targets if t in nodes])
                if visible != targets:
                    targets = visible
                    nodes[node] = msgspec.structs.replace(seen, depends_on=targets)
            above[node] = targets
            for target in targets:
                below[target] = joined(below.get(target), node)
        if self.tracking:
            self._touched.update(dict.fromkeys(rows))
        self._order.rebuild(above)

    def _merge(self, changed: Mapping[str, Row | None]) -> dict[str, None]:
        """Enter rows and their winners; returns the nodes whose visible edges may differ now."""
        touched: dict[str, None] = {}
        for node, row in changed.items():
            was_visible = node in self.nodes
            self._index(node, self.rows.get(node), row)
            winner = row.winner() if row else None
            touched[node] = None
            if winner is not None:
                self._see(node, *winner)
                if not was_visible and node in self._dangling:
                    touched.update(self._dangling.pop(node))
            elif was_visible:
                self._unsee(node)
                touched.update(dict.fromkeys(self._below.get(node, ())))
        return touched

    def _index(self, node: str, old: Row | None, new: Row | None) -> None:
        if old is not None:
            for owner, _ in old.declarations:
                self.owned[owner].pop(node, None)
        if new is None:
            self.rows.pop(node, None)
            return
        self.rows[node] = new
        for owner, _ in new.declarations:
            self.owned.setdefault(owner, {})[node] = None

    def _see(self, node: str, owner: str, d: Declaration) -> None:
        self._unreview(node)
        edges = self._above.get(node) or d.depends_on
        self.nodes[node] = Node(
            node, d.type, d.spec, d.digest, edges, d.gating, d.spec_gating, owner, d.refs, d.observe, d.was
        )
        self._order.add(node)
        if d.type in BUILT_IN_TYPES:
            self._reviews.setdefault(review_target(d.spec), {})[node] = None

    def _unsee(self, node: str) -> None:
        self._unreview(node)
        self.nodes.pop(node, None)
        self._order.remove(node)

    def _unreview(self, node: str) -> None:
        seen = self.nodes.get(node)
        if seen is not None and seen.type in BUILT_IN_TYPES:
            self._reviews.get(review_target(seen.spec), {}).pop(node, None)

    def _bury(self, graves: Mapping[type_key, Tombstone | None]) -> None:
        if self.tracking:
            self._touched_gone.update(dict.fromkeys(graves))
        for key, tombstone in graves.items():
            if tombstone is None:
                self.gone.pop(key, None)
            else:
                self.gone[key] = tombstone


def review_target(spec: msgspec.Raw | bytes) -> str:
    """The id of the node that a built-in review speaks of ("" where its spec names none)."""
    value: Any = msgspec.json.decode(spec)
    target = value.get("target") if isinstance(value, dict) else None
    return target if isinstance(target, str) else ""
