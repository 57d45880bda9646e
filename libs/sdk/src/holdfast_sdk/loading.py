"""Finds a domain in a file that somebody wrote."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from holdfast_model.errors import Invalid

from .domain import Domain


def load(target: str) -> tuple[Domain, Sequence[object]]:
    """The domain named by ``file.py`` or ``file.py:name``, and its handler instances.

    The file's folder becomes importable. Raises Invalid naming what is missing.
    """
    path, _, name = target.partition(".py:")
    file = Path(f"{path}.py" if name else path).resolve()
    module = _module(file)
    domain = getattr(module, name or "domain", None)
    if not isinstance(domain, Domain):
        found = [key for key, value in vars(module).items() if isinstance(value, Domain)]
        hint = f"it defines {', '.join(found)}; name one as {file.name}:{found[0]}" if found else ""
        raise Invalid(f"{file.name} has no Domain called {name or 'domain'!r}", hint=hint)
    factory = getattr(module, "handlers", None)
    if factory is None:
        return domain, ()
    made = factory()
    return domain, made if isinstance(made, list | tuple) else (made,)


def _module(file: Path) -> ModuleType:
    if not file.is_file():
        raise Invalid(f"there is no file {file.name}", hint=f"looked in {file.parent}")
    name = f"holdfast_domain_{file.stem}"  # a name of its own, as the file may be called like a library
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Invalid(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are resolved through it
    sys.path.insert(0, str(file.parent))
    spec.loader.exec_module(module)
    return module
