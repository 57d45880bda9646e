"""A topological order that is kept while edges come and go.

D. J. Pearce and P. H. J. Kelly, "A Dynamic Topological Sort Algorithm for Directed Acyclic Graphs", ACM JEA 11
(2006). An edge that agrees with the order costs O(1); one that does not costs only the region between its ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .errors import Cycle

_Edges = Mapping[str, Iterable[str]]


class TopologicalOrder:
    """Positions of nodes such that every node comes after what it depends on.

    The owner of the edges passes them in: ``above`` maps a node to its dependencies, ``below`` to its dependents.
    """

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._next = 0

    def __getitem__(self, node: str) -> int:
        return self._at[node]

    def copy(self) -> TopologicalOrder:
        """An independent copy."""
        other = TopologicalOrder()
        other._at, other._next = dict(self._at), self._next
        return other

    def add(self, node: str) -> None:
        """Place a node without edges (a no-op for a known one)."""
        if node not in self._at:
            self._at[node] = self._next
            self._next += 1

    def remove(self, node: str) -> None:
        self._at.pop(node, None)

    def insert_edge(self, source: str, target: str, above: _Edges, below: _Edges) -> None:
        """Make room for "source depends on target", before the edge is entered. Raises :class:`Cycle`."""
        at = self._at
        if source == target:
            raise Cycle((source, source))
        low, high = at[source], at[target]
        if high < low:
            return
        forward = self._reach(source, below, lambda n: at[n] <= high, target)
        backward = self._reach(target, above, lambda n: at[n] >= low, None)
        moved = sorted(backward, key=at.__getitem__) + sorted(forward, key=at.__getitem__)
        for node, place in zip(moved, sorted(at[n] for n in moved), strict=True):
            at[node] = place

    def _reach(self, start: str, edges: _Edges, inside, goal: str | None) -> list[str]:  # type: ignore[no-untyped-def]
        came_from: dict[str, str] = {start: ""}
        stack = [start]
        while stack:
            node = stack.pop()
            for other in edges.get(node, ()):
                if other == goal:
                    raise Cycle(self._path(came_from, node, other))
                if other not in came_from and inside(other):
                    came_from[other] = node
                    stack.append(other)
        return list(came_from)

    @staticmethod
    def _path(came_from: dict[str, str], last: str, goal: str) -> tuple[str, ...]:
        # Walking from the source over dependents found the goal: each node on the way depends on the one before.
        chain = [goal, last]
        while came_from[chain[-1]]:
            chain.append(came_from[chain[-1]])
        return (chain[-1], *chain)

    def rebuild(self, above: Mapping[str, Iterable[str]]) -> None:
        """Order a whole graph at once (A. B. Kahn, CACM 5 (1962)): O(nodes + edges). Raises :class:`Cycle`."""
        waits: dict[str, int] = {}
        below: dict[str, list[str]] = {}
        for node, targets in above.items():
            count = 0
            for target in targets:
                below.setdefault(target, []).append(node)
                count += 1
            waits[node] = count
        ready = [n for n, count in waits.items() if not count]
        for node in ready:
            for dependent in below.get(node, ()):
                waits[dependent] -= 1
                if not waits[dependent]:
                    ready.append(dependent)
        if len(ready) < len(waits):
            raise Cycle(_find_cycle({n: list(above[n]) for n, count in waits.items() if count}))
        self._at = {node: i for i, node in enumerate(ready)}
        self._next = len(ready)


def _find_cycle(stuck: dict[str, list[str]]) -> tuple[str, ...]:
    """One cycle among nodes of which each has a dependency that is also stuck."""
    node = min(stuck)
    seen: dict[str, int] = {}
    path: list[str] = []
    while node not in seen:
        seen[node] = len(path)
        path.append(node)
        node = min(t for t in stuck[node] if t in stuck)
    return (*path[seen[node] :], node)
