"""Which files' rows are in which data file of a Bronze table.

That is what the rows themselves say (``_file, _tag, _sha``). A data file never changes, so what was read off it once is
kept beside it, and a file that arrives on top of many millions of rows does not have them all read again. Whatever is
lost or damaged of it is read off the rows once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from .ledger import Landed
from .locations import write_whole
from .objects import Location
from .tables import Table, collected

KEPT = "_holdfast_landed"
_Known = dict[str, list[tuple[str, str, str]]]
_DECODER = msgspec.json.Decoder(_Known)


def landed_files(
    table: Table | None,
    *,
    written: Mapping[str, Landed] | None = None,
    appended: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Landed]:
    """The files whose rows are in the table, by name. ``written``: what it was just made to hold; then only names have
    to be read off its new rows, and they are remembered. ``appended``: data files whose names are known."""
    if table is None:
        return {}
    before = _known(table)
    found: _Known = {}
    for path in table.paths():
        rows = before.get(path.name)
        if rows is None:
            rows = _read(table, path, written or {}, (appended or {}).get(path.name))
        found[path.name] = rows
    if written is not None and found.keys() != before.keys():
        _keep(table, found)
    return {name: Landed(name, tag, sha) for rows in found.values() for name, tag, sha in rows}


def _read(
    table: Table, path: Location, written: Mapping[str, Landed], names: Sequence[str] | None
) -> list[tuple[str, str, str]]:
    rows = table.scan([path])
    if names is None and written:
        names = collected(rows.select("_file").unique(), table.folder.name)["_file"].to_list()
    if names and all(n in written for n in names):
        return [(n, written[n].tag, written[n].sha) for n in names]
    distinct = rows.select("_file", "_tag", "_sha").unique()
    return [(name, tag, sha) for name, tag, sha in collected(distinct, table.folder.name).iter_rows()]


def _known(table: Table) -> _Known:
    try:
        return _DECODER.decode((table.folder / KEPT).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}


def _keep(table: Table, found: _Known) -> None:
    with suppress(OSError):  # the rows say the same
        write_whole(table.folder / KEPT, msgspec.json.encode(found))
