"""How node types are treated, read off the manifest of the domain that claims them."""

from __future__ import annotations

from holdfast_model.ladders import covered
from holdfast_model.manifest import Manifest

from .turn import TypeInfo


def type_infos(manifest: Manifest, *, live: bool = True) -> dict[str, TypeInfo]:
    """What the reconciler must know of each type of ``manifest``; ``live``: somebody of the domain is running."""
    return {
        t.name: TypeInfo(
            manifest.domain, manifest.version, live, t.resync, t.timeout, t.batch, t.on_drift.value, t.on_unknown.value,
            t.observes, t.cascade, t.after_human, t.backoff.base, t.backoff.cap, manifest.reviews, t.outcomes,
            covered(manifest.ladders, t.name), t.spec_schema, t.discover, t.adopt_orphans, t.scope,
            t.search,
        )
        for t in manifest.types
    }  # fmt: skip
