"""What a handler may know of the attempt it makes, and what it may say while it works."""

from __future__ import annotations

from collections.abc import Callable

from holdfast_model.messages import Approval, Decision, Observation, Progress, Touch

from .states import Absent, Drifted, Present, Unknown, observation_of

Report = Callable[[Progress], None]


class Context:
    """One attempt at one node. Handlers of ``observe`` get one too; there ``operation`` and ``attempt`` are
    0.

    ``type`` is the node type that is asked about. ``deadline`` is when the attempt is cancelled (seconds
    since the epoch). ``approval`` is a person's consent to a plan that was asked for, ``decision`` what
    somebody chose for this node; both are None otherwise. ``due`` is when its phase or blueprint is out of
    time (None: it has no deadline); nothing is cancelled for it. ``outputs`` may be filled instead of
    returning outputs.
    """

    __slots__ = (
        "_outputs", "_report", "_touched", "approval", "attempt", "deadline", "decision", "due", "first", "graph",
        "incarnation", "node", "operation", "refs", "tenant", "type",
    )  # fmt: skip

    def __init__(
        self,
        tenant: str,
        graph: str,
        incarnation: str,
        node: str,
        operation: int,
        attempt: int,
        deadline: float,
        approval: Approval | None = None,
        decision: Decision | None = None,
        refs: dict[str, object] | None = None,
        report: Report | None = None,
        due: float | None = None,
        type: str = "",
        first: int = 0,
    ) -> None:
        self.tenant = tenant
        self.graph = graph
        self.incarnation = incarnation
        self.node = node
        self.type = type
        self.operation = operation
        self.first = first
        self.attempt = attempt
        self.deadline = deadline
        self.due = due
        self.approval = approval
        self.decision = decision
        self.refs = refs
        self._report = report
        self._outputs: dict[str, object] | None = None
        self._touched: list[Touch] | None = None

    @property
    def idempotency_key(self) -> str:
        """Equal for every attempt, redelivery and repetition of one intention, new for every new one.

        Check it atomically with the effect: an effect that carries this key has happened already. Operations are
        numbered per graph; the node's name is no part of it, so that it stays when the node is renamed.
        """
        return f"{self.incarnation}:{self.first or self.operation}"

    @property
    def outputs(self) -> dict[str, object]:
        """Values to publish with a success, where the handler does not return them."""
        if self._outputs is None:
            self._outputs = {}
        return self._outputs

    @property
    def published(self) -> dict[str, object] | None:
        """What was put into :attr:`outputs`; None for nothing."""
        return self._outputs or None

    @property
    def touched(self) -> tuple[Touch, ...]:
        """What :meth:`touch` collected."""
        return tuple(self._touched) if self._touched else ()

    def progress(self, done: float | None = None, total: float | None = None, unit: str = "", text: str = "") -> None:
        """Tell people how far this is. Cheap, never waits, may be dropped; nothing is decided upon it."""
        if self._report is not None:
            self._report(Progress(self.tenant, self.graph, self.node, self.operation, done, total, unit, text))

    def touch(
        self, node: str, observation: Present[object] | Absent | Drifted | Unknown | Observation | None = None
    ) -> None:
        """Say that this attempt changed another node: its backoff and quarantine end, and it is observed.

        With ``observation`` (what is there now) no second look is needed and dependents may go on at once.
        """
        seen = None if observation is None else observation_of(observation)
        if self._touched is None:
            self._touched = []
        self._touched.append(Touch(node, seen))
