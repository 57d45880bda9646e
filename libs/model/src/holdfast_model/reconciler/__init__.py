"""The reconciler: desired and observed state in, commands out.

Role: decide what to observe, send, ask and tell for one graph, incrementally.
Ban: no I/O, no clock, no dice; nothing here costs the size of the graph for the change of a node.
"""

from .gating import Ended
from .reconciler import Reconciler
from .records import Phase, Record
from .turn import CloseIntent, Dispatch, ItemIntent, Look, Settings, StepIntent, Turn, TypeInfo

__all__ = [
    "CloseIntent",
    "Dispatch",
    "Ended",
    "ItemIntent",
    "Look",
    "Phase",
    "Reconciler",
    "Record",
    "Settings",
    "StepIntent",
    "Turn",
    "TypeInfo",
]
