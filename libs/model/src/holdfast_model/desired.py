"""The desired graph of one (tenant, graph): rows of all owners, their merge, tombstones, and a journal.

The graph is mutable so that a change costs what it changes, not what the graph holds: edges are entered one by one
into a kept topological order, and every applied change can be undone from the journal (a compare-and-set that lost
rolls back, catches up and applies the change again).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Self

import msgspec

from .errors import Cycle, Dangling, Disagreement, Invalid, NotFound, Problem
from .merged import MergedGraph, review_target, type_key
from .messages import NodeDeclaration
from .mutations import AddDependency, AddNode, Mutation, RemoveDependency, RemoveNode, UpdateNode
from .names import BUILT_IN_TYPES, GraphRef
from .references import Malformed, nodes_in, place_of
from .renames import Rename, renamed, renames_in_force
from .rows import EDGES_ONLY, POLICY_OWNER, Declaration, Delta, Row, Tombstone, declare, gone_field, gone_key

LAST_WRITER = "last_writer_wins"
FIRST_WRITER = "first_writer_wins"
FAIL = "fail"
STRATEGIES = frozenset({LAST_WRITER, FIRST_WRITER, FAIL})


class Change(msgspec.Struct, frozen=True):
    """What a declaration changed: ids, in no particular order. What is renamed is neither added nor removed."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: tuple[Rename, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed or self.moved)


_Undo = tuple[dict[str, Row | None], dict[type_key, Tombstone | None]]


