"""The reconciler: desired and observed state in, commands out.

Role: decide what to observe, send, ask and tell for one graph, incrementally.
Ban: no I/O, no clock, no dice; nothing here costs the size of the graph for the change of a node.
"""

from .gating import Ended
from .reconciler import Reconciler, reported_fault
from .records import Phase, Record
from .searching import Found, Leftover
from .turn import CloseIntent, Dispatch, Enter, ItemIntent, Look, Settings, StepIntent, Turn, TypeInfo
from .types import type_infos

__all__ = [
    "CloseIntent",
    "Dispatch",
    "Ended",
    "Enter",
    "Found",
    "ItemIntent",
    "Leftover",
    "Look",
    "Phase",
    "Reconciler",
    "Record",
    "Settings",
    "StepIntent",
    "Turn",
    "TypeInfo",
    "reported_fault",
    "type_infos",
]
