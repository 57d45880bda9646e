"""``holdfast pref``: how often a tenant, or the whole platform, has types looked at again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import OutputOption, TenantOption
from .screen import Format, Screen
from .session import Reply
from .showing import show

pref = typer.Typer(help="Preferences: desiredstate.resync.TYPE, how often nodes of a type are looked at.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="desiredstate.resync.TYPE")]
PlatformOption = Annotated[bool, typer.Option("--platform", help="For all tenants that set none of their own.")]


@pref.command("set")
def set_(
    name: NameArgument,
    value: Annotated[str, typer.Argument(help="A duration of at least 1s: 30s, 5m, PT5M.")],
    platform: PlatformOption = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Prefer a value; it is in force at once."""
    _ask("pref_set", {"name": name, "value": value, "platform": platform}, tenant, output)


@pref.command()
def get(
    name: NameArgument,
    platform: PlatformOption = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Show the value in force, and who says so."""
    _ask("pref_get", {"name": name, "platform": platform}, tenant, output)


@pref.command()
def unset(
    name: NameArgument,
    platform: PlatformOption = False,
    tenant: TenantOption = "default",
    output: OutputOption = Format.TEXT,
) -> None:
    """Prefer nothing any more."""
    _ask("pref_unset", {"name": name, "platform": platform}, tenant, output)


@pref.command("list")
def list_(tenant: TenantOption = "default", output: OutputOption = Format.TEXT) -> None:
    """List what the tenant and the platform prefer."""

    def tell(screen: Screen, reply: Reply) -> None:
        values = [(r["name"], r["value"], r["source"]) for r in reply.get("preferences", [])]
        screen.table(("name", "value", "from"), values, f"tenant {tenant!r} and the platform prefer nothing")

    show(output, tenant, "pref_list", {}, tell)


def _ask(verb: str, body: dict[str, Any], tenant: str, output: Format) -> None:
    def tell(screen: Screen, reply: Reply) -> None:
        screen.say(f"{reply['name']} is {reply['value']} (from the {reply['source']})")

    show(output, tenant, verb, body, tell)
