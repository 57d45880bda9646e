"""What every table must hold, in plain Python over lists and dictionaries: a second implementation for comparison.

It follows the rules as they are written for people, recomputes a stage whole each time its step is done, and shares no
code with the engine: no polars, no Delta, no ledger, no increments.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
from dataclasses import dataclass, field
from decimal import Decimal

Row = dict[str, object]
Gold = dict[object, tuple[Decimal | None, int]]
"""Region -> (sum of amounts, null over nulls alone; rows)."""
DECLARED = ("order_id", "amount", "country")
_AMOUNT = re.compile(r"[+-]?(\d+(\.\d{0,2}0*)?|\.\d{1,2}0*)\Z")


STYLES = ("plain", "crlf", "bom", "open end", "gzip", "blank lines")
"""How one content may be written: none of it changes a row."""


@dataclass(frozen=True)
class Content:
    """One file's content: its header and rows as text, whether its bytes are UTF-8, and how it is written."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    latin: bool = False
    style: str = "plain"

    def encoded(self) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n" if self.style == "crlf" else "\n").writerows((self.header, *self.rows))
        made = text.getvalue().encode("latin-1" if self.latin else "utf-8")
        match self.style:
            case "bom":
                return b"\xef\xbb\xbf" + made
            case "open end":
                return made.removesuffix(b"\n")
            case "gzip":
                return gzip.compress(made, mtime=0)
            case "blank lines":
                return made + b"\n\n"
        return made

    @property
    def empty(self) -> bool:
        return not any(any(row) for row in self.rows)

    @property
    def misfit(self) -> tuple[object, ...] | None:
        """In which way it does not fit the contract; None when it does."""
        if self.latin:
            return ("unreadable", self)
        missing = tuple(n for n in DECLARED if n not in self.header)
        extra = tuple(n for n in self.header if n not in DECLARED)
        changed = tuple(n for n, fits in (("order_id", _whole), ("amount", _money)) if self._changed(n, fits))
        return (missing, extra, changed) if missing or extra or changed else None

    def _changed(self, name: str, fits: object) -> bool:
        if name not in self.header:
            return False
        values = [row[self.header.index(name)].strip() for row in self.rows]
        there = [v for v in values if v]
        return sum(fits(v) is not None for v in there) * 2 < len(there)  # type: ignore[operator]

    def bronze(self, mapping: dict[str, str]) -> list[Row]:
        """Its rows as text by declared column. ``mapping``: {file column: field}."""
        of = {mapping.get(n, n): i for i, n in enumerate(self.header)}
        found = []
        for number, row in enumerate(self.rows):
            if not any(row):
                continue  # separators alone are no row
            cells = {n: (_shown(row[of[n]], self.latin) if n in of else None) for n in DECLARED}
            found.append({**cells, "_row": number})
        return found


def _shown(text: str, latin: bool) -> str | None:
    """A cell as it is read: nothing is null; what is not UTF-8 and was accepted all the same is replaced."""
    return ("".join(c if ord(c) < 128 else "\ufffd" for c in text) if latin else text) or None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else None


def _money(text: str) -> Decimal | None:
    return Decimal(text).quantize(Decimal("0.01")) if _AMOUNT.match(text) else None


