"""``sobol``: a sequence that fills the space evenly.

Without ``random_state`` it is the plain sequence, the same for every Experiment, from its second point on (the first
is the corner of all lower bounds); with it the sequence is scrambled by the seed. Upstream ignores that one too: it has
no settings, and minds none. In ``strict`` distributions are ignored, as upstream's library does.
"""

from __future__ import annotations

from collections import Counter

from scipy.stats.qmc import Sobol

from airflow_llmtune.controlplane.algorithms.library_warnings import unheard
from airflow_llmtune.controlplane.algorithms.request import Reply, SearchRequest, Suggested
from airflow_llmtune.controlplane.algorithms.search_space import Assignments, InvalidSettingsError
from airflow_llmtune.controlplane.algorithms.unit_cube import assignments_at
from airflow_llmtune.controlplane.algorithms.upstream_space import as_goptuna


class SobolSequence:
    def validate(self, request: SearchRequest) -> None:
        if len(request.space) > Sobol.MAXDIM:
            raise InvalidSettingsError(f"sobol can search at most {Sobol.MAXDIM} parameters")

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        """The first points of the sequence that are not among the past ones; a dropped one therefore comes again."""
        request = as_goptuna(request)
        used = Counter(_key(trial.assignments) for trial in request.past)
        fresh = []
        for assignments in _points(request, len(request.past) + count):
            if used[_key(assignments)]:
                used[_key(assignments)] -= 1
            else:
                fresh.append(Suggested(assignments))
        return Reply(fresh[:count])


def _points(request: SearchRequest, count: int) -> list[Assignments]:
    scramble = "random_state" in request.settings
    with unheard():  # It likes powers of two.
        engine = Sobol(len(request.space), scramble=scramble, seed=request.seed(()))
        if not scramble:
            engine.fast_forward(1)
        return [assignments_at(request.space, [float(unit) for unit in point]) for point in engine.random(count)]


def _key(assignments: Assignments) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(assignments.items()))
