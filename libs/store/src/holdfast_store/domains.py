"""Domains that announced themselves: manifests by (domain, version), heartbeats, claims of types, preferences.

A heartbeat that is too old ends liveness, never the manifest: nodes of a domain that is gone keep their types. A
type belongs to the domain that claimed it first, until that domain is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from holdfast_model.errors import Conflict, Invalid, Problem
from holdfast_model.manifest import Announcement, Manifest, check_manifest, version_key

from . import keys
from .kv import Ambiguous, Changed, Cmd, Kv

EXPIRY = 30.0
"""Seconds without a heartbeat after which an instance is no longer live."""

_FORGET_INSTANCE = 3600.0
_ROUNDS = 8

_encode = msgspec.json.Encoder().encode
_decode_manifest = msgspec.json.Decoder(Manifest).decode


class Heartbeat(msgspec.Struct, frozen=True, array_like=True):
    """One instance: when it was last heard of (s since the epoch) and its slots per type."""

    seen: float
    slots: dict[str, int]


_decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
_decode_time = msgspec.json.Decoder(float).decode
_decode_field = msgspec.json.Decoder(list[str]).decode


class Version(msgspec.Struct):
    """One version of a domain and its instances by name."""

    manifest: Manifest
    instances: dict[str, Heartbeat]

    def live(self, now: float) -> dict[str, Heartbeat]:
        return {name: beat for name, beat in self.instances.items() if now - beat.seen < EXPIRY}


class Registry:
    """All that is known of domains, as it was read. ``now`` is in seconds since the epoch."""

    def __init__(
        self, versions: Iterable[Version], claims: dict[str, str], ended: Mapping[str, float] | None = None
    ) -> None:
        self.claims = claims
        self._ended = ended or {}
        self._domains: dict[str, list[Version]] = {}
        for version in versions:
            self._domains.setdefault(version.manifest.domain, []).append(version)
        for known in self._domains.values():
            known.sort(key=lambda v: version_key(v.manifest.version))

    def names(self) -> list[str]:
        """Every domain that ever announced itself and was not forgotten."""
        return sorted(self._domains)

    def live(self, now: float) -> list[str]:
        """Domains with at least one live instance."""
        return [d for d in self.names() if any(v.live(now) for v in self._domains[d])]

    def gone_since(self, domain: str, now: float) -> float | None:
        """When the last instance of a domain ended or was given up (s since the epoch); None while one is live, and for
        a domain that never was."""
        beats = [beat for version in self.versions(domain) for beat in version.instances.values()]
        if any(now - beat.seen < EXPIRY for beat in beats):
            return None
        ends = [beat.seen + EXPIRY for beat in beats] + [self._ended[d] for d in (domain,) if d in self._ended]
        return max(ends, default=None)

    def versions(self, domain: str) -> list[Version]:
        """Lowest first."""
        return list(self._domains.get(domain, ()))

    def newest_live(self, domain: str, now: float) -> Manifest | None:
        """The highest live version: it compiles and observes."""
        return next((v.manifest for v in reversed(self.versions(domain)) if v.live(now)), None)

    def manifest(self, domain: str, now: float) -> Manifest | None:
        """The highest live version, or the highest known one of a domain that is not running."""
        known = self.versions(domain)
        return self.newest_live(domain, now) or (known[-1].manifest if known else None)

    def domain_of(self, type_name: str) -> str | None:
        """The domain that claimed a node type."""
        return self.claims.get(type_name)

    def slots(self, domain: str, queue: str, now: float) -> int:
        """Batches of a queue (a node type, or ``ai-review``) that the live instances of the domain's highest live
        version hold together, as they announced."""
        for version in reversed(self.versions(domain)):
            live = version.live(now)
            if live:
                return sum(beat.slots.get(queue, 0) for beat in live.values())
        return 0


class Domains:
    """Announcements in, a :class:`Registry` out. ``now`` gives seconds since the epoch."""

    def __init__(self, kv: Kv, now: Callable[[], float]) -> None:
        self._kv = kv
        self._now = now

    async def announce(self, announcement: Announcement) -> str:
        """Take in an announcement or heartbeat; returns the highest live version of the domain.

        Raises Invalid for a manifest that is not acceptable, or that claims a type of another domain (both are
        named); nothing is kept then.
        """
        manifest = announcement.manifest
        beat = _field(manifest.domain, manifest.version, announcement.instance)
        if announcement.leaving:
            ended: Cmd = ("HSET", keys.DOMAINS, _field(manifest.domain), _encode(self._now()))
            await self._kv.run(("HDEL", keys.DOMAINS, beat), ended)
        else:
            written: Cmd = ("HSET", keys.DOMAINS, beat, _encode(Heartbeat(self._now(), announcement.slots)))
            if await self._is_known(manifest):  # and was checked when it was taken in
                await self._kv.run(written)
            else:
                check_manifest(manifest)
                await self._claim(manifest, written)
        newest = (await self.registry()).newest_live(manifest.domain, self._now())
        return newest.version if newest is not None else manifest.version

    async def registry(self) -> Registry:
        """Everything, in one round trip. Instances not heard of for an hour are dropped on the way."""
        fields, claims = await self._kv.run(("HGETALL", keys.DOMAINS), ("HGETALL", keys.CLAIMS))
        versions: dict[tuple[str, str], Version] = {}
        beats: list[tuple[list[str], Heartbeat]] = []
        old: list[bytes] = []
        ended: dict[str, float] = {}
        for field, value in fields.items():
            name = _decode_field(field)
            if len(name) == 2:
                versions[name[0], name[1]] = Version(_decode_manifest(value), {})
                continue
            if len(name) == 1:
                ended[name[0]] = max(ended.get(name[0], 0.0), _decode_time(value))
                continue
            beat = _decode_heartbeat(value)
            beats.append((name, beat))
            if self._now() - beat.seen > _FORGET_INSTANCE:
                old.append(field)
                ended[name[0]] = max(ended.get(name[0], 0.0), beat.seen + EXPIRY)
        for (domain, version, instance), beat in beats:
            if (domain, version) in versions:
                versions[domain, version].instances[instance] = beat
        if old:
            last = [word for domain, when in ended.items() for word in (_field(domain), _encode(when))]
            await self._kv.run(("HDEL", keys.DOMAINS, *old), ("HSET", keys.DOMAINS, *last))
        return Registry(versions.values(), {t.decode(): d.decode() for t, d in claims.items()}, ended)

    async def forget(self, domain: str) -> bool:
        """Drop a domain that will not come back: its manifests and its claims. False when it is not known."""
        fields, claims = await self._kv.run(("HGETALL", keys.DOMAINS), ("HGETALL", keys.CLAIMS))
        mine = [f for f in fields if _decode_field(f)[0] == domain]
        types = [t for t, d in claims.items() if d.decode() == domain]
        await self._kv.run(
            *([("HDEL", keys.DOMAINS, *mine)] if mine else []),
            *([("HDEL", keys.CLAIMS, *types)] if types else []),
        )
        return bool(mine or types)

    async def _is_known(self, manifest: Manifest) -> bool:
        """This very manifest is kept and its types are claimed: only the heartbeat is news."""
        types = [t.name for t in manifest.types]
        kept, *claims = await self._kv.run(
            ("HGET", keys.DOMAINS, _field(manifest.domain, manifest.version)),
            *([("HMGET", keys.CLAIMS, *types)] if types else []),
        )
        held = claims[0] if claims else []
        return kept == _encode(manifest) and all(c == manifest.domain.encode() for c in held)

    async def _claim(self, manifest: Manifest, heartbeat: Cmd) -> None:
        """Keep the manifest and claim its types, in one transaction against other claims."""
        for _ in range(_ROUNDS):
            async with self._kv.watching(keys.CLAIMS) as watch:
                (claims,) = await watch.read(("HGETALL", keys.CLAIMS))
                _refuse_foreign(manifest, {t.decode(): d.decode() for t, d in claims.items()})
                claimed = [w for t in manifest.types for w in (t.name, manifest.domain)]
                try:
                    await watch.commit(
                        ("HSET", keys.DOMAINS, _field(manifest.domain, manifest.version), _encode(manifest)),
                        heartbeat,
                        *([("HSET", keys.CLAIMS, *claimed)] if claimed else []),
                    )
                except (Changed, Ambiguous):
                    continue  # writing the same again does no harm
                return
        raise Conflict(f"too many domains announce themselves at once; {manifest.domain} was not taken in")


def _refuse_foreign(manifest: Manifest, claims: dict[str, str]) -> None:
    problems = [
        Problem(
            f"/types/{i}/name", f"type {t.name!r} belongs to domain {owner!r}; {manifest.domain!r} may not claim it"
        )
        for i, t in enumerate(manifest.types)
        if (owner := claims.get(t.name, manifest.domain)) != manifest.domain
    ]
    if problems:
        raise Invalid(
            "; ".join(p.message for p in problems),
            problems,
            hint="rename the type, or forget the other domain if it will not come back",
        )


def _field(*parts: str) -> str:
    return _encode(parts).decode()


class Preferences:
    """Named values of the platform (tenant "") and of tenants. Checking them is the caller's part."""

    def __init__(self, kv: Kv) -> None:
        self._kv = kv

    async def get(self, tenant: str, name: str) -> object | None:
        """The tenant's value, else the platform's, else None."""
        fields = [_field(tenant, name), _field("", name)]
        (found,) = await self._kv.run(("HMGET", keys.PREFS, *fields))
        return next((msgspec.json.decode(v) for v in found if v is not None), None)

    async def set(self, tenant: str, name: str, value: object) -> None:
        await self._kv.run(("HSET", keys.PREFS, _field(tenant, name), _encode(value)))

    async def unset(self, tenant: str, name: str) -> None:
        await self._kv.run(("HDEL", keys.PREFS, _field(tenant, name)))

    async def all(self) -> dict[tuple[str, str], object]:
        """(tenant or "", name) -> value."""
        (fields,) = await self._kv.run(("HGETALL", keys.PREFS))
        out: dict[tuple[str, str], object] = {}
        for field, value in fields.items():
            tenant, name = _decode_field(field)
            out[tenant, name] = msgspec.json.decode(value)
        return out
