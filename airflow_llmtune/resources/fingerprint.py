"""What a result depends on, in 16 hex digits: the same again would give the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources import trainer_flags
from airflow_llmtune.resources.checkpoints import RESERVED_CHECKPOINT_FLAGS
from airflow_llmtune.resources.meta import path

if TYPE_CHECKING:
    from airflow_llmtune.resources.experiment import ExperimentSpec
    from airflow_llmtune.resources.trial_template import TrainerSpec

__all__ = [
    "evaluation_fingerprint",
    "read_annotations",
    "to_annotations",
    "training_fingerprint",
    "tuning_fingerprint",
]

# On the object that is made from these inputs, so that who reads its result knows them also after a restart.
INPUTS_ANNOTATION = "airflow-llmtune/inputs"


def tuning_fingerprint(spec: ExperimentSpec, trainer: TrainerSpec, versions: Mapping[str, str]) -> str:
    """``versions``: of ``model`` and ``dataset``. How many trials run at once is how fast, not what is asked."""
    asked: dict[str, Any] = {
        "space": spec.space.to_manifest(),
        "objective": [spec.objective_type, spec.objective_metric_name, spec.objective_goal],
        "additional": spec.additional_metric_names,
        "algorithm": [spec.algorithm_name, spec.algorithm_settings],
        "trials": spec.max_trial_count,
    }
    if spec.early_stopping is not None:
        asked["early_stopping"] = spec.early_stopping
    return _digest({"search": asked, "trainer": _trainer(trainer, trainer.flags), "versions": versions})


def training_fingerprint(trainer: TrainerSpec, hyperparameters: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """``hyperparameters`` as the texts that the trainer is given."""
    # A setting is the same whether a tuning found it or the author wrote it.
    return _digest({"trainer": _trainer(trainer, {**trainer.flags, **hyperparameters}), "versions": versions})


def evaluation_fingerprint(
    trainer: TrainerSpec, settings: Mapping[str, str], adapter: str | None, versions: Mapping[str, str]
) -> str:
    """The same for an evaluation of an adapter and for the training that made it and evaluated it at its end."""
    flags = {**trainer.flags, **settings}
    # The adapter has a name of its own here: of a training it is what was made.
    chosen = {name: flags[name] for name in trainer_flags.evaluation_flags() if name in flags and name != "adapter"}
    return _digest({"evaluation": chosen, "adapter": adapter, "image": trainer.image, "versions": versions})


def to_annotations(fingerprints: Mapping[str, str]) -> dict[str, str]:
    """``fingerprints`` by what kind of result they stand for."""
    if not fingerprints:
        return {}
    return {INPUTS_ANNOTATION: " ".join(f"{kind}={fingerprint}" for kind, fingerprint in fingerprints.items())}


def read_annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    pairs = (path(obj, "metadata", "annotations", INPUTS_ANNOTATION) or "").split()
    return {kind: fingerprint for kind, _, fingerprint in (pair.partition("=") for pair in pairs)}


def _trainer(spec: TrainerSpec, flags: Mapping[str, str]) -> dict[str, Any]:
    """Flags name the sources, the image the trainer's version, and the number of processes makes the batch larger."""
    # A run that goes on from a checkpoint comes to the same end.
    course = {name: text for name, text in flags.items() if name not in RESERVED_CHECKPOINT_FLAGS}
    return {"image": spec.image, "flags": course, "processes": spec.num_nodes * spec.num_procs_per_node}


def _digest(asked: Any) -> str:
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
