"""What must hold of the desired graph after every transaction, by a naive model of owners, phases and consent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast_model.fixes import APPLY_FIX, FIXER
from holdfast_model.messages import Status
from holdfast_model.names import AI_REVIEW, BUILT_IN_TYPES, GraphRef
from holdfast_model.phases import CompleteWhen, Standing
from holdfast_model.references import MARK, filled_in, parse, value_at
from holdfast_model.rows import Declaration, Row, digest_of, gone_key
from holdfast_model.staging import decode_standings
from holdfast_model.work_items import WorkItemStatus

from .keyed import key_in
from .processes import PLANNER
from .things import AUTOMATIC

if TYPE_CHECKING:
    from .watcher import Named, Watcher
    from .world import World

EVERYBODY = "*"
POLICY = "policy:"
PHASE = "phase"
Said = dict[str, tuple[str, str, frozenset[str], str, bool]]
"""Node -> type, digest, edges, gating, whether it is only observed."""
_row = msgspec.json.Decoder(Row).decode


def owner_of(document: Mapping[str, Any]) -> str:
    """Whose blueprint it is; a deletion that names nobody is everybody's."""
    return str(document.get("name", EVERYBODY if document.get("delete") else "main"))


def said_in(nodes: list[dict[str, Any]], observe: bool) -> Said:
    """What the nodes of a document say."""
    found: Said = {}
    for node in nodes:
        digest = digest_of(node["type"], msgspec.json.encode(node["spec"]))
        refers = {parse(v[MARK])[0] for v in node["spec"].values() if isinstance(v, dict)}
        edges = frozenset(node["depends_on"]) | refers
        found[node["id"]] = (node["type"], digest, edges, node["gating"], observe)
    return found


