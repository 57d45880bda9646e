"""What is known of domains right now: how types are treated, who is live, and how much work there is room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from holdfast_model.reconciler import TypeInfo, type_infos
from holdfast_model.rows import Declaration
from holdfast_store.domains import Domains, Registry

QueueKey = tuple[str, str]
Wake = Callable[[], None]


def claimed_types(registry: Registry, now: float) -> dict[str, TypeInfo]:
    """How each claimed type is treated, by the highest live version of its domain."""
    infos: dict[str, TypeInfo] = {}
    for domain in registry.names():
        manifest = registry.manifest(domain, now)
        if manifest is None:
            continue
        live = registry.newest_live(domain, now) is not None
        mine = type_infos(manifest, live=live).items()
        infos.update((name, info) for name, info in mine if registry.domain_of(name) == domain)
    return infos


class Catalog:
    """A snapshot of the registry, refreshed often; ``listeners`` hear when it changed."""

    def __init__(self, domains: Domains, clock: Callable[[], float]) -> None:
        self._domains = domains
        self._clock = clock
        self._registry = Registry((), {})
        self.infos: Mapping[str, TypeInfo] = {}
        self.listeners: list[Callable[[], None]] = []
        self.came: list[Callable[[str], None]] = []
        self._live: frozenset[str] = frozenset()

    @property
    def registry(self) -> Registry:
        return self._registry

    async def refresh(self) -> None:
        """Read the registry again. Raises Unavailable."""
        self._registry = await self._domains.registry()
        now = self._clock()
        infos = claimed_types(self._registry, now)
        live = frozenset(self._registry.live(now))
        came, self._live = live - self._live, live
        if infos != self.infos:
            self.infos = infos
            for listener in self.listeners:
                listener()
        for domain in came:
            for hear in self.came:
                hear(domain)

    def is_live(self, domain: str) -> bool:
        return domain in self._live

    def version_of(self, domain: str) -> str:
        """The highest live version of a domain, which compiles and observes; "" when none is live."""
        newest = self._registry.newest_live(domain, self._clock())
        return newest.version if newest is not None else ""

    def gone(self) -> dict[str, float]:
        """Domains that are not running, with the time since when (s since the epoch)."""
        now = self._clock()
        since = {name: self._registry.gone_since(name, now) for name in self._registry.names()}
        return {name: when for name, when in since.items() if when is not None}

    def live_domains(self) -> list[str]:
        return sorted(self._live)

    def spec_schemas(self) -> dict[str, dict[str, object] | None]:
        """The schema of each claimed type's specs, where its domain announced one."""
        now = self._clock()
        manifests = (self._registry.manifest(name, now) for name in self._registry.names())
        return {t.name: t.spec_schema for manifest in manifests if manifest for t in manifest.types}

    def unknown_types(self, nodes: Iterable[tuple[str, Declaration]]) -> list[str]:
        """Warnings for types that no domain has ever claimed."""
        unknown = sorted({d.type for _, d in nodes} - self.infos.keys())
        return [f"no domain has announced the type {name!r}; its nodes wait for one" for name in unknown[:10]]

    def slots(self, key: QueueKey) -> int:
        """Batches of a queue that the live provisioners hold at once."""
        domain, queue = key
        return self._registry.slots(domain, queue, self._clock())

    def described(self) -> Sequence[dict[str, object]]:
        """For people: domains, their versions, types and instances."""
        now = self._clock()
        out: list[dict[str, object]] = []
        for name in self._registry.names():
            versions = self._registry.versions(name)
            newest = self._registry.manifest(name, now)
            out.append(
                {
                    "domain": name,
                    "versions": [v.manifest.version for v in versions],
                    "live": name in self._live,
                    "gone_since": self._registry.gone_since(name, now),
                    "newest": self.version_of(name),
                    "types": [t.name for t in newest.types] if newest else [],
                    "instances": sorted(i for v in versions for i in v.live(now)),
                    "reviews": newest.reviews if newest else False,
                }
            )
        return out


class Budget:
    """Batches under way per queue, over all graphs of this process: at most twice the live slots.

    A graph that finds no room waits in line. When there is room the first in line is invited (and woken); what is kept
    for it nobody else takes, until it has had its turn. While others wait, nobody takes a second turn.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._out: dict[QueueKey, int] = {}
        self._waiting: dict[QueueKey, deque[Wake]] = {}
        self._invited: dict[QueueKey, list[Wake]] = {}

    def room(self, key: QueueKey, wake: Wake) -> int:
        """Batches that the caller may send now; with none, it is woken (once) when there may be room."""
        invited, waiting = self._invited.setdefault(key, []), self._waiting.setdefault(key, deque())
        mine = wake in invited
        free = 2 * self._catalog.slots(key) - self._out.get(key, 0) - len(invited) + mine
        if free > 0 and (mine or not waiting):
            return free
        if wake not in waiting:
            waiting.append(wake)
        return 0

    def take(self, key: QueueKey) -> None:
        self._out[key] = self._out.get(key, 0) + 1

    def give_back(self, key: QueueKey) -> None:
        self._out[key] = max(0, self._out.get(key, 0) - 1)

    def share(self, wake: Wake) -> None:
        """Invite those who wait wherever there is room; called at the end of every turn, by whoever had it."""
        for invited in self._invited.values():
            if wake in invited:
                invited.remove(wake)
        for key, waiting in self._waiting.items():
            invited = self._invited.setdefault(key, [])
            free = 2 * self._catalog.slots(key) - self._out.get(key, 0) - len(invited) if waiting else 0
            for _ in range(min(free, len(waiting))):
                first = waiting.popleft()
                invited.append(first)
                first()

    def leave(self, wake: Wake) -> None:
        """A graph is unloaded."""
        for line in (*self._waiting.values(), *self._invited.values()):
            if wake in line:
                line.remove(wake)


class Room(Mapping[QueueKey, int]):
    """The budget as one graph sees it."""

    def __init__(self, budget: Budget, wake: Wake) -> None:
        self._budget = budget
        self._wake = wake

    def __getitem__(self, key: QueueKey) -> int:
        return self._budget.room(key, self._wake)

    def __iter__(self) -> Iterator[QueueKey]:
        return iter(())

    def __len__(self) -> int:
        return 0
