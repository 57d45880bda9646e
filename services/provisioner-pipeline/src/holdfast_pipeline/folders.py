"""Which folder is whose: ``<warehouse>/<tenant>/<graph>/<layer>/<stage>`` and the ``__`` tables beside it.

A stage claims its folder with a small file that names its type. While a stage of the same id but another type still
has its folder, the new one uses ``<stage>.<type>``; so removing the old form cannot take the new one's data.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast_model.errors import Invalid, Problem, Temporary
from holdfast_model.names import check_label

from .locations import create, remove_tree
from .objects import Location
from .specs import INGESTION, LAYERS, SCHEMA, VALIDATOR
from .tasks import EngineSettings

CLAIM = "_holdfast"
FILES = "files"
QUARANTINE = "quarantine"
DECISIONS = "decisions"

_SIDE: dict[str, tuple[str, ...]] = {
    SCHEMA: (DECISIONS,),
    INGESTION: (FILES,),
    VALIDATOR: (QUARANTINE, DECISIONS),
}
_STAGE = re.compile(r"[a-z](?!.*__)[a-z0-9_-]{0,62}\Z")


def is_stage(name: str) -> bool:
    """Whether a name can be a stage's id."""
    return _STAGE.match(name) is not None


@dataclass(frozen=True)
class StageFolder:
    """The folders of one stage. ``main`` holds its table."""

    layer: Location
    name: str
    type: str

    @property
    def main(self) -> Location:
        return self.layer / self.name

    def side(self, suffix: str) -> Location:
        """The table beside it: files, quarantine or decisions."""
        return self.layer / f"{self.name}__{suffix}"

    def claim(self) -> None:
        """Make the folder and say whose it is. Temporary when a stage of another type was faster."""
        try:
            create(self.main / CLAIM, self.type.encode())
        except FileExistsError:
            owner = _owner(self.main)
            if owner == "":  # a crash between making the claim and writing it
                (self.main / CLAIM).write_bytes(self.type.encode())
            elif owner != self.type:
                raise Temporary(f"folder {self.name} was taken meanwhile") from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes of this machine out while the stage does what no commit decides: they wait. Whoever is
        killed lets go. Between machines nothing is kept out, so what is done must be right when it is done twice."""
        self.claim()
        if not isinstance(self.main, Path):
            yield  # processes of many machines use it, and none is kept out
            return
        handle = os.open(self.main, os.O_RDONLY)
        try:
            with suppress(OSError):  # file systems without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def remove(self) -> None:
        """Remove the stage's tables and nothing else. Safe to run again after a crash."""
        doomed = [self.side(s) for s in _SIDE.get(self.type, ())]
        if self.type != SCHEMA:
            doomed.append(self.main)  # last: it holds the claim
        try:
            for folder in doomed:
                remove_tree(folder, last=CLAIM)
        except OSError as e:
            raise Temporary(f"tables of {self.name} cannot be removed: {e}") from e


def stage_folder(settings: EngineSettings, tenant: str, graph: str, node: str, node_type: str) -> StageFolder:
    """The folder of a stage, existing or not. Raises Invalid for names that no compiler lets through."""
    check_label(tenant, "tenant", "/tenant")
    check_label(graph, "graph", "/graph")
    if not is_stage(node) or node_type not in LAYERS:
        text = f"{node!r} of type {node_type!r} cannot be a stage"
        raise Invalid(text, [Problem("/node", text)])
    layer = settings.warehouse / tenant / graph / LAYERS[node_type]
    plain, typed = StageFolder(layer, node, node_type), StageFolder(layer, f"{node}.{node_type}", node_type)
    owner = _owner(plain.main)
    if owner == node_type:
        return plain
    if _owner(typed.main) == node_type:
        return typed
    return plain if owner == "" else typed


def _owner(folder: Location) -> str:
    try:
        return (folder / CLAIM).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as e:
        raise Temporary(f"folder {folder.name} cannot be read: {e}") from e
