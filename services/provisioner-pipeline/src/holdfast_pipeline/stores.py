"""Which object stores a tenant may use, and what an ``s3://`` URI of a blueprint means there. Pure.

A store is a bucket, or a prefix of one, with references to its credentials. What the references mean is looked up
where a connection is made (:mod:`.objects`) and goes nowhere else: not into specs, errors, logs or tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from holdfast_model.errors import Forbidden, Invalid, Problem

SCHEME = "s3"

_URI = re.compile(r"s3://(?P<bucket>[^/]*)(?:/(?P<key>.*))?\Z", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*\Z|file:/.+\Z")


class StoreRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A bucket or a prefix of one: ``s3://bucket[/prefix]``.

    ``endpoint``: URL of a server that is not Amazon's; plain ``http://`` only with ``allow_http``. ``key``, ``secret``
    and ``token`` say where these are: ``env:NAME`` (a variable of this process) or ``file:/path``; without them the
    credentials are those of the machine (instance role, web identity, the usual variables).
    """

    uri: str
    endpoint: str = ""
    region: str = "us-east-1"
    allow_http: bool = False
    key: str = ""
    secret: str = ""
    token: str = ""

    def __post_init__(self) -> None:
        _, prefix = self._parts()
        if any(c in self.uri for c in "*?[\\") or any(p in (".", "..") for p in prefix):
            raise ValueError("uri is s3://bucket or s3://bucket/prefix, without patterns and '..'")
        for name in ("key", "secret", "token"):
            # Never the value: somebody may have written the secret itself.
            if (given := getattr(self, name)) and not _REFERENCE.match(given):
                raise ValueError(f"{name} must say where it is, env:NAME or file:/path, and not be it")
        if bool(self.key) != bool(self.secret):
            raise ValueError("key and secret belong together")
        if self.endpoint:
            _assert_endpoint(self.endpoint, self.allow_http)

    @property
    def bucket(self) -> str:
        return self._parts()[0]

    @property
    def prefix(self) -> tuple[str, ...]:
        """The segments of keys that may be used, from the first."""
        return self._parts()[1]

    @property
    def shown(self) -> str:
        """What people are told about it."""
        return f"{self.uri.rstrip('/')} at {self.endpoint}" if self.endpoint else self.uri.rstrip("/")

    def _parts(self) -> tuple[str, tuple[str, ...]]:
        found = _URI.match(self.uri)
        if found is None or not _BUCKET.match(found["bucket"]):
            raise ValueError("uri is s3://bucket or s3://bucket/prefix")
        return found["bucket"], tuple(p for p in (found["key"] or "").split("/") if p)


def _assert_endpoint(endpoint: str, allow_http: bool) -> None:
    try:
        parts = urlsplit(endpoint)
        named = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        named = False
        parts = urlsplit("")
    if not named or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ValueError("endpoint is a URL like https://host:port")
    if parts.username or parts.password:
        raise ValueError("endpoint must not hold a user or password")
    if parts.scheme == "http" and not allow_http:
        raise ValueError("endpoint is plain http, which needs allow_http: true")


@dataclass(frozen=True)
class ObjectPlace:
    """A key, or a pattern of keys, in a store of a tenant. ``parts``: all segments from the bucket on."""

    store: StoreRef
    parts: tuple[str, ...]


def overlap(one: StoreRef, other: StoreRef) -> bool:
    """Whether some key is in both."""
    if (one.bucket, one.endpoint) != (other.bucket, other.endpoint):
        return False
    common = min(len(one.prefix), len(other.prefix))
    return one.prefix[:common] == other.prefix[:common]


def is_object_uri(uri: str) -> bool:
    """Whether ``uri`` is of an object store."""
    return uri[: len(SCHEME) + 3].lower() == f"{SCHEME}://"


def object_parts(uri: str) -> tuple[str, tuple[str, ...]]:
    """The bucket of an ``s3://`` URI and the segments of its key. Names are taken as they are written, nothing is
    decoded. Raises Invalid."""
    found = _URI.match(uri)
    netloc = found["bucket"] if found else ""
    if found is None or not _BUCKET.match(netloc):
        # It is not repeated: there may be a user and a password in it.
        raise _refused(
            "uri must be s3://bucket/path, with nothing but the bucket's name before the path; the endpoint and "
            "credentials belong to the service's settings"
        )
    parts = (found["key"] or "").split("/")
    if parts[-1] == "":
        parts.pop()
    if any(p in ("", ".", "..") for p in parts) or any(map(_unusual, uri)):
        raise _refused(f"uri {uri!r} must not hold '..', empty parts, control characters or halves of characters")
    return netloc, tuple(parts)


def object_place(stores: Iterable[StoreRef], tenant: str, uri: str) -> ObjectPlace:
    """Where ``uri`` is in one of the tenant's stores; the first that has it wins. Raises Invalid, and Forbidden for a
    bucket or prefix that is not the tenant's."""
    bucket, parts = object_parts(uri)
    for store in stores:
        if store.bucket == bucket and store.prefix == parts[: len(store.prefix)]:
            return ObjectPlace(store, parts)
    raise Forbidden(f"{uri!r} is in no object store of tenant {tenant!r}")


def _unusual(c: str) -> bool:
    """A control character, or half of a pair that JSON may hold and no name."""
    return ord(c) < 32 or ord(c) == 127 or "\ud800" <= c <= "\udfff"


def _refused(text: str) -> Invalid:
    return Invalid(text, [Problem("/uri", text)])
