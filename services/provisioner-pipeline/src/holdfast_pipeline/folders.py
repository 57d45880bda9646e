"""Which folder is whose: ``<warehouse>/<tenant>/<graph>/<layer>/<stage>`` and the ``__`` tables beside it.

A stage claims its folder with a small file that names its type. While a stage of the same id but another type still
has its folder, the new one uses ``<stage>.<type>``; so removing the old form cannot take the new one's data.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from holdfast_model.errors import Invalid, Problem, Temporary
from holdfast_model.names import check_label

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


@dataclass(frozen=True)
class StageFolder:
    """The folders of one stage. ``main`` holds its table."""

    layer: Path
    name: str
    type: str

    @property
    def main(self) -> Path:
        return self.layer / self.name

    def side(self, suffix: str) -> Path:
        """The table beside it: files, quarantine or decisions."""
        return self.layer / f"{self.name}__{suffix}"

    def claim(self) -> None:
        """Make the folder and say whose it is. Temporary when a stage of another type was faster."""
        self.main.mkdir(parents=True, exist_ok=True)
        try:
            with open(self.main / CLAIM, "x", encoding="utf-8") as f:
                f.write(self.type)
        except FileExistsError:
            owner = _owner(self.main)
            if owner == "":  # a crash between making the claim and writing it
                (self.main / CLAIM).write_text(self.type, encoding="utf-8")
            elif owner != self.type:
                raise Temporary(f"folder {self.name} was taken meanwhile") from None

    def remove(self) -> None:
        """Remove the stage's tables and nothing else. Safe to run again after a crash."""
        doomed = [self.side(s) for s in _SIDE.get(self.type, ())]
        if self.type != SCHEMA:
            doomed.append(self.main)  # last: it holds the claim
        try:
            for folder in doomed:
                grave = folder.with_name(f".removed-{folder.name}")
                if grave.exists():
                    shutil.rmtree(grave)
                if folder.is_symlink():
                    folder.unlink()
                elif folder.exists():
                    os.rename(folder, grave)
                    shutil.rmtree(grave)
        except OSError as e:
            raise Temporary(f"tables of {self.name} cannot be removed: {e}") from e


def stage_folder(settings: EngineSettings, tenant: str, graph: str, node: str, node_type: str) -> StageFolder:
    """The folder of a stage, existing or not. Raises Invalid for names that no compiler lets through."""
    check_label(tenant, "tenant", "/tenant")
    check_label(graph, "graph", "/graph")
    if not _STAGE.match(node) or node_type not in LAYERS:
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


def _owner(folder: Path) -> str:
    try:
        return (folder / CLAIM).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except OSError as e:
        raise Temporary(f"folder {folder.name} cannot be read: {e}") from e
