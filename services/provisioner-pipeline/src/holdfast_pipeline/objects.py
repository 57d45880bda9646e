"""Objects of a store, with as much of :class:`pathlib.Path` as tables and targets use.

Every failure is an OSError with a sentence for people, as those of a file system are: FileNotFoundError for a key that
is not there, FileExistsError for a lost race, PermissionError for credentials that are refused or missing, plain
OSError for a store that does not answer. No error names a credential.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from .stores import StoreRef

TRIES = 3
CONNECT, READ = 5.0, 30.0
"""Seconds for a connection and for an answer, each; a look that takes longer altogether is UNKNOWN anyway."""
PART = 64 << 20
"""Bytes of one part of an upload; larger files are put in several."""
_CHUNK = 1 << 20
_GONE = frozenset({"404", "NoSuchKey", "NotFound"})
_LOST = frozenset({"412", "409", "PreconditionFailed", "ConditionalRequestConflict"})
_REFUSED = frozenset(
    {
        "403", "AccessDenied", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
        "SignatureDoesNotMatch", "TokenRefreshRequired", "RequestTimeTooSkewed", "AccountProblem",
    }
)  # fmt: skip
_CREDENTIAL = re.compile(r"[\x21-\x7e]+\Z")
_connecting = threading.Lock()


class Credentials(NamedTuple):
    key: str
    secret: str
    token: str

    def __repr__(self) -> str:
        return "Credentials(...)"


class Entry(NamedTuple):
    """One object of a listing. ``written``: when, in seconds since the epoch."""

    key: str
    size: int
    etag: str
    written: float = 0.0


@dataclass(frozen=True)
class ObjectPath:
    """A key, or the part of keys before a ``/``: what a file or a folder is on a disk."""

    store: StoreRef
    parts: tuple[str, ...]

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.store, (*self.parts, *name.split("/")))

    def __str__(self) -> str:
        return f"s3://{self.store.bucket}/{self.key}"

    @property
    def key(self) -> str:
        return "/".join(self.parts)

    @property
    def name(self) -> str:
        return self.parts[-1] if self.parts else self.store.bucket

    @property
    def url(self) -> str:
        """As Delta's library wants it."""
        return f"s3://{self.store.bucket}/{quote(self.key)}"

    def list(self, most: int = 0) -> Iterator[Entry]:
        """The objects below it, by key; ``most``: how many are wanted at most. Pages of a thousand."""
        prefix = f"{self.key}/" if self.parts else ""
        with _told(self.store):
            limits = {"MaxItems": most or None, "PageSize": min(most or 1000, 1000)}
            lister = client(self.store).get_paginator("list_objects_v2")
            pages = lister.paginate(Bucket=self.store.bucket, Prefix=prefix, PaginationConfig=limits)
            for page in pages:
                for found in page.get("Contents", ()):
                    etag, written = found["ETag"].strip('"'), found["LastModified"].timestamp()
                    yield Entry(found["Key"], int(found["Size"]), etag, written)

    def children(self) -> Iterator[str]:
        """The next segment of the keys below it, each once."""
        prefix = f"{self.key}/" if self.parts else ""
        with _told(self.store):
            lister = client(self.store).get_paginator("list_objects_v2")
            for page in lister.paginate(Bucket=self.store.bucket, Prefix=prefix, Delimiter="/"):
                yield from (f["Prefix"][len(prefix) : -1] for f in page.get("CommonPrefixes", ()))
                yield from (f["Key"][len(prefix) :] for f in page.get("Contents", ()))

    def is_dir(self) -> bool:
        return any(True for _ in self.list(most=1))

    def head(self) -> dict[str, Any]:
        """``ETag``, ``ContentLength`` and ``LastModified`` of the object. FileNotFoundError when there is none."""
        with _told(self.store, self.key):
            found = client(self.store).head_object(Bucket=self.store.bucket, Key=self.key)
            return {**found, "ETag": found["ETag"].strip('"')}

    def exists(self) -> bool:
        """Whether there is such an object (not: objects below it)."""
        with suppress(FileNotFoundError):
            self.head()
            return True
        return False

    def read_bytes(self) -> bytes:
        with _told(self.store, self.key):
            body: bytes = client(self.store).get_object(Bucket=self.store.bucket, Key=self.key)["Body"].read()
            return body

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes, *, new: bool = False) -> None:
        """Make ``content`` the object's. ``new``: FileExistsError when there is such an object already."""
        condition = {"IfNoneMatch": "*"} if new else {}
        with _told(self.store, self.key):
            client(self.store).put_object(Bucket=self.store.bucket, Key=self.key, Body=content, **condition)

    def fetch(self, etag: str, to: Path) -> None:
        """Write the object's content, which must still be that of ``etag``, to a local file. FileNotFoundError or
        FileExistsError when it is not."""
        with _told(self.store, self.key):
            found = client(self.store).get_object(Bucket=self.store.bucket, Key=self.key, IfMatch=f'"{etag}"')
            with open(to, "wb") as f:
                for chunk in found["Body"].iter_chunks(_CHUNK):
                    f.write(chunk)

    def put(self, path: Path, *, replaces: str | None = None) -> None:
        """Make a local file the object's content. ``replaces``: the etag of the object that may be
        replaced; "": there must be none; None: whatever is there. FileExistsError when that is not so."""
        condition: dict[str, str] = {}
        if replaces is not None:
            condition = {"IfMatch": f'"{replaces}"'} if replaces else {"IfNoneMatch": "*"}
        where = {"Bucket": self.store.bucket, "Key": self.key}
        with _told(self.store, self.key), open(path, "rb") as f:
            if os.fstat(f.fileno()).st_size <= PART:
                client(self.store).put_object(**where, **condition, Body=f)
                return
            api = client(self.store)
            upload = api.create_multipart_upload(**where)["UploadId"]
            try:
                parts: list[dict[str, Any]] = []
                while body := f.read(PART):
                    number = len(parts) + 1
                    part = api.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
                    parts.append({"PartNumber": number, "ETag": part["ETag"]})
                api.complete_multipart_upload(**where, **condition, UploadId=upload, MultipartUpload={"Parts": parts})
            except BaseException:
                with suppress(Exception):
                    api.abort_multipart_upload(**where, UploadId=upload)
                raise

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object; stores do not say whether there was one."""
        with _told(self.store, self.key):
            client(self.store).delete_object(Bucket=self.store.bucket, Key=self.key)

    def remove_all(self, *, last: str = "") -> None:
        """Remove every object below it; a table's log after its files, and an object called ``last`` in the end."""
        own = f"{self.key}/{last}"
        found = sorted((e.key for e in self.list()), key=lambda key: (key == own, "/_delta_log/" in key, key))
        for start in range(0, len(found), 1000):
            with _told(self.store, self.key):
                doomed = {"Objects": [{"Key": key} for key in found[start : start + 1000]], "Quiet": True}
                failed = client(self.store).delete_objects(Bucket=self.store.bucket, Delete=doomed).get("Errors")
            if failed:
                raise OSError(errno.EIO, f"{failed[0].get('Key')!r} of {self.store.shown} cannot be removed")


