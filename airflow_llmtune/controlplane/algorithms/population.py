"""``pbt``: population based training. Each trial goes on from the checkpoint of its parent in the generation before.

A generation is complete when ``n_population`` of its trials are. Of every member of it one child is made: the worst
(below the quantile ``truncation_threshold``) are replaced by a copy of one of the best, the others explore: each
parameter is moved by a fifth up or down, or with ``resample_probability`` drawn anew. While a generation lacks results
more of the same are made. A failed trial is tried again. Which generation and which parent a trial has stands in its
labels, so nothing is kept between calls; the folders of the checkpoints are the controller's business.

Differs from Katib, whose faults ``strict`` keeps: ``resample_probability`` works, and whoever copies the parameters of
a better trial also copies that trial's checkpoint instead of the worse one's. New values stay on their step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from airflow_llmtune.controlplane.algorithms.population_labels import GENERATION_LABEL, PARENT_LABEL
from airflow_llmtune.controlplane.algorithms.request import PastTrial, Reply, SearchRequest, Suggested
from airflow_llmtune.controlplane.algorithms.sampling import random_assignments
from airflow_llmtune.controlplane.algorithms.search_space import (
    Assignments,
    Choice,
    InvalidSettingsError,
    Parameter,
    Range,
)

_REQUIRED = ("suggestion_trial_dir", "n_population", "truncation_threshold")
_LONGEST_NAME = 63 - len("-") - len(str(uuid4()))
_FACTORS = (0.8, 1.2)


class PopulationBasedTraining:
    def validate(self, request: SearchRequest) -> None:
        missing = [name for name in _REQUIRED if name not in request.settings]
        if missing:
            raise InvalidSettingsError(f"Required params missing: {', '.join(missing)}")
        try:
            _check_numbers(request)
        except (ValueError, TypeError) as error:
            # What a Python service answers to a call that raised.
            raise InvalidSettingsError(f"Exception calling application: {error}") from error
        for parameter in request.space:
            if isinstance(parameter, Range) and parameter.step is None:
                raise InvalidSettingsError(f"Param: {parameter.name} needs feasibleSpace.step for algorithm pbt")
        if not request.strict:
            _check_surroundings(request)

    def suggest(self, request: SearchRequest, count: int) -> Reply:
        family = _Family(request)
        past, suggested = list(request.past), []
        for _ in range(count):
            one = family.next(past)
            suggested.append(one)
            past.append(PastTrial(one.assignments, name=one.name, labels=one.labels))
        return Reply(suggested)


def _check_numbers(request: SearchRequest) -> None:
    settings = request.settings
    if int(settings["n_population"]) < 5:
        raise InvalidSettingsError("Param(n_population) should be >= 5")
    if not 0 <= float(settings["truncation_threshold"]) <= 1:
        raise InvalidSettingsError("Param(truncation_threshold) should be between 0 and 1, inclusive")
    probability = settings.get("resample_probability")
    if probability is not None and request.strict:
        raise TypeError("'<=' not supported between instances of 'int' and 'str'")
    if probability is not None and not 0 <= float(probability) <= 1:
        raise InvalidSettingsError(
            "Param(resample_probability) should be null to perturb at 0.8 or 1.2, "
            "or be between 0 and 1, inclusive, to resample"
        )


def _check_surroundings(request: SearchRequest) -> None:
    """What upstream finds out only when no pod or no Trial can be made."""
    if request.resume_policy != "FromVolume":
        raise InvalidSettingsError("pbt keeps its checkpoints on a volume, so spec.resumePolicy must be FromVolume")
    if len(request.experiment_name) > _LONGEST_NAME:
        raise InvalidSettingsError(
            f"pbt labels trials with names made of the Experiment's and a UUID: metadata.name may have at most "
            f"{_LONGEST_NAME} characters"
        )


@dataclass(frozen=True)
class _Child:
    assignments: Assignments
    generation: int
    parent: str = ""


class _Family:
    def __init__(self, request: SearchRequest) -> None:
        settings = request.settings
        self._request = request
        self._population = int(settings["n_population"])
        self._truncation = float(settings["truncation_threshold"])
        probability = settings.get("resample_probability")
        self._resample_probability = None if probability is None else float(probability)

    def next(self, past: Sequence[PastTrial]) -> Suggested:
        child = _retried(past) or self._born(past)
        labels = {GENERATION_LABEL: str(child.generation)} | ({PARENT_LABEL: child.parent} if child.parent else {})
        return Suggested(child.assignments, f"{self._request.experiment_name}-{uuid4()}", labels)

    def _born(self, past: Sequence[PastTrial]) -> _Child:
        generation = max(map(_generation, past), default=0)
        if len(_complete(past, generation)) >= self._population:
            generation += 1
        seed = self._request.seed([trial.assignments for trial in past])
        members = _complete(past, generation - 1)
        if not members:
            return _Child(self._sampled(seed), generation)
        siblings = sum(_generation(trial) == generation for trial in past)
        return self._child(members, siblings, random.Random(seed))  # noqa: S311  no secret

    def _child(self, members: Sequence[PastTrial], number: int, generator: random.Random) -> _Child:
        """The child of the member whose turn it is."""
        member = members[number % len(members)]
        generation = _generation(member) + 1
        gains = sorted(-self._request.loss(one) for one in members)
        gain = -self._request.loss(member)
        if gain >= _quantile(gains, self._truncation):
            return _Child(self._explored(member.assignments, generator), generation, member.name)
        best = [one for one in members if -self._request.loss(one) >= _quantile(gains, 1 - self._truncation)]
        better = generator.choice(best)
        return _Child(better.assignments, generation, member.name if self._request.strict else better.name)

    def _explored(self, assignments: Assignments, generator: random.Random) -> Assignments:
        if self._resample_probability is None:
            return {one.name: _perturbed(one, assignments[one.name], generator) for one in self._request.space}
        fresh = self._sampled(generator.getrandbits(32))
        anew = {one.name for one in self._request.space if generator.random() < self._resample_probability}
        return {name: fresh[name] if name in anew else text for name, text in assignments.items()}

    def _sampled(self, seed: int) -> Assignments:
        return random_assignments(self._request.space, seed)


def _generation(trial: PastTrial) -> int:
    return int(trial.labels.get(GENERATION_LABEL, 0))


def _complete(past: Sequence[PastTrial], generation: int) -> list[PastTrial]:
    return [trial for trial in past if trial.outcome == "complete" and _generation(trial) == generation]


def _retried(past: Sequence[PastTrial]) -> _Child | None:
    """The first failed trial of which no later one is a repetition."""
    ended: dict[_Identity, PastTrial | None] = {}
    for trial in past:
        ended[_identity(trial)] = trial if trial.outcome == "failed" else None
    failed = next((trial for trial in ended.values() if trial is not None), None)
    if failed is None:
        return None
    return _Child(failed.assignments, _generation(failed), failed.labels.get(PARENT_LABEL, ""))


_Identity = tuple[tuple[tuple[str, str], ...], int, str]


def _identity(trial: PastTrial) -> _Identity:
    assignments = tuple(sorted(trial.assignments.items()))
    return assignments, _generation(trial), trial.labels.get(PARENT_LABEL, "")


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Between two values in proportion, as numpy's default."""
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))


def _perturbed(parameter: Parameter, text: str, generator: random.Random) -> str:
    if isinstance(parameter, Choice):
        moved = parameter.options.index(text) + generator.choice((-1, 1))
        return parameter.options[moved % len(parameter.options)]
    assert parameter.step is not None
    number, factor = float(text), generator.choice(_FACTORS)
    change = number * factor - number
    # On a coarse grid a fifth may be less than a step, and then nothing would ever change.
    step = float(parameter.step)
    moved_to = number + math.copysign(max(abs(change), step), change or factor - 1)
    return parameter.text(min(max(moved_to, float(parameter.low)), float(parameter.last)))
