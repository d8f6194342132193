"""Which algorithms there are, by Katib's names."""

from __future__ import annotations

from airflow_llmtune.controlplane.algorithms.grid import GridSearch
from airflow_llmtune.controlplane.algorithms.request import SearchAlgorithm

ALGORITHM_NAMES = ("random", "grid", "tpe")


def load(name: str) -> SearchAlgorithm:
    """The algorithm of that name; raises ``KeyError`` for any other. Slow at first: call it off the loop."""
    if name == "grid":
        return GridSearch()
    # Imported here: Optuna and numpy take a quarter of a second, which a starting control plane need not pay.
    from airflow_llmtune.controlplane.algorithms.sampling import RandomSearch, TreeParzenEstimator

    algorithms: dict[str, type[RandomSearch | TreeParzenEstimator]] = {
        "random": RandomSearch,
        "tpe": TreeParzenEstimator,
    }
    return algorithms[name]()
