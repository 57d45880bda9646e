"""``python -m holdfast_sdk.run path/to/file.py[:name]``: run the domain that a file defines.

``name`` (default ``domain``) is the :class:`~holdfast_sdk.Domain`. Handlers are what the file's function
``handlers()`` returns (one instance or a list), else what was registered with ``domain.handlers(...)``;
classes that need no arguments are made without being named.
"""

from __future__ import annotations

import sys

from holdfast_model.errors import HoldfastError

from .loading import load
from .process import run


def main(arguments: list[str]) -> int:
    """Exit code: 0 after SIGTERM, 2 for a file that cannot be used."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m holdfast_sdk.run path/to/file.py[:name]\n")
        return 2
    try:
        domain, handlers = load(arguments[0])
        run(domain, *handlers)
    except HoldfastError as e:
        sys.stderr.write(f"error: {e.message}\n" + (f"hint: {e.hint}\n" if e.hint else ""))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
