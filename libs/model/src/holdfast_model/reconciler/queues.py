"""What is ready to be sent, queue by queue."""

from __future__ import annotations

from .records import Unit


class Queue:
    """Ready units of one step queue: urgent ones (heals, decisions) before bulk, each in order of arrival."""

    __slots__ = ("bulk", "urgent")

    def __init__(self) -> None:
        self.urgent: dict[Unit, None] = {}
        self.bulk: dict[Unit, None] = {}

    def __len__(self) -> int:
        return len(self.urgent) + len(self.bulk)
