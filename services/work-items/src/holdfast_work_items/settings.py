"""Settings (environment, prefix ``HOLDFAST_``)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from holdfast_bus import BusSettings
from holdfast_model.durations import parse_duration
from holdfast_model.errors import Invalid


def _seconds(value: object) -> object:
    if isinstance(value, str) and value.strip().replace(".", "", 1).isdigit():
        return float(value)  # the environment knows only text
    if isinstance(value, str | int | float):
        try:
            return parse_duration(value)
        except Invalid as error:
            raise ValueError(error.message) from error
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
"""Seconds; written like ``5m``, ``PT5M`` or ``300``."""


class WorkItemsSettings(BusSettings):
    """Settings of work-items, on top of the bus's."""

    redis_url: str = "redis://127.0.0.1:6379/0"

    work_item_expiry: Duration = 86_400.0
    """Until items expire whose request names no time; 0: never."""
    work_item_claim: Duration = 14_400.0
    """Until items must be claimed whose request names no time; 0: never."""

    directory_file: str = ""
    """YAML or JSON file that says who is in which group; "": nobody is in any."""
    operators: str = ""
    """Names, separated by commas, of those who may act for anybody."""
    operator_group: str = "operators"
    """The directory's group of such people."""

    sweep_interval: Duration = Field(default=1.0, gt=0)
    """Between two looks at the deadlines."""
    relay_interval: Duration = Field(default=1.0, gt=0)
    """Between two looks at the outboxes, besides the look after each change made here."""
