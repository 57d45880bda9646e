"""Whether the bytes of a text file are what its format says, looked at before any reader bends them.

polars reads ``"5" pipe"`` and takes the next line into it, takes a file whose lines end by CR for a header alone, and
a zip archive for an empty file. What it would misread is refused here, with the line where it begins.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from holdfast_model.errors import Permanent, Temporary

from .files import SourceFile
from .specs import Source

LONGEST = 16 << 20
"""Bytes of a line that is certainly taken."""
MARK = b"\xef\xbb\xbf"  # of the byte order, as some tools put before UTF-8
_GZIP = b"\x1f\x8b"
CHUNK = 1 << 20
_PIECE = 1 << 16
_PACKED = {
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", **{b"BZh%d1AY" % n: "bzip2" for n in range(1, 10)},
}  # fmt: skip
_OTHERS = {
    b"\xd0\xcf\x11\xe0": "a file of Excel or Word", b"PAR1\x15": "a parquet file", b"%PDF-": "a PDF file",
    b"Obj\x01": "an Avro file",
}  # fmt: skip
"""Beginnings that no text has."""
_WIDE = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SEPARATOR = re.compile(rb'(?i)"?sep=([^\r\n"])"?\r?\n')
_ENCODING = re.compile(
    r"(ascii|utf-(16|32)(-[lb]e)?|iso8859-\d+|cp\d{3,4}|koi8-[rtu]|mac-\w+|shift_jis\w*|euc_\w+|gbk|gb2312|gb18030"
    r"|big5\w*|johab|tis-620)\Z"
)


class Unreadable(Permanent):
    """The file's content is not what its format says."""


def encoding_of(name: str) -> str | None:
    """The encoding that an option names, in one spelling (``utf8``, ``utf8-lossy``, or one that Python knows); None
    for anything else."""
    if name in ("utf8", "utf8-lossy"):
        return name
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return None
    if found in ("utf-8", "utf-8-sig"):
        return "utf8"
    return found if _ENCODING.match(found) else None


def assert_text(file: SourceFile, source: Source, *, lenient: bool = False) -> None:
    """Raise Unreadable, with the line, for what no reader may be given: other packings, marks of other encodings,
    lines without an end, and (csv, unless ``lenient``) quotes that are not where quotes are. Temporary for the
    storage."""
    kind = source.format
    with opened(file) as f:
        head = f.read(8)
    _assert_plain(file, head, kind)
    if _encoding(source):
        return  # the decoded copy is looked at
    packed = head.startswith(_GZIP)
    if not packed:
        _assert_ends(file)
        _assert_mark(file, head, kind)
    else:
        with unpacked(file) as f:
            head = _read(f, 8, file)
        if head.startswith(_GZIP):
            raise Unreadable(f"{file.name}: is packed by gzip twice")
        _assert_plain(file, head, kind)
        _assert_mark(file, head, kind)
    quote = b"" if lenient else _quote(source)
    if kind == "json" or not (packed or quote):
        return
    with unpacked(file) as f:
        assert_stream(chunks_of(f, file), file.name, _Quotes(source, file.name) if quote else None)


def assert_stream(chunks: Iterator[bytes], name: str, quotes: _Quotes | None) -> None:
    """Raise Unreadable for a line without an end or a misplaced quote in UTF-8 text."""
    pending = lines = 0
    for chunk in chunks:
        first = chunk.find(b"\n")
        pending += len(chunk) if first < 0 else first
        if pending > LONGEST:
            raise Unreadable(f"{name}: line {lines + 1} is longer than {LONGEST >> 20} MB")
        if first >= 0:
            pending = len(chunk) - chunk.rfind(b"\n") - 1
        if quotes is not None:
            quotes.feed(chunk, lines)
        lines += chunk.count(b"\n")
    if quotes is not None:
        quotes.end()


def lines_in(body: bytes, file: SourceFile, source: Source) -> int:
    """Rows of csv text without its header: its lines, apart from ends of line within quotes. Raises Unreadable for a
    misplaced quote."""
    quote = _quote(source)
    outside = [body]
    if quote and quote in body:
        assert_stream(iter((body,)), file.name, _Quotes(source, file.name))
        outside = body.split(quote)[0::2]
    return sum(part.count(b"\n") for part in outside) + (not body.endswith(b"\n"))


