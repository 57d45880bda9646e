"""Which adapter runs which shape of case: by file and, in files with several shapes, by kind."""

from __future__ import annotations

from . import adapters_faults as faults
from . import adapters_graph as graphs
from . import adapters_people as people
from . import adapters_pipeline as pipeline
from . import adapters_rest as rest
from .running import Adapter
from .vectors import Case

ADAPTERS: dict[str, dict[str, Adapter]] = {
    "graph": {"": graphs.run_graph},
    "planner": {"": graphs.run_planner},
    "mutations": {"apply": graphs.run_mutations, "diff": graphs.run_diff, "cycle": faults.run_cycles},
    "fault_engine": {"engine": faults.run_engine, "cycle": faults.run_cycles},
    "threshold": {"policy": faults.run_threshold, "store": faults.run_store},
    "approval": {"gating": people.run_gating, "planned_removal": people.run_gating, "executor": people.run_executor},
    "work_items": {"approval_handler": people.run_approval_handler, "caller_ref": people.run_caller_ref},
    "lifecycle": {"": rest.run_lifecycle},
    "routing": {"adapters": rest.run_adapters, "provisioners": rest.run_provisioners},
    "resync": {"": rest.run_resync},
    "pipeline": {
        "compile": pipeline.run_compile,
        "layers": pipeline.run_layers,
        "policy": pipeline.run_policy,
        "ai_review": pipeline.run_ai_review,
        "observe": pipeline.run_observe,
        "provision": pipeline.run_provision,
        "schema_approval": pipeline.run_simulated,
        "observe_world": pipeline.run_simulated,
        "loop": pipeline.run_simulated,
    },
}


def adapter_for(case: Case) -> Adapter | None:
    """The adapter for a case, or None when nothing corresponds to its shape yet."""
    return ADAPTERS.get(case.file, {}).get(case.kind)
