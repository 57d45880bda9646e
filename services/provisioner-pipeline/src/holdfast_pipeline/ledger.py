"""Which files a Bronze table holds, and what is left to do about the files that are there now. Pure.

The ledger of landed files is the distinct set of ``_file, _tag, _sha`` of the table itself. Beside it, *notes* say
what cannot be read off the rows: files that are empty, held or unreadable, and files that were only touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from .drift import ColumnMapping, Examination
from .files import Listing, SourceFile
from .specs import IngestionSpec, contract_digest
from .tables import content_key

NoteState = Literal["empty", "held", "unreadable", "touched"]


@dataclass(frozen=True)
class Landed:
    """A file whose rows are in the table. ``tag``: its tag when it was taken, ``~``, and how it was read."""

    name: str
    tag: str
    sha: str


class Note(msgspec.Struct, frozen=True):
    """What is known of a file beyond its rows. ``reading``: as :func:`reading_of`; ``contract``: its digest."""

    name: str
    tag: str
    sha: str
    reading: str
    state: NoteState
    contract: str = ""
    found: Examination = Examination()


class Ruling(msgspec.Struct, frozen=True):
    """A decision about held files of one ingestion: ``accept`` (contract, signature) or ``reject`` (content)."""

    step: str
    outcome: Literal["accept", "reject"]
    ingestion: str
    contract: str
    signature: str
    sha: str
    file: str = ""
    mapping: ColumnMapping = ColumnMapping()
    by: str = ""
    note: str = ""
    workitem: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Rulings:
    """All decisions about one ingestion's files. ``version`` identifies the set."""

    ingestion: str
    entries: tuple[Ruling, ...] = ()
    version: str = ""

    def accepted(self, contract: str, found: Examination, sha: str) -> ColumnMapping | None:
        """The mapping to read a misfit with: decided for its way of not fitting, or for this very content. The
        newest decision counts. A content that cannot be read is like no other, although the same may be said of it."""
        own = [r for r in self.entries if r.outcome == "accept" and r.ingestion == self.ingestion]
        fit = [
            r
            for r in own
            if r.contract == contract and (r.sha == sha or (not found.unreadable and r.signature == found.signature))
        ]
        return max(fit, key=lambda r: r.at).mapping if fit else None

    def rejected(self, sha: str) -> bool:
        """Whether this content was rejected, under whatever name and contract."""
        return any(r.outcome == "reject" and (r.ingestion, r.sha) == (self.ingestion, sha) for r in self.entries)

    def undecided(self, note: Note) -> bool:
        """Whether a held file waits for a decision."""
        return (
            note.state == "held"
            and not self.rejected(note.sha)
            and self.accepted(note.contract, note.found, note.sha) is None
        )


@dataclass(frozen=True)
class Ledger:
    """What is known of an ingestion's files, by name."""

    landed: Mapping[str, Landed]
    notes: Mapping[str, Note]


@dataclass(frozen=True)
class Work:
    """Files to look at, names whose notes are out of date, and names of landed files that are gone."""

    files: tuple[SourceFile, ...]
    obsolete: frozenset[str]
    vanished: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.files or self.obsolete)


def reading_of(spec: IngestionSpec) -> str:
    """Identifies how files are read: another format, option, contract or run means that all are read again."""
    contract = contract_digest(spec.contract) if spec.contract else ""
    again = {"run": spec.run} if spec.run else {}
    return content_key(format=spec.source.format, options=spec.source.options, contract=contract, **again)[:16]


def seen(listing: Listing, reading: str, rulings: Rulings) -> str:
    """Identifies everything that decides whether there is work: files with their tags, reading, decisions."""
    files = [(f.name, f.tag, f.settled) for _, f in sorted(listing.files.items())]
    return content_key(files=files, reading=reading, rulings=rulings.version)


def plan(listing: Listing, ledger: Ledger, rulings: Rulings, reading: str) -> Work:
    """What is left to do. A file that has not settled is left as it is; a landed file that is gone keeps its rows."""
    files = tuple(f for f in listing.settled if not _known(f, ledger, rulings, reading))
    obsolete = set()
    for name, note in ledger.notes.items():
        there = listing.files.get(name)
        if there is None or (there.settled and (there.tag != note.tag or note.reading != reading)):
            obsolete.add(name)
    vanished = frozenset(name for name in ledger.landed if name not in listing.files)
    return Work(files, frozenset(obsolete), vanished)


def _known(file: SourceFile, ledger: Ledger, rulings: Rulings, reading: str) -> bool:
    landed = ledger.landed.get(file.name)
    if landed is not None and landed.tag == f"{file.tag}~{reading}":
        return True
    note = ledger.notes.get(file.name)
    if note is None or note.tag != file.tag or note.reading != reading:
        return False
    if note.state == "touched":
        return landed is not None and landed.sha == note.sha and landed.tag.endswith(f"~{reading}")
    if note.state == "empty":
        return landed is None
    if note.state == "unreadable":
        return True
    return rulings.rejected(note.sha) or rulings.accepted(note.contract, note.found, note.sha) is None


@dataclass(frozen=True)
class Taken:
    """A file whose rows are to be put into the table. ``mapping``: how an accepted misfit is read."""

    file: SourceFile
    sha: str
    mapping: ColumnMapping | None = None
    renamed_from: str = ""


@dataclass(frozen=True)
class Sorted:
    """The outcome of looking at the files: to land, to note, and landed files whose rows must go."""

    taken: tuple[Taken, ...]
    notes: dict[str, Note]
    emptied: frozenset[str]


def sort_out(
    work: Work,
    found: Iterable[tuple[SourceFile, str, Examination | None]],
    ledger: Ledger,
    rulings: Rulings,
    reading: str,
    contract: str,
) -> Sorted:
    """Decide about each file looked at: (file, sha, examination; None = known by its content already).

    A file with the content of a landed file that is gone is that file under a new name, and takes over its rows; also
    where it was moved over another one. A misfit leaves the old rows of
    its path alone, also when it is rejected.
    """
    notes = {n: note for n, note in ledger.notes.items() if n not in work.obsolete}
    gone: dict[str, list[str]] = {}
    for name in sorted(work.vanished):
        gone.setdefault(ledger.landed[name].sha, []).append(name)
    taken: list[Taken] = []
    emptied: set[str] = set()
    for file, sha, examination in found:
        notes.pop(file.name, None)

        def note(state: NoteState, found: Examination, file: SourceFile = file, sha: str = sha) -> None:
            notes[file.name] = Note(file.name, file.tag, sha, reading, state, contract, found)

        if examination is None:
            note("touched", Examination())
            continue
        if rulings.rejected(sha):
            note("held", examination)
            continue
        mapping = None if examination.fits else rulings.accepted(contract, examination, sha)
        if examination.rows == 0 and not examination.unreadable:
            note("empty", examination)  # a header alone, whichever it is, says nothing about rows to come
            if file.name in ledger.landed:
                emptied.add(file.name)
        elif not examination.fits and mapping is None:
            note("held" if contract else "unreadable", examination)
        elif examination.hopeless:
            note("unreadable", examination)
        else:
            old = gone[sha].pop(0) if gone.get(sha) else ""
            taken.append(Taken(file, sha, mapping, old))
    return Sorted(tuple(taken), notes, frozenset(emptied))