class _Quotes:
    """Follows the quotes of a csv file: one that opens is the first of its value, one that closes is the last.

    What is outside of quotes is put together again, with one quote for each quoted run; then a quote beside anything
    but another quote, a separator or an end of line is misplaced. No byte is looked at by Python alone.
    """

    def __init__(self, source: Source, name: str) -> None:
        self._name = name
        self._quote = _quote(source)
        separator = str(source.options.get("separator", ",")).encode()
        edge = re.escape(self._quote + separator + b"\r\n")
        quote = re.escape(self._quote)
        self._wrong = re.compile(quote + b"[^" + edge + b"]|[^" + edge + b"]" + quote)
        self._edge = frozenset(self._quote + separator + b"\r\n")
        comment = str(source.options.get("comment_prefix", "")).encode()
        self._comment = re.compile(rb"(?m)^" + re.escape(comment) + rb"[^\n]*") if comment else None
        self._skip = int(cast(int, source.options.get("skip_rows", 0)))
        self._kept = b""
        self._inside = False
        self._before = b""
        self._opened = 0
        self._start = True

    def feed(self, chunk: bytes, lines: int) -> None:
        """Look at the next bytes; ``lines`` ended before them."""
        if self._start:
            chunk, self._start = chunk.removeprefix(MARK), False
        while self._skip and chunk:
            _, end, chunk = chunk.partition(b"\n")
            if not end:
                return
            self._skip -= 1
            lines += 1
        if self._comment is not None:
            whole, end, rest = (self._kept + chunk).rpartition(b"\n")
            lines -= self._kept.count(b"\n")
            self._kept = rest
            chunk = self._comment.sub(b"", whole + end)
        if not self._inside and self._quote not in chunk:
            self._before = chunk[-1:] or self._before
            return
        parts = chunk.split(self._quote)
        out = parts[1::2] if self._inside else parts[0::2]
        seam = self._quote if self._inside else self._before
        inside = self._inside != (len(parts) % 2 == 0)
        found = seam + (self._quote if self._inside and out else b"") + self._quote.join(out)
        found += self._quote if inside and len(parts) > 1 else b""
        if self._wrong.search(found):
            line = lines + 1 + self._line(chunk)
            raise Unreadable(
                f"{self._name}: line {line} has a quote within a value; set quote_char to '' if values are not quoted"
            )
        if inside and len(parts) > 1:
            self._opened = lines + 1 + chunk[: chunk.rfind(self._quote)].count(b"\n")
        self._before = self._quote if len(parts) > 1 and not parts[-1] else parts[-1][-1:] or self._before
        self._inside = inside

    def _line(self, chunk: bytes) -> int:
        """Ends of line before the first misplaced quote of ``chunk``."""
        inside = self._inside
        for found in re.finditer(re.escape(self._quote), chunk):
            at = found.start()
            beside = chunk[at + 1 : at + 2] if inside else (chunk[at - 1 : at] if at else self._before)
            if beside and beside[0] not in self._edge:
                return chunk[:at].count(b"\n")
            inside = not inside
        return 0

    def end(self) -> None:
        if self._comment is not None and self._kept:
            kept, self._comment = self._kept, None
            self.feed(kept, 0)
        if self._inside:
            raise Unreadable(f"{self._name}: the quote that opens in line {self._opened} is never closed")


def utf8(file: SourceFile, source: Source, *, lenient: bool = False) -> Path:
    """The path of the file's text in UTF-8: its own, or that of a copy that lives as long as ``file``.

    ``lenient``: bytes that are none of the encoding are replaced. Raises Unreadable with their place otherwise.
    """
    encoding = _encoding(source)
    if not encoding:
        return file.path
    held = file.copies.get(f"{encoding} {lenient}")
    if held is None:
        try:
            held = _copied(file, encoding, lenient)
        except OSError as e:
            raise Temporary(f"{file.name!r} cannot be decoded to {tempfile.gettempdir()}: {e.strerror or e}") from e
        if not lenient:
            with open(held.name, "rb") as f:
                assert_stream(chunks_of(f, file), file.name, _Quotes(source, file.name) if _quote(source) else None)
        file.copies[f"{encoding} {lenient}"] = held
    return Path(held.name)


