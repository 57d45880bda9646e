"""Looking at everything again by interval: types of one interval share a timer, which falls due by the clock.

Rounds are counted from a moment that follows from the graph's name, so a graph that is unloaded, or moves to another
owner, keeps its place; and graphs of one interval are spread over it.
"""

from __future__ import annotations

from holdfast_model.resync import Preference, interval_for, missed_since, next_round

from .core import Core


def set_preferences(core: Core, preferences: tuple[Preference, ...]) -> None:
    """Preferences by name, the closest first (tenant, platform). They were checked when they were set."""
    core.preferences = preferences
    core.regroup = True


def regroup(core: Core) -> None:
    """Bring the timers in line with the types that are here now, and with the intervals in force.

    To be called with every turn; costs the number of types. A timer that stays keeps its time, one that is new gets
    the next round of its interval, so nothing is ever later than its interval asks.
    """
    catalog = core.catalog
    types = [n for n, members in core.by_type.items() if members and (i := catalog.get(n)) is not None and i.observes]
    if not core.regroup and types == core.grouped:
        return
    core.grouped, core.regroup = types, False
    declared = {name: catalog[name].resync for name in types}
    core.intervals = core.intervals.regrouped(types, lambda name: interval_for(name, declared, *core.preferences))
    after = missed_since(core.now, core.slept_until)
    name = str(core.ref)
    core.rounds = {i: core.rounds.get(i) or next_round(name, i, after) for i in core.intervals.groups}
    core.slept_until = None if types else core.slept_until


def rounds_due(core: Core) -> None:
    """Ask for the types whose interval has passed."""
    for interval, due in core.rounds.items():
        if due > core.now:
            continue
        core.rounds[interval] = next_round(str(core.ref), interval, core.now)
        for name in core.intervals.groups[interval]:
            for unit in core.by_type.get(name, ()):
                if not unit.asked and unit.id not in core.flights:
                    core.look(unit)
