"""What each service's README says that it consumes, answers, publishes, asks and owns is what its code does."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_bus import Bus, streams, subjects
from holdfast_bus.streams import Durable
from holdfast_store import keys

from .conftest import ROOT

SERVICES = {
    "planner": "holdfast_planner",
    "fault-policy": "holdfast_fault_policy",
    "work-items": "holdfast_work_items",
    "provisioner-pipeline": "holdfast_pipeline",
    "provisioner-dungeon": "holdfast_dungeon",
}
DOMAINS = {"provisioner-pipeline": "pipeline", "provisioner-dungeon": "dungeon"}
SECTION = "## Consumes, publishes, owns"
KINDS = ("consumes", "answers", "publishes", "asks", "owns")
GRAPH = "<tenant>.<graph>"

TEMPLATES = {
    "blueprint": f"blueprint.{GRAPH}",
    "state": f"state.{GRAPH}",
    "step": "step.<domain>.<type>",
    "result": "result.<partition>",
    "hint": "planner.<partition>",
    "PREFERENCES": subjects.PREFERENCES,
    "progress": f"node.{GRAPH}.progress",
}
"""What the functions of ``subjects`` that name something to publish on stand for."""
ASKS = {"rpc_workitems": "rpc.workitems.", "rpc_domain": "rpc.domain.<domain>.", "rpc_planner": "rpc.planner."}
OUTBOXES = {
    "planner": {f"graph.{GRAPH}.<event>", f"node.{GRAPH}.<event>", f"fault.{GRAPH}.<type>"},
    "fault-policy": set[str](),  # what it tells goes through the outbox of the graph, which the planner empties
    "work-items": {f"workitem.{GRAPH}.<event>"},
}
"""Events go out from outboxes, whose code does not name a family."""
INSIDE = {"rpc.planner.owner.<partition>.<verb>"}
WRITERS = {
    "planner": {"commits", "the owner", "admission", "owner", "planners", "anyone", "CLI"},
    "fault-policy": {"policy"},
    "work-items": {"work-items"},
}
"""How the key schema names those who write."""


class Table(dict[str, set[str]]):
    """The section of one README: names in backticks by kind."""

    def __init__(self, service: str) -> None:
        super().__init__({kind: set() for kind in KINDS})
        text = (ROOT / "services" / service / "README.md").read_text()
        assert SECTION in text, f"{service} does not say what it consumes, publishes and owns"
        rows = text.partition(SECTION)[2].partition("\n## ")[0].splitlines()
        for row in rows:
            cells = [cell.strip() for cell in row.split("|")]
            if len(cells) > 3 and cells[1] in KINDS:
                self[cells[1]] |= set(_full(re.findall(r"`([^`]+)`", cells[2])))


def _full(names: list[str]) -> Iterator[str]:
    """A word stands for the request before it with this verb: `rpc.planner.apply` `delete`."""
    last = ""
    for name in names:
        last = f"{last.rpartition('.')[0]}.{name}" if name.isidentifier() and last.startswith("rpc.") else name
        yield last


class Recorded:
    """What a service registers when it is wired: subjects that it answers, durables and subjects that it reads."""

    def __init__(self, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: set[str] = set()
        self.consumes: set[str] = set()
        real = {name: getattr(Bus, name) for name in ("rpc", "consume", "listen")}

        def rpc(bus: Bus, subject: str, **more: Any) -> Any:
            self.answers.add(subject)
            return real["rpc"](bus, subject, **more)

        def consume(bus: Bus, durable: Durable, **more: Any) -> Any:
            self.consumes.add(durable.name)
            return real["consume"](bus, durable, **more)

        def listen(bus: Bus, subject: str, **more: Any) -> Any:
            self.consumes.add(subject)
            return real["listen"](bus, subject, **more)

        for name, function in (("rpc", rpc), ("consume", consume), ("listen", listen)):
            monkeypatch.setattr(Bus, name, function)
        package = SERVICES[service]
        settings = importlib.import_module(f"{package}.settings")
        made = next(
            value
            for name, value in vars(settings).items()
            if name.endswith("Settings") and getattr(value, "__module__", "") == settings.__name__
        )
        importlib.import_module(f"{package}.app").build_app(made())


def calls(*folders: Path) -> Iterator[tuple[str, list[ast.expr]]]:
    """Every use of ``subjects.<name>``, with its arguments where it is called."""
    for folder in folders:
        for module in sorted(folder.rglob("*.py")):
            if "testing" in module.parts:
                continue
            tree = ast.parse(module.read_text())
            called = {id(node.func): node.args for node in ast.walk(tree) if isinstance(node, ast.Call)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "subjects":
                    yield node.attr, called.get(id(node), [])


def folders_of(service: str) -> list[Path]:
    own = [ROOT / "services" / service / "src"]
    return [*own, ROOT / "libs" / "sdk" / "src"] if service in DOMAINS else own


def stands_for(service: str, name: str) -> str:
    """A name of the README with the domain in it, as the code speaks of it."""
    domain = DOMAINS.get(service)
    return name.replace(f".{domain}.", ".<domain>.") if domain else name


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_answers_and_reads_is_what_it_registers(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, recorded = Table(service), Recorded(service, monkeypatch)

    # Durables of types and partitions are made while it runs
    runtime = {"result-<partition>"} if service == "planner" else set[str]()
    runtime |= {"step.<domain>.<type>"} if service in DOMAINS else set()
    named = {stands_for(service, name) for name in table["consumes"]}
    durables = {d.name: d for d in vars(streams).values() if isinstance(d, Durable)}
    read = {name for name in named if name in durables or name in runtime or name.startswith("planner.")}
    assert read == recorded.consumes | runtime
    # Beside a durable stands what it reads
    filters = {_template(f) for name in read & durables.keys() for f in _filters(durables[name])}
    assert filters <= {_template(name) for name in named}
    inside = INSIDE if service == "planner" else set[str]()
    assert table["answers"] - inside == recorded.answers


def _filters(durable: Durable) -> tuple[str, ...]:
    stream = next(s for s in streams.STREAMS if s.name == durable.stream)
    return durable.filters or stream.subjects


def _template(subject: str) -> str:
    """The family of a subject, and its event where it names one."""
    tokens = subject.split(".")
    if subject.startswith("$"):
        return subject
    return ".".join([tokens[0], *(t for t in tokens[3:] if t.isalpha())])


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_publishes_and_asks_is_what_its_code_names(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, recorded = Table(service), Recorded(service, monkeypatch)
    publishes, asks = set(OUTBOXES.get(service, ())), set[str]()
    for name, arguments in calls(*folders_of(service)):
        if name in TEMPLATES:
            publishes.add(TEMPLATES[name])
        elif name in ASKS:
            verb = next((a.value for a in reversed(arguments) if isinstance(a, ast.Constant)), None)
            asks.add(f"{ASKS[name]}{verb}" if verb is not None else f"{ASKS[name]}*")
    answered = {stands_for(service, name) for name in recorded.answers}
    asks = {name for name in asks if name not in answered and not name.endswith("*")}
    if service in DOMAINS:  # requests to a domain are what the SDK answers in its name
        asks = {name for name in asks if not name.startswith(ASKS["rpc_domain"])}

    assert {stands_for(service, name) for name in table["publishes"]} == publishes
    named = {stands_for(service, name) for name in table["asks"]}
    assert asks <= named
    text = "".join(module.read_text() for folder in folders_of(service) for module in folder.rglob("*.py"))
    assert [n for n in named if not n.startswith(tuple(ASKS.values())) or f'"{n.split(".")[-1]}"' not in text] == []


def schema() -> dict[str, str]:
    """Key -> who writes it, from the head of the key schema."""
    writers = "|".join(sorted({who for all_of in WRITERS.values() for who in all_of}, key=len, reverse=True))
    row = rf"^(hf:\S+)\s+(?:string|hash|set|stream|sorted set)\s.*?\s((?:{writers})(?:, (?:{writers}))*)$"
    return dict(re.findall(row, keys.__doc__ or "", re.MULTILINE))


def test_the_key_schema_names_every_key() -> None:
    patterns = [re.compile(_pattern(key)) for key in schema()]
    made = set()
    ref = importlib.import_module("holdfast_model.names").GraphRef("t", "g")
    for name, function in vars(keys).items():
        if callable(function) and getattr(function, "__module__", "") == keys.__name__ and not name.startswith("_"):
            count = function.__code__.co_argcount
            first = {"ref": ref, "partition": 3}.get(function.__code__.co_varnames[0], "x")
            made.add(function(first, *["y"] * (count - 1)))
    made |= {value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)}

    missing = sorted(key for key in made if not any(p.fullmatch(key) for p in patterns))
    likewise = {"hf:wi:{x}:assignee:y", "hf:wi:{x}:graph:y", "hf:wi:{x}:user:y", "hf:wi:{x}:group:y"}
    assert set(missing) - likewise == set()


def _pattern(key: str) -> str:
    """A regular expression for the keys that a row of the schema stands for."""
    text = re.escape(key).replace(re.escape("{t/g}"), r"\{t/g\}").replace(re.escape("{t}"), r"\{\w+\}")
    return re.sub(r"<\w+>", r"\\w+", text.replace(re.escape("*"), ".+"))


@pytest.mark.parametrize("service", WRITERS)
def test_a_service_owns_the_keys_that_the_schema_says_it_writes(service: str) -> None:
    owned = Table(service)["owns"]
    writes = {key: by for key, by in schema().items() if {who.strip() for who in by.split(",")} & WRITERS[service]}

    assert owned <= schema().keys() | {"hf:wi:*"}, "a README names keys that there are not"
    if service == "work-items":
        assert owned == {"hf:wi:*"}
        assert all(key.startswith("hf:wi:") for key in writes)
    else:
        assert owned == writes.keys()


def test_the_dungeon_owns_the_keys_of_its_world() -> None:
    world = importlib.import_module("holdfast_dungeon.world").__doc__ or ""

    assert Table("provisioner-dungeon")["owns"] == set(re.findall(r"^(dungeon:\S+(?: key>)?)", world, re.MULTILINE))