class DesiredGraph(MergedGraph):
    """See the module."""

    def __init__(self, ref: GraphRef) -> None:
        super().__init__(ref)
        self._journal: list[_Undo] = []

    def adopt(self, draft: Self) -> None:
        """As a merged graph does; the journal is emptied."""
        super().adopt(draft)
        self._journal.clear()

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
        self.adopt(self.replacement(rows, gone))

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
        *,
        release: bool = False,
        moved: Sequence[Rename] = (),
        rewrite: Callable[[str, str], bool] | None = None,
    ) -> Change:
        """Make ``nodes`` the whole declaration of ``owner``; other owners' declarations stay.

        With ``release``, nodes that go are left as they are: nothing is deprovisioned. ``moved``: renames, as a
        blueprint lists them; those that have been carried out before say nothing. ``rewrite``: which of the nodes,
        by id and type, are written by somebody now, so that their declarations, unchanged ones too, are the last ones.

        Raises Dangling, Cycle or, with strategy ``fail``, Disagreement; ``pointers`` maps ids to the place in the
        document that errors shall name. Nodes that go or change take their reviews with them.
        """
        wanted = dict(nodes)
        where = pointers or {}
        renames = {target: source for source, target in renames_in_force(self, owner, wanted, moved)} if moved else {}
        changed: dict[str, Row | None] = {}
        disagree: list[str] = []
        known = self.rows.get
        for node, new in wanted.items():
            row = known(node)
            if row is None:
                if node in renames:
                    new = renamed(new, renames[node], self.rows[renames[node]].of(owner))
                elif (tomb := self.gone.get((node, new.type))) is not None and tomb.was:
                    # Who takes the graph over may know it by what it was called before it was removed.
                    new = msgspec.structs.replace(new, was=tomb.was)
                changed[node] = Row(((owner, new),))
                continue
            old = row.of(owner)
            if old is new or (old is not None and old.same_as(new)):
                if strategy == FIRST_WRITER or len(row.declarations) == 1 or not (rewrite and rewrite(node, new.type)):
                    continue
                renewed = row.rewritten(owner)
                if renewed is not row and strategy == FAIL:
                    disagree.append(node)
                elif renewed is not row:
                    changed[node] = renewed
                continue
            if old is not None and old.was and old.type == new.type and not new.was:
                new = msgspec.structs.replace(new, was=old.was)
            others = [d for o, d in row.declarations if o != owner and not o.startswith(POLICY_OWNER) and d.says_what]
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
        self._spare_reviews(wanted, changed, where)
        return self._change(changed, wanted, where, release=release, renames=renames)

    def retract(self, owner: str) -> Change:
        """Remove everything that ``owner`` declares. Raises Dangling where others still depend on it."""
        return self.declare(owner, ())

    def clear(self, keep: Collection[str] = ()) -> Change:
        """Remove every declaration of every owner but those in ``keep``; tombstones remain.

        Nodes that only policies declare are reviews: they go with the nodes that they are about.
        """
        if not keep:
            return self._change(dict.fromkeys(self.rows), {}, {})
        changed: dict[str, Row | None] = {}
        for node, row in self.rows.items():
            owners = [o for o, _ in row.declarations if not o.startswith(POLICY_OWNER)]
            if all(o in keep for o in owners):
                continue
            left = tuple(p for p in row.declarations if p[0] in keep or p[0].startswith(POLICY_OWNER))
            changed[node] = Row(left) if any(o in keep for o in owners) else None
        return self._change(changed, {}, {})

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

    def adopt_leftovers(self, tombs: Iterable[Tombstone]) -> tuple[Tombstone, ...]:
        """Take what was found and never was ours for removed nodes; what is desired or removed already stays as it
        is. Returns those that were taken."""
        taken = {t.key: t for t in tombs if t.key not in self.gone and t.id not in self.nodes}
        self._bury_journalled(dict(taken))
        return tuple(taken.values())

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
        except Malformed as e:
            raise Invalid(f"node {node.id!r}: {e}", [Problem(f"/spec{e.place}", str(e))]) from e
        except ValueError as e:
            raise Invalid(f"node {node.id!r}: {e}", [Problem("/gating", str(e))]) from e
        if depends_on is None:
            return new
        return msgspec.structs.replace(new, depends_on=tuple(dict.fromkeys((*depends_on, *nodes_in(new.refs)))))

    def _row(self, node: str) -> Row:
        return self.rows.get(node) or Row(())

    def _must_exist(self, node: str) -> None:
        if node not in self.nodes:
            raise NotFound(f"node {node!r} is not in graph {self.ref}")

    def _must_have_ends(self, source: str, target: str) -> None:
        if source not in self.nodes or target not in self.nodes:
            raise Dangling(source, target, missing=source if source not in self.nodes else target)
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

    def _spare_reviews(
        self, wanted: Container[str], changed: Mapping[str, Row | None], where: Mapping[str, str]
    ) -> None:
        """Raises Invalid where a declaration would take the place of a review that goes on: nobody would be asked any
        more, and nobody be told.
        """
        problems: list[Problem] = []
        for node, row in changed.items():
            seen = self.nodes.get(node)
            if seen is None or seen.type not in BUILT_IN_TYPES or row is None or node not in wanted:
                continue
            target = review_target(seen.spec)
            if self._same_form(target, changed):
                text = f"{node!r} is the {seen.type} of node {target!r}, which is open"
                problems.append(Problem(where.get(node, ""), text))
        if problems:
            hint = "give the node another id, or answer the review first"
            raise Invalid(f"not valid: {problems[0].message}", problems, hint=hint)

    def _same_form(self, node: str, changed: Mapping[str, Row | None]) -> bool:
        """Whether a node stays what it is, so that its reviews stay with it."""
        seen = self.nodes.get(node)
        if seen is None or node not in changed:
            return seen is not None
        row = changed[node]
        winner = row.winner() if row is not None else None
        return winner is not None and winner[1].digest == seen.digest

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

    def _change(
        self,
        changed: dict[str, Row | None],
        check: Container[str],
        where: Mapping[str, str],
        *,
        release: bool = False,
        renames: Mapping[str, str] | None = None,
    ) -> Change:
        """Enter rows, journal them, bury what went, and check that no changed edge of ``check`` dangles.

        What was only observed is not ours: it leaves no tombstone. With ``release``, nothing that goes does. Nor does
        what gets another name: ``renames`` says which had which.
        """
        if not changed:
            return Change()
        if not self.rows and not self.gone:
            return self._begin(changed, check, where)
        before = {i: self.nodes.get(i) for i in changed}
        orphaned = {i: tuple(self._below.get(i, ())) for i, node in before.items() if node is not None}
        mark = self.mark()
        self._journal.append(({i: self.rows.get(i) for i in changed}, {}))
        try:
            self._enter(changed)
            self._check_edges(changed, orphaned, check, where)
        except Invalid:
            self.undo(mark)
            raise
        graves: dict[type_key, Tombstone | None] = {}
        renames = renames or {}
        leaving = frozenset(renames.values())
        added, updated, removed, stale = [], [], [], []
        for node, old in before.items():
            new = self.nodes.get(node)
            if new is not None and (node, new.type) in self.gone:
                graves[(node, new.type)] = None
            if old is None:
                if new is not None and node not in renames:
                    added.append(node)
                continue
            if node in leaving:
                stale.append(node)
                continue
            if new is None:
                removed.append(node)
            elif new != old:
                updated.append(node)
            if new is None or new.digest != old.digest or (new.observe and not old.observe):
                stale.append(node)
            if old.observe or (release and new is None):
                continue
            if (new is None or new.type != old.type) and old.type not in BUILT_IN_TYPES:
                graves[(node, old.type)] = Tombstone(
                    node, old.type, old.spec, old.digest, old.depends_on, orphaned[node], old.gating, old.spec_gating,
                    old.refs, was=old.was,
                )  # fmt: skip
        self._bury_journalled(graves)
        reviews = dict.fromkeys(r for n in stale for r in self._reviews.get(n, ()) if r not in changed)
        if reviews:
            self._change(reviews, {}, {})
        pairs = tuple((source, target) for target, source in renames.items())
        return Change(tuple(added), tuple(updated), tuple(removed), pairs)

    def _begin(self, changed: Mapping[str, Row | None], check: Container[str], where: Mapping[str, str]) -> Change:
        """:meth:`_change` of an empty graph: there is nothing to compare with, nothing to bury."""
        mark = self.mark()
        self._journal.append((dict.fromkeys(changed), {}))
        try:
            self._enter(changed)
            if self._dangling or len(self.nodes) < len(self.rows):
                self._check_edges(changed, {}, check, where)
        except Invalid:
            self.undo(mark)
            raise
        return Change(tuple(self.nodes))

    def _check_edges(
        self,
        changed: Mapping[str, Row | None],
        orphaned: Mapping[str, tuple[str, ...]],
        check: Container[str],
        where: Mapping[str, str],
    ) -> None:
        """Nodes that are declared as they were before are not looked at again, unless what they name is gone."""
        for node, row in changed.items():
            if row is not None and node in check:
                for target in row.edges():
                    if target not in self.nodes:
                        raise self._dangles(node, target, where)
        if not where and not check:
            return  # removals by policies and deletions strip edges; only declarations may not leave any dangling
        for node, users in orphaned.items():
            if node not in self.nodes:
                for user in users:
                    if user in self.nodes and node in self.rows[user].edges():
                        raise self._dangles(user, node, where)

    def _dangles(self, node: str, target: str, where: Mapping[str, str]) -> Dangling:
        place, row = where.get(node), self.rows[node]
        path = ""
        if place is not None:
            winner = row.winner()
            spec = winner[1].spec if winner is not None and winner[1].refs else msgspec.Raw(b"{}")
            referring = place_of(spec, target)
            path = f"{place}/spec{referring}" if referring else f"{place}/depends_on/{row.edges().index(target)}"
        return Dangling(node, target, path=path)

    def _bury_journalled(self, graves: dict[type_key, Tombstone | None]) -> None:
        if graves:
            self._journal.append(({}, {k: self.gone.get(k) for k in graves}))
            self._bury(graves)
