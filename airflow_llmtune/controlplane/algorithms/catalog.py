"""Which algorithms there are, by Katib's names. Cheap to import: what an algorithm needs comes with its ``load``."""

from __future__ import annotations

import threading

from airflow_llmtune.controlplane.algorithms.grid import GridSearch
from airflow_llmtune.controlplane.algorithms.request import SearchAlgorithm

ALGORITHM_NAMES = (
    "random",
    "grid",
    "tpe",
    "multivariate-tpe",
    "bayesianoptimization",
    "cmaes",
    "sobol",
    "hyperband",
    "pbt",
)
EARLY_STOPPING_NAMES = ("medianstop",)

REFUSED_ALGORITHMS = {
    name: f"algorithm {name} searches neural architectures, which this control plane does not do; "
    f"use one of {', '.join(ALGORITHM_NAMES)}"
    for name in ("enas", "darts")
}
"""Algorithms that Katib has and this control plane has not, with what to say to who asks for one."""

_one_at_a_time = threading.Lock()


def load(name: str) -> SearchAlgorithm:
    """The algorithm of that name; raises ``KeyError`` for any other.

    Its libraries are imported here: Optuna, scipy and scikit-learn take up to two seconds, which a starting control
    plane need not pay. So call it off the loop. One thread at a time: scipy's packages import each other in a circle,
    and a second thread would see half of one.
    """
    with _one_at_a_time:
        return _loaded(name)


def _loaded(name: str) -> SearchAlgorithm:
    match name:
        case "random" | "tpe" | "multivariate-tpe":
            return _sampling(name)
        case "grid":
            return GridSearch()
        case "bayesianoptimization":
            from airflow_llmtune.controlplane.algorithms.bayesian import BayesianOptimization

            return BayesianOptimization()
        case "cmaes":
            from airflow_llmtune.controlplane.algorithms.cma_es import CovarianceMatrixAdaptation

            return CovarianceMatrixAdaptation()
        case "sobol":
            from airflow_llmtune.controlplane.algorithms.sobol import SobolSequence

            return SobolSequence()
        case "hyperband":
            from airflow_llmtune.controlplane.algorithms.hyperband import Hyperband

            return Hyperband()
        case "pbt":
            from airflow_llmtune.controlplane.algorithms.population import PopulationBasedTraining

            return PopulationBasedTraining()
    raise KeyError(name)


def _sampling(name: str) -> SearchAlgorithm:
    from airflow_llmtune.controlplane.algorithms import sampling

    match name:
        case "tpe":
            return sampling.TreeParzenEstimator()
        case "multivariate-tpe":
            return sampling.MultivariateTreeParzenEstimator()
    return sampling.RandomSearch()
