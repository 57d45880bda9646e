"""What is known of domains right now: how types are treated, who is live, and how much work there is room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from holdfast_model.manifest import Manifest
from holdfast_model.names import AI_REVIEW
from holdfast_model.reconciler import TypeInfo
from holdfast_model.rows import Declaration
from holdfast_store.domains import Domains, Registry

QueueKey = tuple[str, str]


def type_infos(registry: Registry, now: float) -> dict[str, TypeInfo]:
    """How each claimed type is treated, by the highest live version of its domain."""
    infos: dict[str, TypeInfo] = {}
    for domain in registry.names():
        manifest = registry.manifest(domain, now)
        if manifest is None:
            continue
        live = registry.newest_live(domain, now) is not None
        for t in manifest.types:
            if registry.domain_of(t.name) != domain:
                continue
            infos[t.name] = TypeInfo(
                domain, manifest.version, live, t.resync, t.timeout, t.batch, str(t.on_drift.value),
                str(t.on_unknown.value), t.observes, t.cascade, t.after_human, t.backoff.base, t.backoff.cap,
                manifest.reviews, t.outcomes,
            )  # fmt: skip
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
        infos = type_infos(self._registry, now)
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
        if queue == AI_REVIEW:
            manifest: Manifest | None = self._registry.newest_live(domain, self._clock())
            return 4 if manifest is not None and manifest.reviews else 0
        return self._registry.slots(queue, self._clock())

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
                    "types": [t.name for t in newest.types] if newest else [],
                    "instances": sorted(i for v in versions for i in v.live(now)),
                    "reviews": newest.reviews if newest else False,
                }
            )
        return out


class Budget:
    """Batches under way per queue, over all graphs of this process: at most twice the live slots.

    A graph that finds no room is woken when some comes free; while others wait, nobody takes a second turn.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._out: dict[QueueKey, int] = {}
        self._waiting: dict[QueueKey, deque[Callable[[], None]]] = {}

    def room(self, key: QueueKey, wake: Callable[[], None]) -> int:
        """Batches that the caller may send now; with none, it is woken (once) when there may be room."""
        free = 2 * self._catalog.slots(key) - self._out.get(key, 0)
        waiting = self._waiting.setdefault(key, deque())
        if free > 0 and (not waiting or waiting[0] == wake):
            return free
        if wake not in waiting:
            waiting.append(wake)
        return 0

    def take(self, key: QueueKey) -> None:
        self._out[key] = self._out.get(key, 0) + 1

    def give_back(self, key: QueueKey) -> None:
        self._out[key] = max(0, self._out.get(key, 0) - 1)

    def share(self) -> None:
        """Wake the first that waits wherever there is room; called at the end of every turn."""
        for key, waiting in self._waiting.items():
            if waiting and 2 * self._catalog.slots(key) > self._out.get(key, 0):
                waiting.popleft()()

    def leave(self, wake: Callable[[], None]) -> None:
        """A graph is unloaded."""
        for waiting in self._waiting.values():
            if wake in waiting:
                waiting.remove(wake)


class Room(Mapping[QueueKey, int]):
    """The budget as one graph sees it."""

    def __init__(self, budget: Budget, wake: Callable[[], None]) -> None:
        self._budget = budget
        self._wake = wake

    def __getitem__(self, key: QueueKey) -> int:
        return self._budget.room(key, self._wake)

    def __iter__(self) -> Iterator[QueueKey]:
        return iter(())

    def __len__(self) -> int:
        return 0