Location = Path | ObjectPath
"""Where a table or a file is."""


def delta_place(folder: Location) -> tuple[str, dict[str, str] | None]:
    """How Delta's library finds a table: address and options. Only one of two writers of a version succeeds, as the
    store is asked to put each entry of the log only where there is none."""
    if isinstance(folder, Path):
        return str(folder), None
    common = _options(folder.store)
    limits = {"connect_timeout": f"{CONNECT:g}s", "timeout": f"{READ:g}s", "max_retries": str(TRIES - 1)}
    return folder.url, {**common, **limits, "retry_timeout": "20s", "aws_conditional_put": "etag"}


def scan_options(path: Location) -> dict[str, Any]:
    """What polars' readers are given besides the name of a file, so that they find an object."""
    if isinstance(path, Path):
        return {}
    # Without the provider being None, polars looks for credentials of its own on the machine.
    return {"storage_options": {**_options(path.store), "max_retries": TRIES - 1}, "credential_provider": None}


def _options(store: StoreRef) -> dict[str, str]:
    with _told(store):
        found = credentials(store)
    options = {"aws_region": store.region, "aws_access_key_id": found.key, "aws_secret_access_key": found.secret}
    if found.token:
        options["aws_session_token"] = found.token
    if store.endpoint:
        options["aws_endpoint_url"] = store.endpoint
    if store.allow_http:
        options["aws_allow_http"] = "true"
    return options


