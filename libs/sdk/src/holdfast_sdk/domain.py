"""The domain: a name, a blueprint, a compiler, node types, ladders. Holds no client and opens nothing."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

import msgspec

from holdfast_model.durations import parse_duration
from holdfast_model.errors import Invalid, Problem
from holdfast_model.ladders import compile_ladders
from holdfast_model.manifest import (
    Backoff,
    Ladder,
    Manifest,
    NodeType,
    OnDrift,
    OnUnknown,
    Scope,
    Situation,
    check_manifest,
)
from holdfast_model.messages import CompileReply
from holdfast_model.names import AI_REVIEW, check_label
from holdfast_model.situations import compile_situations

from .compiling import Compiler, compile_blueprint
from .handlers import Bound, bind, codec_for, has_role
from .policies import Policy
from .reviews import Reviewer, bind_reviewer
from .specs import SpecCodec, invalid

Duration = str | float
Hook = Callable[[], Awaitable[None]]
H = TypeVar("H", bound=type[Any])
F = TypeVar("F", bound=Callable[..., Any])


class ReviewOptions(msgspec.Struct, frozen=True):
    """How ``ai-review`` steps run: seconds one may take, and how many at once."""

    timeout: float = 120.0
    concurrency: int = 4


class Domain:
    """Everything one domain says of itself. Decorators register; :meth:`manifest` is what the planner learns.

    ``blueprint`` is the model of the blueprint's ``spec`` (None: a plain dict). ``version`` orders releases:
    the highest live one compiles, observes and runs steps. ``uses`` names types of other domains that the
    compiler may add.
    """

    def __init__(
        self, name: str, *, blueprint: type[Any] | None = None, version: str = "1", uses: Sequence[str] = ()
    ) -> None:
        self.name = check_label(name, "domain", "/domain")
        self.version = version
        self.uses = tuple(uses)
        self.blueprint: SpecCodec[Any] = SpecCodec(blueprint)
        self.ladders: list[Ladder] = []
        self.situations: list[Situation] = []
        self.instances: list[object] = []
        self.startup: list[Hook] = []
        self.shutdown: list[Hook] = []
        self.reviews: Reviewer | None = None
        self.review_options = ReviewOptions()
        self.evaluates: Policy | None = None
        self._compiler: Compiler | None = None
        self._types: dict[str, tuple[type[Any], NodeType, SpecCodec[Any]]] = {}

    # ---- what the author declares

    def compiler(self, function: F) -> F:
        """``def compile(blueprint, graph: GraphBuilder) -> None``; runs in a thread, so it may compute."""
        if inspect.iscoroutinefunction(function):
            raise Invalid(f"the compiler of domain {self.name!r} must not be async: it only computes")
        self._compiler = function
        return function

    def node_type(
        self,
        name: str,
        *,
        resync: Duration = "5m",
        timeout: Duration = "1m",
        rate: str | float = 0.0,
        concurrency: int = 64,
        batch: int = 64,
        on_drift: OnDrift | Literal["heal", "hold"] = OnDrift.HEAL,
        on_unknown: OnUnknown | Literal["wait", "provision"] = OnUnknown.WAIT,
        after_human: bool = False,
        outcomes: Mapping[str, Sequence[str]] | None = None,
        cascade: bool = True,
        adopt_orphans: Literal["report", "remove"] = "report",
        scope: Scope | Literal["platform", "tenant", "graph"] = Scope.PLATFORM,
        search: Duration | None = None,
        backoff: Backoff | tuple[Duration, Duration] | None = None,
        spec: type[Any] | None = None,
    ) -> Callable[[H], H]:
        """Make a class the handler of a node type. Durations are ``"5m"``, ``"PT5M"`` or seconds.

        ``timeout`` bounds one step or one observation; ``rate`` (``"5/s"``, ``"100/m"``) steps started per
        instance; ``concurrency`` steps at once, ``batch`` steps in one message; ``backoff`` is (first pause,
        longest pause). ``outcomes`` offers choices to people by reason code. The spec type comes from the
        annotations (or ``spec``). ``adopt_orphans``: whether what ``discover`` finds is only reported when nobody
        desires it, or removed. ``scope``: within what an id names one and the same thing; what any graph there
        desires is nobody's leftover. ``search``: how often leftovers are searched for (None: as often as ``resync``).
        """

        def register(cls: H) -> H:
            if name in self._types:
                raise Invalid(f"type {name!r} of domain {self.name!r} is declared twice")
            sees = has_role(cls, "observe") or has_role(cls, "observe_many")
            codec = codec_for(cls, spec)
            node_type = NodeType(
                name,
                spec_schema=codec.schema(),
                resync=parse_duration(resync, "/resync"),
                timeout=parse_duration(timeout, "/timeout"),
                batch=batch,
                concurrency=concurrency,
                rate=parse_rate(rate),
                on_drift=OnDrift(on_drift),
                on_unknown=OnUnknown(on_unknown),
                observes=sees,
                discover=has_role(cls, "discover"),
                cascade=cascade,
                adopt_orphans=adopt_orphans,
                scope=Scope(scope).value,
                search=0.0 if search is None else parse_duration(search, "/search"),
                after_human=after_human,
                outcomes={reason: list(names) for reason, names in (outcomes or {}).items()},
                backoff=_backoff(backoff),
            )
            for role in ("provision", "deprovision", "watch"):
                has_role(cls, role)
            self._types[name] = (cls, node_type, codec)
            return cls

        return register

    def ladder(self, ladder: Ladder) -> Ladder:
        """Attach a fault policy that is data. Raises Invalid for conditions that cannot be evaluated."""
        if any(known.name == ladder.name for known in self.ladders):
            raise Invalid(f"ladder {ladder.name!r} of domain {self.name!r} is declared twice")
        compile_ladders([*self.ladders, ladder])
        self.ladders.append(ladder)
        return ladder

    def situation(self, situation: Situation) -> Situation:
        """Attach a situation: several faults in one zone. Raises Invalid for one that cannot be evaluated."""
        compile_situations([*self.situations, situation])
        self.situations.append(situation)
        return situation

    def policy(self, function: F) -> F:
        """``async def policy(request: PolicyRequest) -> list[Mutation]``: a fault policy that is code."""
        if not inspect.iscoroutinefunction(function):
            raise Invalid(f"the policy of domain {self.name!r} must be async")
        self.evaluates = function
        return function

    @overload
    def reviewer(self, function: F) -> F: ...
    @overload
    def reviewer(self, *, timeout: Duration = "2m", concurrency: int = 4) -> Callable[[F], F]: ...
    def reviewer(
        self, function: F | None = None, *, timeout: Duration = "2m", concurrency: int = 4
    ) -> F | Callable[[F], F]:
        """``async def review(review: Review, ctx: Context) -> Reviewed``: answer ``ai-review`` steps of this
        domain.
        """

        def register(function: F) -> F:
            if not inspect.iscoroutinefunction(function):
                raise Invalid(f"the reviewer of domain {self.name!r} must be async")
            self.reviews = function
            self.review_options = ReviewOptions(parse_duration(timeout, "/timeout"), concurrency)
            return function

        return register if function is None else register(function)

    def on_startup(self, hook: Hook) -> Hook:
        """Run before the first message: open clients, check credentials. An exception ends the process."""
        self.startup.append(hook)
        return hook

    def on_shutdown(self, hook: Hook) -> Hook:
        """Run after the last handler ended."""
        self.shutdown.append(hook)
        return hook

    def handlers(self, *instances: object) -> None:
        """Handler instances that :func:`run` and ``python -m holdfast_sdk.run`` use when they are
        given none.
        """
        self.instances.extend(instances)

    # ---- what the runtime reads

    def manifest(self) -> Manifest:
        """What the planner learns. Raises Invalid when it could never be accepted."""
        manifest = Manifest(
            self.name,
            self.version,
            [node_type for _, node_type, _ in self._types.values()],
            blueprint_schema=self.blueprint.schema(),
            reviews=self.reviews is not None,
            ladders=self.ladders,
            evaluates=self.evaluates is not None,
            situations=self.situations,
        )
        check_manifest(manifest)
        return manifest

    def bind(self, handlers: Sequence[object] = ()) -> dict[str, Bound]:
        """Every type with its handler; Invalid names the ones that have none."""
        return bind(self._types, handlers or self.instances)

    @property
    def compiles(self) -> bool:
        """Whether it has a compiler; without one, users apply raw graphs."""
        return self._compiler is not None

    def served(self, handlers: Sequence[object] = ()) -> dict[str, Bound]:
        """:meth:`bind`, and the built-in ``ai-review`` where the domain has a reviewer."""
        served = self.bind(handlers)
        if self.reviews is not None:
            options = self.review_options
            served[AI_REVIEW] = bind_reviewer(self.reviews, options.timeout, options.concurrency)
        return served

    def compile(self, spec: object, tenant: str = "", graph: str = "") -> CompileReply:
        """The nodes of a blueprint's ``spec`` (JSON text or plain data). Raises Invalid with JSON
        pointers.
        """
        if self._compiler is None:
            text = f"domain {self.name!r} has no compiler; apply a raw graph with 'nodes'"
            raise Invalid(text, [Problem("", text)])
        raw = bytes(spec) if isinstance(spec, bytes | msgspec.Raw) else msgspec.json.encode(spec)
        codecs = {name: codec for name, (_, _, codec) in self._types.items()}
        try:
            return compile_blueprint(self._compiler, self.blueprint, codecs, raw, tenant, graph, self.uses)
        except msgspec.DecodeError as e:
            raise invalid(e, "blueprint") from e


def parse_rate(rate: str | float, path: str = "/rate") -> float:
    """Starts per second of ``"5/s"``, ``"100/m"``, ``"10/h"`` or a number; 0 = no limit. Raises Invalid."""
    if isinstance(rate, int | float) and not isinstance(rate, bool) and rate >= 0:
        return float(rate)
    count, slash, unit = str(rate).partition("/")
    per = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(unit.strip())
    try:
        value = float(count)
    except ValueError:
        value = -1.0
    if not slash or per is None or value <= 0:
        text = f"{rate!r} is not a rate; write it like 5/s, 100/m or 10/h"
        raise Invalid(text, [Problem(path, text)])
    return value / per


def _backoff(value: Backoff | tuple[Duration, Duration] | None) -> Backoff:
    if value is None:
        return Backoff()
    if isinstance(value, Backoff):
        return value
    return Backoff(parse_duration(value[0], "/backoff"), parse_duration(value[1], "/backoff"))