class Owners:
    """The shadow of what is declared in one graph."""

    def __init__(self, world: World, watcher: Watcher, ref: GraphRef) -> None:
        self._world = world
        self._watcher = watcher
        self._ref = ref
        self.rows: dict[str, Row] = {}
        self.gone: set[tuple[str, str]] = set()
        self.said: dict[str, Said] = {}
        """What every owner declares, as it follows from what was published."""
        self.renamed: dict[str, str] = {}
        """Former name -> name, of what the owner of the graph may not have heard of yet."""
        self.keys: dict[str, set[str]] = {}
        """Of every name that ever was declared, the keys of the things it has stood for."""
        self.placed: dict[str, int] = {}
        """The newest sequence that was admitted of each owner."""
        self._phases: dict[str, list[tuple[str, str, str, Said]]] = {}
        self.standings: dict[str, Standing] = {}
        self.released: set[tuple[GraphRef, str, str]] = set()
        """What nobody looks after any more: it was only observed, or left by a blueprint that only observes."""
        self._consents: set[str] = set()
        """WorkItems by which people agreed to something, used up."""
        self._fixes: set[int] = set()

    def _fail(self, text: str) -> None:
        self._world.fail(f"{self._ref}: {text}")

    def committed(self, named: Named, ops: list[dict[str, Any]]) -> None:
        """Rows, tombstones and standings after a transaction with these operations."""
        before, after = self.rows, dict(self.rows)
        renamed: dict[str, str] = {}
        for cmd in named.get("node", ()):
            if cmd[0] == "HDEL":
                for node in cmd[2:]:
                    after.pop(_text(node), None)
            else:
                after.update((_text(n), _row(_bytes(raw))) for n, raw in zip(cmd[2::2], cmd[3::2], strict=True))
        standings, blueprints = self._standings(named), self._world.server.streams["BLUEPRINTS"]
        observing = False
        for op in ops:
            for mutation in op.get("mutations", ()):
                if mutation.get("kind") in ("DECLARE", "DELETE"):
                    number = int(op["id"].removeprefix(f"bp:{blueprints.created}:").split(":")[0])
                    observing = self._admitted(number, mutation, before, after, renamed)
                elif mutation.get("kind") == "PHASE":
                    observing = self._entered(mutation["owner"], before)
        self._check_standings(standings)
        for node in after.keys() if "node" in named else ():
            self._mended(node, before.get(node), after[node], ops)
        self.rows, self.standings = after, standings
        if after is not before and "node" in named:
            declared = _declared(after)
            if declared != (said := {o: s for o, s in self.said.items() if s}):
                self._fail(f"declared is {declared}, but published was {said}")
        for node, row in after.items() if "node" in named else ():
            for _, d in row.declarations:
                self.keys.setdefault(node, set()).add(key_in(d.spec, node))
        self._one_name()
        self._buried(named, before, after, observing, renamed)

    # ---- what is admitted

    def _admitted(
        self, number: int, told: dict[str, Any], before: dict[str, Row], after: dict[str, Row], renamed: dict[str, str]
    ) -> bool:
        """A blueprint is in force from now on. Returns whether it only observes. ``renamed``: is told of renames."""
        document = msgspec.json.decode(self._world.server.streams["BLUEPRINTS"].stored[number].data)
        owner = owner_of(document)
        observe = document.get("mode") == "observe"
        if document.get("delete"):
            for name in list(self.said) if owner == EVERYBODY else [owner]:
                if owner != EVERYBODY or self.placed.get(name, 0) < number:
                    self.said.pop(name, None)
                    self._phases.pop(name, None)
        else:
            mine = self.said.get(owner, {})
            now = self.said[owner] = self._of(owner, document, mine, observe)
            renamed |= self._renamed(document, mine, now, told)
            if not document.get("allow_removals") and not observe:
                removed = [n for n in mine if n not in renamed and _visible(before, n) and not _visible(after, n)]
                self._consented(number, owner, removed, before)
        self.placed[owner] = number
        return observe

    def _renamed(self, document: dict[str, Any], before: Said, now: Said, told: dict[str, Any]) -> dict[str, str]:
        """What comes under another name: as the document says, and as the log does."""
        pairs = {m["from"]: m["to"] for m in document.get("moved", ()) if m["from"] in before}
        if pairs != {m["from"]: m["to"] for m in told.get("moved", ())}:
            self._fail(
                f"renamed are {told.get('moved')}, but the document says {document['moved']} of {sorted(before)}"
            )
        for old, new in pairs.items():
            if old in now or new in before or now[new][0] != before[old][0]:
                self._fail(f"{old} became {new}, but declared were {before}, and are {now}")
            self._world.happened["renamed"] += 1
            record = self._watcher.record(self._ref, old)
            if record is not None:
                self._world.happened["renamed while asking"] += record.gate is not None or record.approval is not None
                self._world.happened["renamed while held or failed"] += record.hold or bool(record.permanent)
        self._world.happened["renamed with a step in flight"] += len(self._watcher.busy(self._ref) & pairs.keys())
        return pairs

    def spec(self, node: str, owner: str) -> bytes:
        """What an owner declares of a node."""
        declared = self.rows[node].of(owner)
        return bytes(declared.spec) if declared is not None else b"{}"

    def stays(self, owner: str, node: str) -> bool:
        """Whether no phase of what an owner declares now leaves a node out."""
        return all(node in said for *_, said in self._phases.get(owner, ()))

    def _one_name(self) -> None:
        """What people do must make sense: no two nodes mean the same thing."""
        found: dict[tuple[str, str], str] = {}
        for node, row in self.rows.items():
            for kind, key in {(d.type, key_in(d.spec, node)) for _, d in row.declarations if d.says_what}:
                assert found.setdefault((key, kind), node) == node, f"{key} is both {found[key, kind]} and {node}"

    def _of(self, owner: str, document: dict[str, Any], mine: Said, observe: bool) -> Said:
        if "phases" not in document:
            self._phases.pop(owner, None)
            new = said_in(document.get("nodes", document.get("spec")), observe)
            return _selected(new, mine, document) if "only" in document or "except" in document else new
        phases = [
            (p["id"], p.get("complete_when", ""), p.get("deadline", ""), said_in(p["graph"]["nodes"], observe))
            for p in document["phases"]
        ]
        if phases == self._phases.get(owner):
            return mine  # it stays in its phase
        self._phases[owner] = phases
        return phases[0][3]

    def _consented(self, number: int, owner: str, removed: list[str], before: dict[str, Row]) -> None:
        """Much is removed only by those who say so, or after a person has agreed to just that, once."""
        size = sum(_visible(before, n) for n in before)
        if len(removed) < PLANNER.blast_least or len(removed) <= size * PLANNER.blast_share:
            return
        self._world.happened["removals agreed to"] += 1
        for item in self._watcher.items.values():
            if not item.caller_ref.startswith("desiredstate-removal:") or item.graph != self._ref.graph:
                continue
            asked = msgspec.json.decode(item.payload)
            agreed = item.status is WorkItemStatus.COMPLETED and item.outcome in ("", "approve")
            mine = (asked["owner"], asked["sequence"]) == (owner, number) and item.id not in self._consents
            if agreed and mine and set(removed) <= set(asked["nodes"]):
                self._consents.add(item.id)
                return
        self._fail(f"the blueprint {number} of {owner} removes {removed} of {size} nodes, and nobody agreed to that")

    def _mended(self, node: str, before: Row | None, after: Row, ops: list[dict[str, Any]]) -> None:
        """Reviewers change nothing but what they proposed, once, and after somebody agreed whom the log names."""
        new = after.of(FIXER)
        if new is None or before is None or new == before.of(FIXER):
            return
        winner, spec, things = before.winner(), msgspec.json.decode(new.spec), self._world.things
        fix = spec["v"]
        proposed = things.fixes.get(fix)
        base = msgspec.json.decode(winner[1].spec) if winner is not None else {}
        if proposed is None or proposed[:2] != (self._ref, node) or spec != base | {"v": fix} or fix in self._fixes:
            self._fail(f"{node} was {base} and is mended to {spec}, but proposed was {proposed}, used {self._fixes}")
            return
        self._fixes.add(fix)
        self._world.happened["fix"] += 1
        actors = {op["actor"] for op in ops}
        if new.type in AUTOMATIC and proposed[2] == "RESOLVED" and AI_REVIEW in actors:
            return
        review = f":human-review-{node}:"
        for item in self._watcher.items.values():
            mine = item.graph == self._ref.graph and review in item.caller_ref and item.id not in self._consents
            if (
                mine
                and item.status is WorkItemStatus.COMPLETED
                and item.outcome == APPLY_FIX
                and item.decided_by in actors
            ):
                self._consents.add(item.id)
                return
        self._fail(f"{node} is mended to {spec} by {actors}, and nobody agreed to that")

    # ---- phases

    def _standings(self, named: Named) -> dict[str, Standing]:
        """How far blueprints are, as the transaction leaves it."""
        standings = self.standings
        for cmd in named.get("meta", ()):
            if cmd[0] == "HDEL" and PHASE in map(_text, cmd[2:]):
                standings = {}
            elif cmd[0] == "HSET":
                for field, raw in zip(cmd[2::2], cmd[3::2], strict=True):
                    if _text(field) == PHASE:
                        standings = decode_standings(_bytes(raw)).owners
        return standings

    def _entered(self, owner: str, before: dict[str, Row]) -> bool:
        """The next phase begins: all of the one before is there, as far as anybody knows."""
        old, phases = self.standings[owner], self._phases[owner]
        self._world.happened["phase entered"] += 1
        if old.term.complete_when is CompleteWhen.NEVER:
            self._fail(f"{owner} leaves the phase {old.term.id}, which never ends")
        for node in phases[old.index][3]:
            winner = before[node].winner()
            record = self._watcher.record(self._ref, node)
            here = record is not None and record.status is Status.PRESENT
            if winner is not None and (record is None or not here or record.digest != self.form(node, winner[1])):
                self._fail(f"{owner} leaves the phase {old.term.id} before {node} is there: {record}")
        self.said[owner] = phases[old.index + 1][3]
        return any(observe for *_, observe in self.said[owner].values())

    def _check_standings(self, standings: dict[str, Standing]) -> None:
        """Blueprints in phases are where their nodes say, and go forward one by one."""
        if {o for o, s in standings.items() if len(s.terms) > 1} != set(self._phases):
            self._fail(f"there are phases of {sorted(standings)}, but published were those of {sorted(self._phases)}")
        for owner, phases in self._phases.items():
            if self.said[owner] != phases[standings[owner].index][3]:
                self._fail(f"{owner} is in the phase {standings[owner].term.id}, but declared is {self.said[owner]}")

    # ---- what is left behind

    def _buried(
        self, named: Named, before: dict[str, Row], after: dict[str, Row], observing: bool, renamed: dict[str, str]
    ) -> None:
        """What was kept up and goes leaves a tombstone; what was only observed leaves none."""
        known = set(self.gone)
        for cmd in named.get("gone", ()):
            fields = map(_text, cmd[2:] if cmd[0] == "HDEL" else cmd[2::2])
            (known.difference_update if cmd[0] == "HDEL" else known.update)(map(gone_key, fields))
        for node, kind in known - self.gone:
            row = before.get(node)
            winner = row.winner() if row is not None else None
            if winner is None or winner[1].type != kind or winner[1].observe:
                self._fail(f"{node} ({kind}) is to be removed, but was {winner and winner[1].type}")
        for node in before.keys() if "node" in named else ():
            was, row = before[node].winner(), after.get(node)
            now = row.winner() if row is not None else None
            if node in renamed and was is not None:
                self._kept(node, was[1], renamed[node], after, known)
                continue
            if was is None or was[1].type in BUILT_IN_TYPES or (now is not None and now[1].type == was[1].type):
                continue
            if (node, was[1].type) not in known:
                if not was[1].observe and not (observing and now is None):
                    self._fail(f"{node} ({was[1].type}) went without a tombstone")
                self.released.add((self._ref, key_in(was[1].spec, node), was[1].type))
        self.gone = known

    def _kept(self, old: str, was: Declaration, new: str, after: dict[str, Row], graves: set[tuple[str, str]]) -> None:
        """What is renamed is the same thing, and leaves nothing that would be removed."""
        row = after.get(new)
        now = row.winner() if row is not None else None
        if now is None or now[1].type != was.type or (old, was.type) in graves - self.gone:
            self._fail(f"{old} was to be called {new}, but that is {now}, with {sorted(graves)} to be removed")
        self.renamed.pop(new, None)  # by that name something else was known, of which nothing was written
        self.renamed[old] = new

    # ---- what nodes are made from

    def form(self, node: str, declared: Declaration) -> str:
        """The digest of a node, made from the values that its record names; "" if they are not known."""
        if not declared.refs:
            return declared.digest
        record = self._watcher.record(self._ref, node)
        values = (record.refs if record is not None else None) or {}
        if any(text not in values for text in declared.refs):
            return ""
        return digest_of(declared.type, filled_in(declared.spec, values))

    def made_from_now(self, node: str, declared: Declaration) -> str:
        """The digest of a node, made from what the nodes it refers to publish now, as far as anybody knows."""
        if not declared.refs:
            return declared.digest
        values: dict[str, object] = {}
        for text in declared.refs:
            target, pointer = parse(text)
            record = self._watcher.record(self._ref, target)
            try:
                values[text] = value_at(record.outputs if record is not None else None, pointer)
            except LookupError:
                self._fail(f"{node} is sent, but {text} is not known: {record}")
        return digest_of(declared.type, filled_in(declared.spec, values))


def _visible(rows: Mapping[str, Row], node: str) -> bool:
    row = rows.get(node)
    return row is not None and row.winner() is not None


def _declared(rows: Mapping[str, Row]) -> dict[str, Said]:
    found: dict[str, Said] = {}
    for node, row in rows.items():
        for owner, d in row.declarations:
            if not owner.startswith(POLICY):
                about = (d.type, d.digest, frozenset(d.depends_on), d.gating.value, d.observe)
                found.setdefault(owner, {})[node] = about
    return found


def _selected(new: Said, mine: Said, document: dict[str, Any]) -> Said:
    """A version of which only the chosen nodes count, with what they newly need."""

    def chosen(node: str, kind: str) -> bool:
        names = {node, f"type:{kind}"}
        return bool(names & set(document.get("only", names))) and not names & set(document.get("except", ()))

    taken = {n for n, (kind, *_) in new.items() if chosen(n, kind)}
    while more := {t for n in taken for t in new[n][2] if t in new and t not in mine and t not in taken}:
        taken |= more
    kept = {n: said for n, said in mine.items() if n in new or not chosen(n, said[0])}
    return {**{n: s for n, s in kept.items() if n not in taken}, **{n: new[n] for n in taken}}


def _text(word: Any) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()