@dataclass
class Oracle:
    """Files and decisions, and every table that follows from them."""

    keep: str
    threshold: Decimal
    files: dict[str, Content] = field(default_factory=dict)
    landed: dict[str, tuple[Content, dict[str, str]]] = field(default_factory=dict)
    held: dict[str, Content] = field(default_factory=dict)
    rejected: set[Content] = field(default_factory=set)
    accepted: list[tuple[object, Content, dict[str, str]]] = field(default_factory=list)
    rulings: dict[tuple[Content, str], str] = field(default_factory=dict)
    regions: dict[str, str] = field(default_factory=dict)
    upsert: bool = False
    taken: bool = False
    tidy: list[Row] | None = None
    wide: list[Row] | None = None
    judgement: tuple[list[Row], list[Row], list[str]] = field(default_factory=lambda: ([], [], []))
    published: list[Row] | None = None
    totals: Gold | None = None
    target: Gold | None = None

    def can(self, node: str) -> bool:
        """Whether there is what a stage reads."""
        before = {
            "orders-raw": True, "orders-clean": self.taken or None, "orders-geo": self.tidy,
            "orders-valid": self.wide, "totals": self.published, "report": self.totals,
        }  # fmt: skip
        return before[node] is not None

    def step(self, node: str) -> None:
        """Make a stage's table again from what there is now."""
        match node:
            case "orders-raw":
                self.take()
            case "orders-clean":
                self.tidy = self._cleaned()
            case "orders-geo":
                self.wide = self._widened()
            case "orders-valid":
                self.publish()
            case "totals":
                self.totals = self._summed()
            case "report":
                self.target = {**(self.target or {}), **(self.totals or {})} if self.upsert else self.totals

    # Bronze

    def take(self) -> None:
        """What becomes of the files that are there now."""
        self.taken = True
        gone = {n: c for n, (c, _) in sorted(self.landed.items()) if n not in self.files}
        before = dict(self.landed)
        self.held = {}
        for name, content in sorted(self.files.items()):
            if name in before and before[name][0] == content:
                continue
            mapping = self._mapping(content)
            if content in self.rejected:
                continue
            if content.empty and not content.latin:
                self.landed.pop(name, None)
            elif content.misfit is not None and mapping is None:
                self.held[name] = content
            else:
                former = next((n for n, c in gone.items() if c == content), None)
                if former is not None:
                    del gone[former]
                    self.landed.pop(former)
                self.landed[name] = (content, mapping or {})

    def _mapping(self, content: Content) -> dict[str, str] | None:
        fit = [m for way, c, m in self.accepted if way == content.misfit or c == content]
        return fit[-1] if content.misfit is not None and fit else None

    def decide_files(self, outcome: str) -> None:
        for content in self.held.values():
            if outcome == "reject":
                self.rejected.add(content)
            else:
                self.accepted.append((content.misfit, content, {"betrag": "amount"}))
        self.held = {}

    @property
    def bronze(self) -> list[Row]:
        rows = []
        for name, (content, mapping) in sorted(self.landed.items()):
            rows += [{**row, "_file": name, "_content": content} for row in content.bronze(mapping)]
        return rows

    # Silver

    def _cleaned(self) -> list[Row]:
        """Trimmed and cast; ids above nought or none at all; one row of each id."""
        rows = []
        for row in self.bronze:
            cells = {n: str(row[n]).strip() if row[n] is not None else None for n in DECLARED}
            order = _whole(cells["order_id"]) if cells["order_id"] is not None else None
            amount = _money(cells["amount"]) if cells["amount"] is not None else None
            errors = [n for n, v in (("order_id", order), ("amount", amount)) if v is None and cells[n] is not None]
            if order is None or order > 0:
                rows.append({
                    "order_id": order, "amount": amount, "country": cells["country"] or _filled(cells["country"]),
                    "_file": row["_file"], "_row": row["_row"], "_content": row["_content"],
                    "_errors": {f"{n}:cast" for n in errors},
                })  # fmt: skip
        kept: dict[object, Row] = {}
        for row in rows:
            if self.keep == "last" or row["order_id"] not in kept:
                kept[row["order_id"]] = row
        return list(kept.values())

    def _widened(self) -> list[Row]:
        tidy = self.tidy or []
        double = [r["amount"] + r["amount"] if isinstance(r["amount"], Decimal) else None for r in tidy]
        return [
            {**row, "region": self.regions.get(str(row["country"])), "twice": twice}
            for row, twice in zip(tidy, double, strict=True)
        ]

    def judged(self) -> tuple[list[Row], list[Row], list[str]]:
        """(rows to publish, rows to quarantine, files below the threshold)."""
        good, bad = [], []
        share: dict[str, list[int]] = {}
        for row in self.wide or []:
            failed = set(row["_errors"])  # type: ignore[call-overload]
            failed |= {f"{n}:not_null" for n in ("order_id", "amount") if row[n] is None}
            failed |= {"amount:ge"} if isinstance(row["amount"], Decimal) and row["amount"] < 0 else set()
            decisions = {self.rulings.get((row["_content"], f)) for f in failed}  # type: ignore[call-overload]
            status = "good"
            if failed:
                status = "drop" if "drop" in decisions else "undecided" if None in decisions else "accept"
            counted = share.setdefault(str(row["_file"]), [0, 0])
            counted[0] += status == "good"
            counted[1] += status == "undecided"
            row = {**row, "_failed": failed, "_status": status}
            (good if status in ("good", "accept") else bad).append(row)
        return good, bad, [f for f, (ok, off) in share.items() if ok < self.threshold * (ok + off)]

    def publish(self) -> None:
        """Judge the rows, and publish the good ones unless a file is below the threshold."""
        self.judgement = self.judged()
        good, _, breached = self.judgement
        if not breached:
            self.published = good

    def decide_rows(self, outcome: str) -> None:
        _, bad, breached = self.judgement
        for row in bad:
            if row["_status"] == "undecided" and row["_file"] in breached:
                for failed in row["_failed"]:  # type: ignore[attr-defined]
                    self.rulings[(row["_content"], failed)] = outcome  # type: ignore[index]

    # Gold

    def _summed(self) -> Gold:
        found: Gold = {}
        for row in self.published or []:
            total, rows = found.get(row["region"], (None, 0))
            amount = row["amount"]
            if isinstance(amount, Decimal):
                total = amount + (total or Decimal(0))
            found[row["region"]] = (total, rows + 1)
        return found


def _filled(country: str | None) -> str | None:
    return "ZZ" if country is None else country
