"""A few rows of what a stage reads, for a reviewer that may see them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from holdfast_model.errors import HoldfastError

from .previews import preview
from .shelves import Shelves
from .specs import RESERVED_COLUMNS
from .tasks import EngineSettings


class Samples:
    """``rows``: how many of each input at most; 0 gives none."""

    def __init__(self, settings: EngineSettings, rows: int) -> None:
        self._settings = settings
        self._rows = rows

    def of(self, tenant: str, graph: str, spec: object) -> list[dict[str, Any]]:
        """``[{stage, columns: {name: type}, rows}]`` of the inputs that a stage's spec names and that can be read."""
        if not self._rows or not isinstance(spec, Mapping):
            return []
        shelves = Shelves(self._settings, tenant, graph)
        found = []
        for name in _inputs(spec):
            try:
                seen = preview(shelves, name, as_of="", limit=self._rows, quarantine=False, now=0.0)
            except (HoldfastError, OSError):
                continue
            shown = [i for i, c in enumerate(seen.columns) if c.name not in RESERVED_COLUMNS]
            columns = {seen.columns[i].name: seen.columns[i].type for i in shown}
            found.append({"stage": name, "columns": columns, "rows": [[row[i] for i in shown] for row in seen.rows]})
        return found


def _inputs(spec: Mapping[str, Any]) -> Iterable[str]:
    given = spec.get("inputs") or ([spec["input"]] if "input" in spec else [])
    for entry in given if isinstance(given, list) else []:
        node = msgspec.to_builtins(entry).get("node") if isinstance(entry, Mapping) else None
        if isinstance(node, str):
            yield node
