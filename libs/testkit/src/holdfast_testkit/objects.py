"""A real S3 server (moto) in this process, and its buckets as somebody outside of Holdfast sees them."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from .waiting import LIMIT

KEY, SECRET = "AKIAHOLDFASTTESTKEY0", "sEcReT/that+nobody/may=ever/see"
KEY_ENV, SECRET_ENV = "HOLDFAST_TEST_S3_KEY", "HOLDFAST_TEST_S3_SECRET"


class S3Server:
    """Buckets are there as long as the server runs; :meth:`stop` and :meth:`start` keep the port."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._port = 0
        self.start()

    def start(self) -> None:
        ends = time.monotonic() + LIMIT
        while self._port and not _free(self._port):  # moto would wait for ever
            if time.monotonic() > ends:
                raise RuntimeError(f"somebody took port {self._port} meanwhile")
            time.sleep(0.05)
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()

    def stop(self) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def client(self) -> Any:
        return boto3.session.Session().client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
        )

    def bucket(self, name: str) -> Bucket:
        client = self.client
        client.create_bucket(Bucket=name)
        return Bucket(name, self.url, client)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server binds it
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Bucket:
    """One bucket, as somebody who has nothing to do with Holdfast sees it."""

    def __init__(self, name: str, url: str, client: Any) -> None:
        self.name = name
        self.url = url
        self.client = client

    def store(self, prefix: str = "") -> dict[str, Any]:
        """The setting of a store: credentials by reference."""
        return {
            "uri": f"s3://{self.name}{'/' if prefix else ''}{prefix}",
            "endpoint": self.url,
            "allow_http": True,
            "key": f"env:{KEY_ENV}",
            "secret": f"env:{SECRET_ENV}",
        }

    def put(self, key: str, content: str | bytes, **more: Any) -> None:
        body = content.encode() if isinstance(content, str) else content
        self.client.put_object(Bucket=self.name, Key=key, Body=body, **more)

    def get(self, key: str) -> bytes:
        found: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return found

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def names(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]


def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server, and the credentials where settings say they are."""
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv(SECRET_ENV, SECRET)
    server = S3Server()
    yield server
    server.stop()
