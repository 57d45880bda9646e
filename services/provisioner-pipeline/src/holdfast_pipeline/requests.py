"""Requests to the pipeline beside what every domain answers: lineage, rows and differences of its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from holdfast_model.errors import Invalid, Problem, Unavailable

from .lineage import FileLineage, GraphLineage, Lineage, file_lineage, graph_lineage, stage_lineage
from .looks import Looks
from .previews import Difference, Preview, difference, preview
from .shelves import Shelves
from .tasks import EngineSettings

T = TypeVar("T")

LIMIT = 25.0
"""Seconds after which the caller is told that it takes too long."""


class LineageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a stage, of a file, or (with neither) of all stages. ``as_of``: a version, a time, or how long ago."""

    tenant: str
    graph: str
    stage: str = ""
    file: str = ""
    as_of: str = ""
    actor: str = ""


class PreviewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: str
    graph: str
    stage: str
    limit: int = 20
    quarantine: bool = False
    as_of: str = ""
    actor: str = ""


class DiffRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``before`` and ``after``: a version, a time, or how long ago; ``after`` "" = now. ``limit``: sample rows."""

    tenant: str
    graph: str
    stage: str
    before: str
    after: str = ""
    limit: int = 10
    actor: str = ""


_lineage_request = msgspec.json.Decoder(LineageRequest).decode
_preview_request = msgspec.json.Decoder(PreviewRequest).decode
_diff_request = msgspec.json.Decoder(DiffRequest).decode


class Requests:
    """Decode, look (in a thread, a few at a time), answer. Nothing is ever changed."""

    def __init__(self, settings: EngineSettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._looks = Looks(LIMIT)

    async def lineage(self, body: bytes) -> Lineage | FileLineage | GraphLineage:
        asked = _lineage_request(body)
        shelves = Shelves(self._settings, asked.tenant, asked.graph)
        if asked.stage and asked.file:
            text = "name a stage or a file, not both"
            raise Invalid(text, [Problem("/file", text)])
        if asked.file:
            return await self._look(lambda: file_lineage(shelves, asked.file))
        if asked.stage:
            return await self._look(lambda: stage_lineage(shelves, asked.stage, asked.as_of, self._now()))
        return await self._look(lambda: graph_lineage(shelves))

    async def preview(self, body: bytes) -> Preview:
        asked = _preview_request(body)
        shelves = Shelves(self._settings, asked.tenant, asked.graph)

        def look() -> Preview:
            return preview(
                shelves, asked.stage, as_of=asked.as_of, limit=asked.limit, quarantine=asked.quarantine, now=self._now()
            )

        return await self._look(look)

    async def diff(self, body: bytes) -> Difference:
        asked = _diff_request(body)
        if not 0 <= asked.limit <= 100:
            text = f"limit {asked.limit} is not between 0 and 100"
            raise Invalid(text, [Problem("/limit", text)])
        shelves = Shelves(self._settings, asked.tenant, asked.graph)
        return await self._look(
            lambda: difference(shelves, asked.stage, asked.before, asked.after, asked.limit, self._now())
        )

    async def _look(self, work: Callable[[], T]) -> T:
        try:
            return await self._looks.run(work)
        except TimeoutError:
            raise Unavailable(f"it takes longer than {LIMIT:g} s", hint="look at a smaller table") from None
        except OSError as e:
            raise Unavailable(f"the tables cannot be read: {e.strerror or e}") from e
