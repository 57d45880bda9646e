"""Logs of a process: readable text, or one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, Literal

FASTSTREAM = "holdfast.faststream"
"""The name it logs under; its own has a handler and a format of its own."""

QUIET = ("uvicorn", "nats", "asyncio", "redis")


class JsonFormatter(logging.Formatter):
    """One line per record: time (RFC 3339, UTC), level, logger, service, message, error."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "service": self._service,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(service: str, format: Literal["text", "json"], level: str) -> None:
    """Send the logs of this process to standard error. Libraries speak up from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    if format == "json":
        handler.setFormatter(JsonFormatter(service))
    else:
        text = f"%(asctime)s %(levelname)-7s {service} %(name)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for library in QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)
    # It warns of every broken connection with a traceback; the bus says that in a line.
    logging.getLogger(FASTSTREAM).setLevel(logging.ERROR)
