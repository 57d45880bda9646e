"""The ``holdfast`` command line: which commands there are."""

from __future__ import annotations

import typer

from . import doctor, graphs, importing, items, looking, pipelines, preferences, up, waiting
from .play.commands import play

HELP = """Keeps systems as declared.

Declare with `apply`, see with `get`, understand with `explain`, decide with `decide`. Every command takes -t TENANT
(or HOLDFAST_TENANT) and -o json. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 not reachable, 4 timed out,
5 plan has changes (with --detailed-exitcode)."""


def build() -> typer.Typer:
    """The command line as a fresh object."""
    app = typer.Typer(
        name="holdfast",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(up.up)
    app.command()(graphs.apply)
    app.command()(looking.plan)
    app.add_typer(looking.get, name="get")
    app.command("import")(importing.import_)
    app.command()(looking.explain)
    app.command()(looking.watch)
    app.command()(waiting.wait)
    app.add_typer(items.workitem, name="workitem")
    app.command()(items.decide)
    app.command()(graphs.unblock)
    app.command()(graphs.pause)
    app.command()(graphs.resume)
    app.command()(graphs.reconcile)
    app.command()(graphs.delete)
    app.add_typer(preferences.pref, name="pref")
    app.command()(doctor.doctor)
    app.add_typer(pipelines.pipeline, name="pipeline")
    app.add_typer(play, name="play")
    return app


def main() -> None:
    """Entry point of the ``holdfast`` script."""
    build()()
