"""What each table was last made for: the stage's spec, kept beside the table.

Nothing is decided by it. It is for whoever finds a table that nobody declares (:mod:`.leftovers`): what it takes to
declare it again. A table that was made before there were such notes has none until it is made again.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import msgspec

from holdfast_model.errors import HoldfastError

from .folders import StageFolder
from .locations import write_whole
from .recomputing import own_folder
from .specs import DATA_SOURCE, SCHEMA
from .tasks import Context

log = logging.getLogger(__name__)

FORM = "_holdfast_form"
"""File in a stage's folder: a :class:`Form` as JSON."""


class Form(msgspec.Struct, frozen=True):
    """A stage as its last successful step was told to make it."""

    digest: str
    spec: msgspec.Raw
    depends_on: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(Form).decode


def keep_form(context: Context) -> None:
    """Note what the task's stage was made for, if that is new. Raises nothing: the table is as right without it."""
    task = context.task
    if task.type in (DATA_SOURCE, SCHEMA):
        return  # they have no table of their own
    content = msgspec.json.encode(Form(task.digest, task.spec, task.depends_on))
    try:
        path = own_folder(context).main / FORM
        with suppress(FileNotFoundError):
            if path.read_bytes() == content:
                return
        write_whole(path, content)
    except (HoldfastError, OSError) as e:
        log.warning("what %s was made for could not be noted: %s", context.mark, e)


def form_of(folder: StageFolder) -> Form | None:
    """What a stage's table was made for; None where nobody knows. OSError when that cannot be read."""
    try:
        return _decode((folder.main / FORM).read_bytes())
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