def _copied(file: SourceFile, encoding: str, lenient: bool) -> IO[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("replace" if lenient else "strict")
    copy = tempfile.NamedTemporaryFile(prefix="decoded-", suffix=".csv")  # noqa: SIM115 (lives as long as the file)
    lines = 0
    with unpacked(file) as f:
        more = True
        while more:
            chunk = _read(f, CHUNK, file)
            more = bool(chunk)
            try:
                text = decoder.decode(chunk, not more)
            except UnicodeDecodeError as e:
                line = lines + 1 + e.object[: e.start].decode(encoding, "replace").count("\n")
                raise Unreadable(f"{file.name}: line {line} is no {encoding}: {e.reason}") from e
            except UnicodeError as e:  # utf-16 and utf-32 without the mark that says in which order bytes are
                way = f"say {encoding}-le or {encoding}-be"
                raise Unreadable(f"{file.name}: line 1 does not begin with the mark of {encoding}; {way}") from e
            lines += text.count("\n")
            copy.write(text.removeprefix("\ufeff").encode("utf-8", "replace"))
    copy.flush()
    return cast("IO[bytes]", copy)


def explained(file: SourceFile, source: Source, said: str) -> str:
    """Why a csv file cannot be read, with the line, where that can be found; else what polars ``said``."""
    if source.format != "csv":
        return said
    try:
        if "utf-8" in said:
            return _broken(file) or said
        if "more fields than defined" in said:
            return _surplus(file, source) or said
    except (csv.Error, UnicodeDecodeError):
        return said
    return said


def _broken(file: SourceFile) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 0
    with unpacked(file) as f:
        while chunk := _read(f, CHUNK, file):
            try:
                lines += decoder.decode(chunk).count("\n")
            except UnicodeDecodeError as e:
                line = lines + 1 + bytes(e.object[: e.start]).count(b"\n")
                wrong = e.object[e.start]
                return f"{file.name}: line {line} is not UTF-8 (byte 0x{wrong:02x}); say its encoding in the options"
    return ""


def _surplus(file: SourceFile, source: Source) -> str:
    """The first row with more values than the header has names."""
    given = source.options
    path = utf8(file, source)
    skipped = preamble(file, source, path)
    first = "the header has {} names" if given.get("has_header", True) else "the first line has {}"
    quote = _quote(source).decode()
    with _text(file, path) as f:
        text = codecs.getreader("utf-8-sig")(f, "replace")
        for _ in range(skipped):
            text.readline()
        prefix = str(given.get("comment_prefix", ""))
        rows = csv.reader(
            text, delimiter=str(given.get("separator", ",")), quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        )  # fmt: skip
        width = 0
        for row in rows:
            if not row or (prefix and row[0].startswith(prefix)):
                continue
            width = width or len(row)
            if len(row) > width:
                extra = "; the last is empty" if not row[-1] else ""
                line = rows.line_num + skipped
                return f"{file.name}: line {line} has {len(row)} values, {first.format(width)}{extra}"
    return _lone_return(file, path)


def _lone_return(file: SourceFile, path: Path) -> str:
    """The first line with a carriage return in it, which some programs take for its end and polars does not."""
    with _text(file, path) as f:
        for number, line in enumerate(lines_of(f, file), start=1):
            if b"\r" in line.removesuffix(b"\n").removesuffix(b"\r"):
                return f"{file.name}: line {number} holds a carriage return; do some lines end by CR alone?"
    return ""


def preamble(file: SourceFile, source: Source, path: Path) -> int:
    """How many lines of a csv file come before its header: those of ``skip_rows``, and one that spreadsheets write to
    say the separator (``sep=;``). ``path``: where its text is. Raises Unreadable if that is another separator."""
    skipped = int(cast(int, source.options.get("skip_rows", 0)))
    if skipped:
        return skipped
    with _text(file, path) as f:
        said = _SEPARATOR.match(_read(f, 16, file).removeprefix(MARK))
    if said is None:
        return 0
    separator = str(source.options.get("separator", ","))
    if said[1] != separator.encode():
        shown = said[1].decode(errors="replace")
        raise Unreadable(
            f"{file.name}: line 1 says that values are separated by {shown!r}; say options: {{separator: {shown!r}}}"
        )
    return 1


def is_blank(file: SourceFile, path: Path) -> bool:
    """Whether a file holds nothing but blanks. ``path``: where its text is."""
    with _text(file, path) as f:
        return not any(chunk.removeprefix(MARK).strip() for chunk in chunks_of(f, file))


def _text(file: SourceFile, path: Path) -> IO[bytes]:
    """The file's content as :func:`utf8` gave its place, unpacked."""
    return unpacked(file) if path == file.path else cast("IO[bytes]", open(path, "rb"))


def opened(file: SourceFile) -> IO[bytes]:
    """The file's bytes as they are."""
    try:
        return open(file.path, "rb")
    except OSError as e:
        raise _storage(file, e) from e


def unpacked(file: SourceFile) -> IO[bytes]:
    """The file's content, also of one that is packed by gzip, whatever its name."""
    with opened(file) as f:
        packed = _read(f, 2, file) == _GZIP
    return cast("IO[bytes]", gzip.open(file.path, "rb")) if packed else opened(file)


def lines_of(f: IO[bytes], file: SourceFile) -> Iterator[bytes]:
    """The lines of a file, none of them longer than twice :data:`LONGEST`."""
    number = 0
    while line := _read(f, 2 * LONGEST, file, line=True):
        number += 1
        if len(line) >= 2 * LONGEST:
            raise Unreadable(f"{file.name}: line {number} is longer than {LONGEST >> 20} MB")
        yield line


def _read(f: IO[bytes], size: int, file: SourceFile, *, line: bool = False) -> bytes:
    try:
        return f.readline(size) if line else f.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise Unreadable(f"{file.name}: cannot be unpacked: {e}") from e
    except OSError as e:
        raise _storage(file, e) from e


def chunks_of(f: IO[bytes], file: SourceFile) -> Iterator[bytes]:
    """The content, a megabyte at a time."""
    while chunk := _read(f, CHUNK, file):
        yield chunk


def _storage(file: SourceFile, error: OSError) -> Temporary:
    return Temporary(f"{file.name!r} cannot be read: {os.strerror(error.errno or 0)}")


def _encoding(source: Source) -> str:
    """The encoding that is decoded before polars reads; "" for UTF-8."""
    found = encoding_of(str(source.options.get("encoding", "utf8"))) if source.format == "csv" else "utf8"
    return found if found is not None and not found.startswith("utf8") else ""


def _quote(source: Source) -> bytes:
    return str(source.options.get("quote_char", '"')).encode() if source.format == "csv" else b""


def _assert_plain(file: SourceFile, head: bytes, kind: str) -> None:
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            also = ", as files of Excel (xlsx) are" if name == "zip" else ""
            raise Unreadable(f"{file.name}: is packed by {name}{also}; {kind} files may be plain or packed by gzip")
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise Unreadable(f"{file.name}: is {name}, not {kind}")


def _assert_mark(file: SourceFile, head: bytes, kind: str) -> None:
    for mark, encoding in _WIDE.items():
        if head.startswith(mark):
            way = f"say options: {{encoding: {encoding}}}" if kind == "csv" else f"{kind} files are UTF-8"
            raise Unreadable(f"{file.name}: line 1 begins with the mark of {encoding}; {way}")


def _assert_ends(file: SourceFile) -> None:
    """Raise Unreadable for a line that no reader could hold. Looks only for one end of line in each stretch of
    :data:`LONGEST` bytes, so lines up to twice as long may pass."""
    if file.size <= LONGEST:
        return
    with opened(file) as f:
        try:
            for start in range(0, file.size - LONGEST, LONGEST):
                f.seek(start)
                seen = 0
                while seen < LONGEST and (piece := f.read(_PIECE)):
                    if b"\n" in piece:
                        break
                    seen += len(piece)
                else:
                    if seen >= LONGEST:
                        line = 1 + _line_ends(f, start)
                        raise Unreadable(f"{file.name}: line {line} is longer than {LONGEST >> 20} MB")
        except OSError as e:
            raise _storage(file, e) from e


def _line_ends(f: IO[bytes], until: int) -> int:
    f.seek(0)
    found = 0
    while until > 0 and (piece := f.read(min(CHUNK, until))):
        found += piece.count(b"\n")
        until -= len(piece)
    return found
