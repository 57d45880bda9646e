"""Runs a domain as a process. The bus is loaded when a process starts, so that tests and tools need none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .domain import Domain

if TYPE_CHECKING:
    from .runtime import RuntimeSettings


def run(domain: Domain, *handlers: object, settings: RuntimeSettings | None = None) -> None:
    """Run a domain until SIGTERM. ``handlers`` are instances of the classes that serve its types.

    Settings come from the environment (prefix ``HOLDFAST_``) unless given. Ends the process with a readable
    error and a non-zero code when the planner refuses the domain or the bus connection closes for good.
    """
    from holdfast_bus.service import run as run_service

    from .runtime import build

    run_service(build(domain, *handlers, settings=settings))