def credentials(store: StoreRef) -> Credentials:
    """What the store's references mean now: files and roles may have been renewed since. PermissionError when there is
    nothing."""
    if store.key:
        found = [_looked_up(reference) if reference else "" for reference in (store.key, store.secret, store.token)]
        return Credentials(*found)
    from botocore.exceptions import BotoCoreError

    with _connecting:
        try:
            offered = _session().get_credentials()
            frozen = offered.get_frozen_credentials() if offered is not None else None
        except BotoCoreError:
            frozen = None
    if frozen is None or not frozen.access_key:
        raise PermissionError(errno.EACCES, f"there are no credentials for {store.shown}")
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")


def _looked_up(reference: str) -> str:
    kind, _, name = reference.partition(":")
    try:
        found = os.environ.get(name, "") if kind == "env" else Path(name).read_text(encoding="latin-1")
    except OSError as e:
        raise PermissionError(errno.EACCES, f"credentials are missing: {name!r} cannot be read: {e.strerror}") from None
    found = found.strip()
    if not _CREDENTIAL.match(found):  # it would be quoted in the error of whoever is given it
        where = f"the variable {name}" if kind == "env" else f"file {name!r}"
        why = "no text of one line" if found else "empty"
        raise PermissionError(errno.EACCES, f"credentials are missing: {where} is {why}")
    return found


def warm() -> None:
    """Load what takes a second to load, before processes are forked that all need it. Connects to nothing."""
    _client(StoreRef("s3://nothing", endpoint="https://localhost"), Credentials("none", "none", ""))


WARM = f"{__name__}:warm"


@lru_cache(maxsize=1)
def _session() -> Any:
    """Knows how to talk to S3, and finds (and renews) the machine's own credentials. Used by one thread at a time."""
    import boto3

    return boto3.session.Session()


def client(store: StoreRef) -> Any:
    """A client with the credentials as they are now. boto3 is only loaded where a store is used."""
    found = credentials(store)
    with _connecting:
        return _client(store, found)


@lru_cache(maxsize=32)
def _client(store: StoreRef, found: Credentials) -> Any:
    from botocore.config import Config

    for name in ("botocore", "boto3", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)  # below that they log headers, with the session's token
    config = Config(
        connect_timeout=CONNECT,
        read_timeout=READ,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        max_pool_connections=32,
        # Servers that are not Amazon's do not know the newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if store.endpoint else "auto"},
    )
    return _session().client(
        "s3", region_name=store.region, endpoint_url=store.endpoint or None, config=config,
        aws_access_key_id=found.key, aws_secret_access_key=found.secret, aws_session_token=found.token or None,
    )  # fmt: skip


@contextmanager
def _told(store: StoreRef, key: str = "") -> Iterator[None]:
    """What the client raises, as an OSError that says which store, and why, and nothing of the request."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as e:
        raise _meaning(e, store, key) from None
    except BotoCoreError as e:
        raise OSError(errno.EHOSTUNREACH, f"{store.shown} does not answer ({type(e).__name__})") from None


def _meaning(error: Any, store: StoreRef, key: str) -> OSError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if code == "NoSuchBucket":
        return OSError(errno.EIO, f"there is no bucket {store.bucket!r} at {store.endpoint or 'Amazon'}")
    if code in _GONE:
        return FileNotFoundError(errno.ENOENT, f"there is no object {key!r} in {store.shown}")
    if code in _LOST:
        return FileExistsError(errno.EEXIST, f"object {key!r} of {store.shown} was written by somebody else meanwhile")
    if code in _REFUSED or status in ("401", "403"):
        return PermissionError(errno.EACCES, f"{store.shown} refuses these credentials ({code})")
    return OSError(errno.EIO, f"{store.shown} cannot do that ({code or status})")
