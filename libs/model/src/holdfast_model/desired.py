"""The desired graph of one (tenant, graph): rows of all owners, their merge, tombstones, and a journal.

The graph is mutable so that a change costs what it changes, not what the graph holds: edges are entered one by one
into a kept topological order, and every applied change can be undone from the journal (a compare-and-set that lost
rolls back, catches up and applies the change again).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .errors import Cycle, Dangling, Disagreement, Invalid, NotFound, Problem
from .messages import NodeDeclaration
from .mutations import AddDependency, AddNode, Mutation, RemoveDependency, RemoveNode, UpdateNode
from .names import BUILT_IN_TYPES, GraphRef
from .order import TopologicalOrder
from .rows import EDGES_ONLY, Declaration, Delta, Node, Row, Tombstone, declare, gone_field, gone_key

LAST_WRITER = "last_writer_wins"
FIRST_WRITER = "first_writer_wins"
FAIL = "fail"
STRATEGIES = frozenset({LAST_WRITER, FIRST_WRITER, FAIL})
POLICY_OWNER = "policy:"

_REBUILD_SHARE = 8  # re-order the whole graph when at least 1/8 of it changes


class Change(msgspec.Struct, frozen=True):
    """What a declaration changed: ids, in no particular order."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)


type_key = tuple[str, str]
_Undo = tuple[dict[str, Row | None], dict[type_key, Tombstone | None]]


