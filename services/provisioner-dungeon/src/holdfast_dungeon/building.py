"""Deciding what a step does to one thing. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast_model.errors import Temporary
from holdfast_model.messages import REASON_SPEC_CHANGED

from .reasons import DungeonReason
from .things import Thing


def build(
    id: str, type: str, form: str, places: tuple[str, ...], times: int, standing: Mapping[str, Thing | None]
) -> Thing:
    """The thing as it is after it was built (again). ``times``: how often it was before.

    Raises Temporary when a room it needs is not there (any more).
    """
    for place in places:
        if standing.get(place) is None:
            raise Temporary(f"{place!r}, where {id!r} belongs, is not there", reason=DungeonReason.NO_ROOM)
    return Thing(id, type, form, places, built=times + 1)


def drift(thing: Thing, type: str, form: str) -> str:
    """The reason why a thing that stands is not as declared; "" if it is."""
    if thing.type != type or thing.form != form:
        return REASON_SPEC_CHANGED
    return thing.damage
