"""Writes and checks the reference of every event, fault and code that Holdfast gives, from the code itself.

``python deploy/tables.py write`` reads the enumerations below (their members and the texts beside them, without
importing anything) and writes ``services/planner/EVENTS.md``; ``check`` says whether that file is current. A member
without a text is an error: nobody could say when it is raised.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "services" / "planner" / "EVENTS.md"
MODEL = "libs/model/src/holdfast_model"


class Source(NamedTuple):
    """One table: an enumeration, or (``name`` empty) the error classes with a code of their own in a module."""

    title: str
    file: str
    name: str
    shown: str = "`{0}`"
    column: str = "code"


class Row(NamedTuple):
    member: str
    value: str
    text: str


EVENT, CODE = "event", "code"
SOURCES = (
    Source("Events about a graph", f"{MODEL}/events.py", "GraphEvent", "`graph.<tenant>.<graph>.{0}`", EVENT),
    Source("Events about a node", f"{MODEL}/events.py", "NodeEvent", "`node.<tenant>.<graph>.{0}`", EVENT),
    Source("Faults", f"{MODEL}/events.py", "FaultType", "`{0}`", "fault"),
    Source("Events about a WorkItem", f"{MODEL}/events.py", "ItemEvent", "`workitem.<tenant>.<graph>.{0}`", EVENT),
    Source("Reasons: Holdfast", f"{MODEL}/reasons.py", "Reason"),
    Source("Reasons: the SDK", "libs/sdk/src/holdfast_sdk/reasons.py", "SdkReason"),
    Source("Reasons: reviews", "libs/sdk/src/holdfast_sdk/states.py", "Verdict"),
    Source("Reasons: pipeline", "services/provisioner-pipeline/src/holdfast_pipeline/reasons.py", "PipelineReason"),
    Source("Reasons: dungeon", "services/provisioner-dungeon/src/holdfast_dungeon/reasons.py", "DungeonReason"),
    Source("Kinds of `policy_failed`", f"{MODEL}/reasons.py", "FailureKind", column="kind"),
    Source("Conditions of a node", f"{MODEL}/reconciler/conditions.py", "Condition", column="condition"),
    Source("What `explain` says besides", f"{MODEL}/reconciler/conditions.py", "Remark", column="kind"),
    Source("Errors of requests", f"{MODEL}/errors.py", ""),
)
HEAD = """# Events, faults and codes

Everything that Holdfast tells, and when. Written from the code by `make tables`; `make check` fails when it is not
current.

An event's subject is `<family>.<tenant>.<graph>.<name>`; a fault's last token is its type in lower case. A reason is a
code that never changes its meaning; it stands in observations, faults, events and explanations, with a text for people
beside it (`detail`). Domains give reasons of their own, `Drifted("...")` and `Temporary(..., reason="...")`; where they
give none to a failed step, the code of the error stands in for it (the last table). WorkItems without a graph have `_`
in its place.
"""


def rows_of(source: Source) -> list[Row]:
    """The members of an enumeration in their order, each with the text that follows it."""
    tree = ast.parse((ROOT / source.file).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if not source.name:
        return _errors(classes)
    body = next(node for node in classes if node.name == source.name).body
    found = []
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            continue
        member, value = statement.targets[0].id, ast.literal_eval(statement.value)
        text = following.value if isinstance(following, ast.Expr) else None
        if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
            raise SystemExit(f"tables: {source.file}: nobody says when {source.name}.{member} is raised")
        found.append(Row(member, value, _one_line(text.value)))
    return found


def _errors(classes: list[ast.ClassDef]) -> list[Row]:
    found = []
    for node in classes:
        for statement in node.body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "code":
                text = (ast.get_docstring(node) or "").partition("\n\n")[0]
                found.append(Row(node.name, ast.literal_eval(statement.value), _one_line(text)))
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def text() -> str:
    """The whole reference."""
    parts = [HEAD]
    for source in SOURCES:
        lines = [f"| {source.column} | when |", "|---|---|"]
        lines += [f"| {source.shown.format(row.value)} | {row.text} |" for row in rows_of(source)]
        parts.append("\n".join([f"## {source.title}", "", *lines]) + "\n")
    return "\n".join(parts)


def write() -> None:
    TARGET.write_text(text(), encoding="utf-8")
    print(f"tables: wrote {TARGET.relative_to(ROOT)}")


def check() -> None:
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text():
        raise SystemExit(f"tables: {TARGET.relative_to(ROOT)} is not current; run `make tables` and commit the result")
    print("tables: current")


if __name__ == "__main__":
    actions = {"write": write, "check": check}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        raise SystemExit("usage: python deploy/tables.py write | check")
    actions[sys.argv[1]]()