class DesiredGraph:
    """See the module. ``version`` is the CAS word at which this replica stands; the store sets it."""

    def __init__(self, ref: GraphRef) -> None:
        self.ref = ref
        self.version = 0
        self.rows: dict[str, Row] = {}
        self.gone: dict[type_key, Tombstone] = {}
        self.nodes: dict[str, Node] = {}
        self.owned: dict[str, dict[str, None]] = {}
        self._dangling: dict[str, set[str]] = {}  # target that is not visible -> visible sources that want it
        self._below: dict[str, set[str]] = {}  # target -> visible dependents
        self._above: dict[str, tuple[str, ...]] = {}  # source -> visible dependencies
        self._reviews: dict[str, set[str]] = {}  # target -> review nodes that speak of it
        self._order = TopologicalOrder()
        self._journal: list[_Undo] = []
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

    # ---- journal

    def mark(self) -> int:
        """A point to which :meth:`undo` can return."""
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """Take back everything that was applied since ``mark``."""
        while len(self._journal) > mark:
            rows, gone = self._journal.pop()
            self._enter(rows)
            self._bury(gone)

    def delta(self) -> Delta:
        """What has changed since the journal was last emptied, as final values; the journal stays."""
        delta = Delta({}, {})
        for rows, gone in self._journal:
            delta.rows.update((i, self.rows.get(i)) for i in rows)
            delta.gone.update((gone_field(k), self.gone.get(k)) for k in gone)
        return delta

    def take_delta(self) -> Delta:
        """:meth:`delta`; empties the journal, so that nothing can be undone any more."""
        delta = self.delta()
        self._journal.clear()
        return delta

    def load(self, rows: Mapping[str, Row], gone: Iterable[Tombstone]) -> None:
        """Replace everything by a snapshot; the journal is emptied. Raises Cycle for a corrupt one."""
        version, tracking = self.version, self.tracking
        before = (dict.fromkeys((*self._touched, *self.nodes)), dict.fromkeys((*self._touched_gone, *self.gone)))
        self.__init__(self.ref)  # type: ignore[misc]
        self.version, self.tracking = version, tracking
        self._enter(dict(rows))
        self.gone = {t.key: t for t in gone}
        if tracking:
            self._touched.update(before[0])
            self._touched_gone.update(before[1] | dict.fromkeys(self.gone))

    def replay(self, delta: Delta) -> None:
        """Apply what another replica committed; not journalled."""
        self._enter(delta.rows)
        self._bury({gone_key(f): t for f, t in delta.gone.items()})

    # ---- changing

    def declare(
        self,
        owner: str,
        nodes: Sequence[tuple[str, Declaration]],
        strategy: str = LAST_WRITER,
        pointers: Mapping[str, str] | None = None,
    ) -> Change:
        """Make ``nodes`` the whole declaration of ``owner``; other owners' declarations stay.

        Raises Dangling, Cycle or, with strategy ``fail``, Disagreement; ``pointers`` maps ids to the place in the
        document that errors shall name. Nodes that go or change take their reviews with them.
        """
        wanted = dict(nodes)
        where = pointers or {}
        changed: dict[str, Row | None] = {}
        disagree: list[str] = []
        for node, new in wanted.items():
            row = self.rows.get(node)
            if row is None:
                changed[node] = Row(((owner, new),))
                continue
            old = row.of(owner)
            if old is not None and old.same_as(new):
                continue
            others = [d for o, d in row.declarations if o != owner and not o.startswith(POLICY_OWNER)]
            if strategy == FAIL and any(not d.same_as(new) for d in others):
                disagree.append(node)
            # What a policy said of a node holds until its blueprint changes that node.
            kept = tuple(p for p in row.declarations if not p[0].startswith(POLICY_OWNER))
            changed[node] = Row(kept).with_declaration(owner, new, first=strategy == FIRST_WRITER and bool(others))
        if disagree:
            problems = [Problem(where.get(n, ""), self._disagreement(n, wanted[n])) for n in disagree]
            raise Disagreement(disagree, f"other blueprints declare {', '.join(disagree)} differently", problems)
        for node in self.owned.get(owner, {}):
            if node not in wanted:
                changed[node] = self._without(self.rows[node], owner)
        return self._change(changed, wanted, where)

    def retract(self, owner: str) -> Change:
        """Remove everything that ``owner`` declares. Raises Dangling where others still depend on it."""
        return self.declare(owner, ())

    def clear(self) -> Change:
        """Remove every declaration of every owner; tombstones remain."""
        return self._change(dict.fromkeys(self.rows), {}, {})

    def apply(self, mutation: Mutation, owner: str) -> Change:
        """Apply one mutation in the name of ``owner``. Raises NotFound, Dangling or Cycle when it does not fit."""
        match mutation:
            case AddNode(node=node):
                new = self._declaration(node)
                return self._set(node.id, self._row(node.id).with_declaration(owner, new))
            case UpdateNode(id=id, node=node):
                self._must_exist(id)
                new = self._declaration(node, depends_on=self.nodes[id].depends_on)
                return self._set(id, self._row(id).with_declaration(owner, new))
            case RemoveNode(id=id):
                self._must_exist(id)
                return self._remove(id, owner)
            case AddDependency(edge=(source, target)):
                self._must_have_ends(source, target)
                return self._edge(source, owner, add=target)
            case RemoveDependency(edge=(source, target)):
                self._must_exist(source)
                return self._edge(source, owner, drop=target)

    def forget(self, keys: Iterable[type_key]) -> None:
        """Drop tombstones: what they stood for is gone."""
        self._bury_journalled({k: None for k in keys if k in self.gone})

    def drop_reviews(self, target: str) -> tuple[str, ...]:
        """Remove the review nodes of ``target``; returns their ids."""
        reviews = tuple(self._reviews.get(target, ()))
        self._change(dict.fromkeys(reviews), {}, {})
        return reviews

    # ---- how a change is made

    @staticmethod
    def _declaration(node: NodeDeclaration, depends_on: tuple[str, ...] | None = None) -> Declaration:
        try:
            new = declare(node)
        except ValueError as e:
            raise Invalid(f"node {node.id!r}: {e}", [Problem("/gating", str(e))]) from e
        return new if depends_on is None else msgspec.structs.replace(new, depends_on=depends_on)

    def _row(self, node: str) -> Row:
        return self.rows.get(node) or Row(())

    def _must_exist(self, node: str) -> None:
        if node not in self.nodes:
            raise NotFound(f"node {node!r} is not in graph {self.ref}")

    def _must_have_ends(self, source: str, target: str) -> None:
        if source not in self.nodes or target not in self.nodes:
            raise Dangling(source, target)
        if source == target:
            raise Cycle((source, source))

    def _set(self, node: str, row: Row | None) -> Change:
        return self._change({node: row}, {node} if row else {}, {})

    def _remove(self, node: str, owner: str) -> Change:
        row = self.rows[node]
        if all(o == owner or o.startswith(POLICY_OWNER) for o, _ in row.declarations):
            return self._change({node: None}, {}, {})
        empty = Declaration("-", msgspec.Raw(b"{}"), "", absent=True)
        return self._change({node: row.with_declaration(owner, empty)}, {}, {})

    def _edge(self, source: str, owner: str, *, add: str = "", drop: str = "") -> Change:
        row = self.rows[source]
        old = row.of(owner) or Declaration(EDGES_ONLY, msgspec.Raw(b"{}"), "")
        edges = [t for t in old.depends_on if t not in (add, drop)] + ([add] if add else [])
        without = [t for t in old.without if t not in (add, drop)] + ([drop] if drop else [])
        new = msgspec.structs.replace(old, depends_on=tuple(edges), without=tuple(without))
        return self._set(source, row.with_declaration(owner, new))

    @staticmethod
    def _without(row: Row, owner: str) -> Row | None:
        """The row when its owner takes a node back: policies that only amended it go along."""
        left = row.without_owner(owner)
        if left and all(o.startswith(POLICY_OWNER) for o, _ in left.declarations):
            return None
        return left

    def _disagreement(self, node: str, new: Declaration) -> str:
        theirs = "; ".join(f"{o}: {d.type} {bytes(d.spec).decode()}" for o, d in self.rows[node].declarations)
        ours = f"{new.type} {bytes(new.spec).decode()}"
        return f"node {node!r} is declared differently by another blueprint ({theirs}; here: {ours})"

    def _change(self, changed: dict[str, Row | None], check: Iterable[str], where: Mapping[str, str]) -> Change:
        """Enter rows, journal them, bury what went, and check that no edge of ``check`` dangles."""
        if not changed:
            return Change()
        before = {i: self.nodes.get(i) for i in changed}
        orphaned = {i: tuple(self._below.get(i, ())) for i in changed if before[i] is not None}
        mark = self.mark()
        self._journal.append(({i: self.rows.get(i) for i in changed}, {}))
        try:
            self._enter(changed)
            self._check_edges(changed, orphaned, check, where)
        except Invalid:
            self.undo(mark)
            raise
        graves: dict[type_key, Tombstone | None] = {}
        added, updated, removed, stale = [], [], [], []
        for node, old in before.items():
            new = self.nodes.get(node)
            if new is not None and (node, new.type) in self.gone:
                graves[(node, new.type)] = None
            if old is None:
                if new is not None:
                    added.append(node)
                continue
            if new is None:
                removed.append(node)
            elif new != old:
                updated.append(node)
            if new is None or new.digest != old.digest:
                stale.append(node)
            if (new is None or new.type != old.type) and old.type not in BUILT_IN_TYPES:
                graves[(node, old.type)] = Tombstone(
                    node, old.type, old.spec, old.digest, old.depends_on, orphaned[node], old.gating, old.spec_gating
                )  # fmt: skip
        self._bury_journalled(graves)
        reviews = {r for n in stale for r in self._reviews.get(n, ())} - set(changed)
        if reviews:
            self._change(dict.fromkeys(reviews), {}, {})
        return Change(tuple(added), tuple(updated), tuple(removed))

    def _check_edges(
        self,
        changed: Mapping[str, Row | None],
        orphaned: Mapping[str, tuple[str, ...]],
        check: Iterable[str],
        where: Mapping[str, str],
    ) -> None:
        for node in check:
            for i, target in enumerate(self.rows[node].edges()):
                if target not in self.nodes:
                    raise Dangling(node, target, path=f"{where[node]}/depends_on/{i}" if node in where else "")
        if not where and not check:
            return  # removals by policies and deletions strip edges; only declarations may not leave any dangling
        for node, users in orphaned.items():
            if node not in self.nodes:
                for user in users:
                    if user in self.nodes and node in self.rows[user].edges():
                        raise Dangling(user, node)

    def _bury_journalled(self, graves: dict[type_key, Tombstone | None]) -> None:
        if graves:
            self._journal.append(({}, {k: self.gone.get(k) for k in graves}))
            self._bury(graves)

    def _bury(self, graves: Mapping[type_key, Tombstone | None]) -> None:
        if self.tracking:
            self._touched_gone.update(dict.fromkeys(graves))
        for key, tombstone in graves.items():
            if tombstone is None:
                self.gone.pop(key, None)
            else:
                self.gone[key] = tombstone

    # ---- rows -> merge, edges, order

    def _enter(self, changed: Mapping[str, Row | None]) -> None:
        """Put rows in place and bring every derived structure up to date: O(changes), except for bulk changes."""
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
                    below[target].discard(node)
                above.pop(node, None)
                continue
            edges = self.rows[node].edges()
            new = tuple([t for t in edges if t in nodes]) if edges else edges
            if len(new) < len(edges):
                for target in set(edges).difference(new):
                    self._dangling.setdefault(target, set()).add(node)
            wanted[node] = new
            if old and old != new:
                kept = set(new)
                for target in old:
                    if target not in kept and target in below:
                        below[target].discard(node)
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
                        below.setdefault(target, set()).add(node)
            else:
                for target in targets:
                    below.setdefault(target, set()).add(node)
            above[node] = targets
            if nodes[node].depends_on != targets:
                nodes[node] = msgspec.structs.replace(nodes[node], depends_on=targets)
        if bulk:
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
                    touched.update(dict.fromkeys(self._dangling.pop(node)))
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
        self.nodes[node] = Node(node, d.type, d.spec, d.digest, edges, d.gating, d.spec_gating, owner)
        self._order.add(node)
        if d.type in BUILT_IN_TYPES:
            self._reviews.setdefault(review_target(d.spec), set()).add(node)

    def _unsee(self, node: str) -> None:
        self._unreview(node)
        self.nodes.pop(node, None)
        self._order.remove(node)

    def _unreview(self, node: str) -> None:
        seen = self.nodes.get(node)
        if seen is not None and seen.type in BUILT_IN_TYPES:
            self._reviews.get(review_target(seen.spec), set()).discard(node)


def review_target(spec: msgspec.Raw | bytes) -> str:
    """The id of the node that a built-in review speaks of ("" where its spec names none)."""
    value: Any = msgspec.json.decode(spec)
    target = value.get("target") if isinstance(value, dict) else None
    return target if isinstance(target, str) else ""
