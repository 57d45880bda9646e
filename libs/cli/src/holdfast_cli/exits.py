"""How a command ends: exit codes for scripts, and the one error block for people.

====  ======================================================================
code  meaning
====  ======================================================================
0     done
1     refused or failed: a rejected blueprint, an error answer, a failed check
2     the command line (or a file it names) makes no sense
3     Holdfast cannot be reached
4     it did not happen within ``--timeout``
5     ``plan --detailed-exitcode``: there are changes
130   interrupted (Ctrl-C)
====  ======================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from holdfast_model.errors import ErrorBody, HoldfastError, Problem, Unavailable, to_body


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMED_OUT = 4
    CHANGES = 5
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends a command with an exit code and one readable block."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        problems: Sequence[Problem] = (),
        code: str = "failed",
        exit: Exit = Exit.FAILED,
    ) -> None:
        super().__init__(message)
        self.body = ErrorBody(code, message, hint, tuple(problems))
        self.exit = exit


def command_error(error: HoldfastError) -> CommandError:
    """The end of a command that an error of the services stands for."""
    body = to_body(error)
    exit = Exit.UNREACHABLE if isinstance(error, Unavailable) else Exit.FAILED
    return CommandError(body.message, hint=body.hint, problems=body.paths, code=body.code, exit=exit)
