"""
Whatever dies, hangs or is restarted, in whatever phase of a task: one result, one Experiment, nothing left over.

``pytest`` takes a few episodes of it, ``make chaos`` all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.cases import KILLS, Kill
from tests.chaos.matrix import Matrix
from tests.chaos.site import chaos_site

SHORT = {("worker", "SIGKILL"), ("trial pod", "SIGKILL"), ("triggerer", "SIGKILL")}

# The first case of an episode plays all of it.
pytestmark = pytest.mark.timeout(600)


def _param(kill: Kill) -> object:
    marks = () if (kill.target, kill.fault) in SHORT else (pytest.mark.chaos,)
    return pytest.param(kill, id=kill.name, marks=marks)


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    here = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    with chaos_site(tmp_path_factory.mktemp("chaos"), "chaos") as site:
        yield Matrix(site, [item.callspec.params["kill"] for item in here])


@pytest.mark.parametrize("kill", [_param(kill) for kill in KILLS])
def test_kill(kill: Kill, matrix: Matrix, tell: Callable[..., None]) -> None:
    result = matrix.result(kill)
    tell(kill, result.seen, result.seconds)
