"""A control plane that is only asked, never changed, and the count of what it and the operators said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.hooks import kubeflow
from verdicts import Rehearsal, Verdict

# `make fuzz` takes the other one: many more cases, and others at each run.
settings.register_profile("few", max_examples=25, derandomize=True, database=None)
settings.register_profile("many", max_examples=1000, database=None, print_blob=True)


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("fuzz") / "kubeconfig.yaml"
    with ControlPlane() as plane, pytest.MonkeyPatch.context() as patch:
        plane.write_kubeconfig(path)
        patch.setattr(kubeflow, "KubeflowClient", Rehearsal)
        yield str(path)


@pytest.fixture
def cases() -> settings:
    """How many, and which."""
    chosen = settings.get_current_profile_name()
    profile = settings.get_profile("many" if chosen == "many" else "few")
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(profile, deadline=None, suppress_health_check=checks)


class Tally:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, verdict: Verdict) -> None:
        kind = "accepted" if verdict.accepted else "refused" if verdict.mistakes else "refused by the server"
        self.counts[kind] += 1

    def assert_mixed(self) -> None:
        """A run that takes all, or refuses all, proves nothing."""
        for kind in ("accepted", "refused"):
            assert self.counts[kind] >= self.counts.total() / 10, self.counts


@pytest.fixture
def tally(record_property: Callable[[str, Any], None]) -> Iterator[Tally]:
    """Told at the end of the run."""
    counted = Tally()
    yield counted
    record_property("tally", dict(counted.counts))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    total: Counter[str] = Counter()
    # Where pytest keeps the reports of what came before and after the tests themselves.
    for report in terminalreporter.stats.get("", []):
        for name, value in getattr(report, "user_properties", ()):
            if name == "tally" and report.when == "teardown":
                total.update(value)
                terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {_told(value)}")
    if total:
        terminalreporter.write_line(f"{sum(total.values())} cases: {_told(total)}")


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
