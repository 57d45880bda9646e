"""What stands in the world, as it is kept."""

from __future__ import annotations

import msgspec


class Thing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that was built.

    ``form`` is the spec it was built from, as JSON text; ``places`` are the rooms it stands in; ``damage`` says what
    is wrong with it ("" = nothing); ``built`` counts how often it was built, ``wounds`` how often it was damaged.
    """

    id: str
    type: str
    form: str
    places: tuple[str, ...] = ()
    damage: str = ""
    built: int = 1
    wounds: int = 0

    @property
    def posture(self) -> str:
        """How a garrison defends its location; "" for anything else."""
        return _stance(self.form.encode()).posture

    @property
    def location(self) -> str:
        """The location that it stands at; "" for what stands in rooms."""
        return _stance(self.form.encode()).location

    @property
    def token(self) -> str:
        """What of it was seen: differs whenever it was built or damaged."""
        return f"{self.built}.{self.wounds}"


class _Stance(msgspec.Struct, frozen=True):
    """The members of a form that matter to raids."""

    location: str = ""
    posture: str = ""


_stance = msgspec.json.Decoder(_Stance).decode


class Deed(msgspec.Struct, frozen=True):
    """An effect that has happened under an idempotency key. ``built`` as of :class:`Thing`, 0 for a removal."""

    built: int = 0
