"""Our code does what the vectors say, or what a decision of ours says instead."""

from __future__ import annotations

import pytest

from .adapters import adapter_for
from .conftest import Results
from .deviations import read_rules
from .running import Verdict, judge, stale_rules
from .vectors import Case, folder, is_default, read_cases

CASES = read_cases()
RULES = read_rules()
NO_VECTORS = f"no conformance vectors in {folder()}; HOLDFAST_CONFORMANCE names their folder"


PARAMS = [pytest.param(c, id=c.id) for c in CASES] or [
    pytest.param(None, id="none", marks=pytest.mark.skip(reason=NO_VECTORS))
]


@pytest.mark.parametrize("case", PARAMS)
def test_the_vector_holds(case: Case, results: Results) -> None:
    judged = judge(case, adapter_for(case), RULES)
    results.judged.append(judged)
    if judged.verdict is Verdict.PENDING:
        pytest.skip(f"pending: {judged.why}")
    if judged.verdict is Verdict.FAILED:
        pytest.fail(f"{case.id}\n{judged.why}", pytrace=False)


def test_no_rule_is_stale(results: Results) -> None:
    """Other folders may hold only those cases of a kind that a rule does not touch: there it is merely told."""
    if not CASES:
        pytest.skip(NO_VECTORS)
    done = {j.case.id: j for j in results.judged}
    judged = [done.get(c.id) or judge(c, adapter_for(c), RULES) for c in CASES]
    results.stale = stale_rules(judged, RULES)
    assert not (results.stale and is_default()), f"these rules explain nothing any more: {results.stale}"
