"""The champion: the record of a model's best version so far, and whether a candidate takes its place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_llmtune.resources.meta import finite, path
from airflow_llmtune.resources.problems import Problems, did_you_mean

__all__ = ["SCHEMA_VERSION", "Decision", "Drift", "Rule", "decide", "describe", "detect_drift", "to_record", "without"]

JSON = Mapping[str, Any]

SCHEMA_VERSION = 1
DIRECTIONS = ("minimize", "maximize")
# Of two trainings that are alike, both differ.
_OF_THE_RUN = {"train_tokens_per_second", "peak_memory_bytes"}
# What a reader of a model without a champion gets: templates that ask for a part find nothing there, not an error.
_PARTS: dict[str, Any] = {"parameters": {}, "metrics": {}, "artifact_uri": None, "model": None, "dataset": None}


class Rule(NamedTuple):
    """What "better" means."""

    metric: str
    direction: str
    min_improvement: float

    @classmethod
    def read(cls, metric: Any, direction: Any, min_improvement: Any, problems: Problems) -> Rule:
        """Note every mistake in ``problems``; the rule returned is good only when there is none."""
        if not isinstance(metric, str) or not metric:
            problems.add("metric", metric, "is no metric's name", "give one such as eval_loss")
        chosen = problems.choice("direction", direction, DIRECTIONS)
        least = problems.number("min_improvement", min_improvement)
        if least is not None and least < 0:
            problems.add("min_improvement", min_improvement, "is negative", "give 0 or more")
        return cls(str(metric), chosen or "minimize", least or 0.0)

    def improvement(self, value: float, reference: float) -> float:
        """How much better a value is; negative when it is worse."""
        return reference - value if self.direction == "minimize" else value - reference

    def satisfied(self, improvement: float) -> bool:
        return improvement > 0 and (
            _same_number(improvement, self.min_improvement) or improvement >= self.min_improvement
        )


class Decision(NamedTuple):
    promote: bool
    reason: str
    value: float | None = None
    reference: float | None = None
    improvement: float | None = None
    # The candidate already is the champion, made by this very run: nothing is to be written.
    done: bool = False

    def to_json(self, rule: Rule, baseline: Any) -> dict[str, Any]:
        return {
            "promote": self.promote,
            "reason": self.reason,
            "metric": rule.metric,
            "direction": rule.direction,
            "min_improvement": rule.min_improvement,
            "value": self.value,
            "reference": self.reference,
            "improvement": self.improvement,
            "baseline": _essence(baseline, rule) if isinstance(baseline, Mapping) else None,
        }


def decide(
    candidate: Any,
    champion: JSON | None,
    baseline: Any,
    rule: Rule,
    problems: Problems,
    *,
    lineage: JSON,
    allow_backfill: bool = False,
) -> Decision | None:
    """
    Say whether the candidate becomes the champion; None, with the reason in ``problems``, when that cannot be told.

    ``baseline`` is an evaluation of the champion's adapter, or without a champion of the base model, on the rows on
    which the candidate was evaluated. ``lineage`` is that of the task that asks.
    """
    value = _read_value("candidate", candidate, rule, problems)
    if value is not None:
        _check_plain("candidate", candidate, problems)
    if value is not None and champion is not None:
        known = _known(candidate, champion, value, lineage, problems)
        if known is not None or problems.errors:
            return known
        if not allow_backfill and _older(lineage, champion) and _evaluation(candidate) != _evaluation(champion):
            return Decision(False, _tell_older(lineage, champion), value)
    reference = _find_reference(candidate, champion, baseline, rule, problems)
    if value is None or problems.errors:
        return None
    if reference is None:
        return Decision(True, f"there is no champion yet; {rule.metric} is {value:.6g}", value)
    number, whose = reference
    improvement = rule.improvement(value, number)
    passed = rule.satisfied(improvement)
    reason = f"{rule.metric} {value:.6g} is {_tell_difference(improvement)} {whose}'s {number:.6g}"
    if rule.min_improvement and not (improvement <= 0):
        reason += f"; at least {rule.min_improvement:.6g} better is asked for"
    return Decision(passed, reason, value, number, improvement)


def _known(candidate: JSON, champion: JSON, value: float, lineage: JSON, problems: Problems) -> Decision | None:
    """Decide about a candidate that lies where the champion lies."""
    address = candidate.get("artifact_uri")
    if not address or address != champion.get("artifact_uri"):
        return None
    same_run = _same(lineage, champion.get("lineage"), "dag_id", "run_id")
    if candidate.get("manifest") == champion.get("manifest") and _judged(candidate) == _judged(champion):
        if same_run:
            return Decision(True, "the candidate is the champion already, by this very run", value, done=True)
        return Decision(False, "the candidate is the champion: nothing has changed since it was promoted", value)
    if same_run:
        return Decision(True, "this run, cleared, has trained its champion again", value)
    told = "is where the champion lay, which has been written over, so that nothing is left to compare with"
    problems.add("candidate.artifact_uri", address, told, "give each run an `output_uri` of its own: …/{{ run_id }}")
    return None


def _judged(model: JSON) -> JSON:
    """Its metrics, without those of the run, which the same training made again differs in."""
    metrics = model.get("metrics") or {}
    return {name: value for name, value in metrics.items() if name not in _OF_THE_RUN}


def _older(lineage: JSON, champion: JSON) -> bool:
    ours, theirs = lineage.get("run_after"), path(champion, "lineage", "run_after")
    return bool(ours and theirs and datetime.fromisoformat(ours) < datetime.fromisoformat(theirs))


def _tell_older(lineage: JSON, champion: JSON) -> str:
    made = champion["lineage"]
    return (
        f"the champion comes from run {made['run_id']} of {made['run_after']}, which is later than this run's "
        f"{lineage['run_after']}, and from other data; `allow_backfill=True` would let it be replaced"
    )


def _find_reference(
    candidate: Any, champion: JSON | None, baseline: Any, rule: Rule, problems: Problems
) -> tuple[float, str] | None:
    """The number to beat, and whose it is; None without a champion and a baseline, or after noting a mistake."""
    if champion is None:
        return None if baseline is None else _of_baseline(candidate, baseline, "the baseline", rule, problems)
    if baseline is not None and path(baseline, "artifact_uri") == champion.get("artifact_uri"):
        return _of_baseline(candidate, baseline, "the champion", rule, problems)
    ours, theirs = _evaluation(candidate), _evaluation(champion)
    if ours is not None and ours == theirs:
        number = _read_value("champion", champion, rule, problems)
        return None if number is None else (number, "the champion")
    if baseline is not None:
        rule_text = f"evaluates another model than the champion, {champion.get('artifact_uri')}"
        fix = "evaluate the champion that is recorded now: clear the task that made the baseline"
        problems.add("baseline", path(baseline, "artifact_uri"), rule_text, fix)
    elif ours is None:
        _note_unknown("candidate", problems)
    else:
        told = f"was evaluated on other rows ({ours}) than the champion ({theirs})"
        fix = "give `baseline`: the champion evaluated on the candidate's rows (EvaluateLLMOperator)"
        problems.add("candidate", path(candidate, "artifact_uri"), told, fix)
    return None


def _of_baseline(candidate: Any, baseline: Any, whose: str, rule: Rule, problems: Problems) -> tuple[float, str] | None:
    number = _read_value("baseline", baseline, rule, problems)
    ours, theirs = _evaluation(candidate), _evaluation(baseline)
    for argument, found in (("candidate", ours), ("baseline", theirs)):
        if found is None:
            _note_unknown(argument, problems)
    if ours is not None and theirs is not None and ours != theirs:
        told = f"was evaluated on other rows ({theirs}) than the candidate ({ours})"
        problems.add("baseline", path(baseline, "artifact_uri"), told, "give both tasks the same data and settings")
    return None if number is None or ours is None or ours != theirs else (number, whose)


def _note_unknown(argument: str, problems: Problems) -> None:
    rule = "does not tell on which rows it was evaluated (`manifest.evaluation.fingerprint`)"
    fix = "evaluate it with EvaluateLLMOperator, or let its container write the manifest"
    problems.add(argument, None, rule, fix)


def _read_value(argument: str, result: Any, rule: Rule, problems: Problems) -> float | None:
    metrics = path(result, "metrics")
    if not isinstance(metrics, Mapping):
        rule_text, fix = "is no result with metrics", "give the output of the task that trained or evaluated it"
        problems.add(argument, result, rule_text, fix)
        return None
    if rule.metric not in metrics:
        told = f"has no metric {rule.metric!r}"
        problems.add(argument, path(result, "artifact_uri"), told, did_you_mean(rule.metric, metrics))
        return None
    number = finite(metrics[rule.metric])
    if number is None:
        fix = "look into the training's log: its loss was no finite number"
        problems.add(f"{argument}.metrics.{rule.metric}", metrics[rule.metric], "is not a finite number", fix)
    return number


def _check_plain(argument: str, result: Any, problems: Problems) -> None:
    """XCom carries tuples and dates as well, the asset's state does not."""
    try:
        plain = json.loads(json.dumps(result)) == result
    except (TypeError, ValueError):
        plain = False
    if not plain:
        rule = "holds what JSON cannot say"
        problems.add(
            argument, path(result, "artifact_uri"), rule, "return only dicts, lists, texts, numbers and booleans"
        )


def _same_number(one: float, other: float) -> bool:
    """2.5 - 2.4 is a little less than 0.1: what misses a bound by rounding only has reached it."""
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _evaluation(result: Any) -> str | None:
    found = path(result, "manifest", "evaluation", "fingerprint")
    return found if isinstance(found, str) and found else None


def _same(ours: JSON, theirs: Any, *keys: str) -> bool:
    return isinstance(theirs, Mapping) and all(ours.get(key) == theirs.get(key) for key in keys)


def _tell_difference(improvement: float) -> str:
    if improvement == 0:
        return "no better than"
    return f"{abs(improvement):.6g} {'better' if improvement > 0 else 'worse'} than"


def _essence(baseline: JSON, rule: Rule) -> dict[str, Any]:
    return {
        "artifact_uri": baseline.get("artifact_uri"),
        "metrics": {rule.metric: path(baseline, "metrics", rule.metric)},
        "manifest": {"evaluation": path(baseline, "manifest", "evaluation")},
    }


# --- the record ---------------------------------------------------------------------------------------------


def to_record(candidate: JSON, tuned: JSON | None, lineage: JSON, promoted_at: str) -> dict[str, Any]:
    """What the model's asset remembers of its champion; ``tuned`` is the result of the tuning that led to it."""
    manifest = candidate.get("manifest") or {}
    parameters = path(tuned, "parameters") or manifest.get("parameters") or {}
    return {
        "schema_version": SCHEMA_VERSION,
        "parameters": dict(parameters),
        "metrics": dict(candidate["metrics"]),
        "artifact_uri": candidate.get("artifact_uri"),
        "model": manifest.get("base_model"),
        "dataset": manifest.get("dataset"),
        "manifest": dict(manifest),
        "experiment": path(tuned, "experiment"),
        "trial": path(tuned, "trial"),
        "lineage": dict(lineage),
        "promoted_at": promoted_at,
    }


def describe(champion: JSON | None) -> dict[str, Any]:
    """The champion for templates: the parts are there also when there is no champion."""
    return {**_PARTS, **(champion or {}), "exists": champion is not None}


def without(record: JSON, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


# --- drift --------------------------------------------------------------------------------------------------


class Drift(NamedTuple):
    drifted: bool
    reason: str
    value: float
    reference: float
    degradation: float

    def to_json(self, metric: str) -> dict[str, Any]:
        return {
            "drifted": self.drifted,
            "reason": self.reason,
            "metric": metric,
            "value": self.value,
            "reference": self.reference,
            "degradation": self.degradation,
        }


def detect_drift(
    evaluation: Any, champion: JSON, rule: Rule, max_degradation: float, problems: Problems
) -> Drift | None:
    """Compare the champion on other rows with what it was worth when it was promoted; None after noting a mistake."""
    value = _read_value("evaluation", evaluation, rule, problems)
    reference = _read_value("champion", champion, rule, problems)
    evaluated = path(evaluation, "artifact_uri")
    if evaluated != champion.get("artifact_uri"):
        told = f"is no evaluation of the champion, {champion.get('artifact_uri')}"
        problems.add("evaluation", evaluated, told, "evaluate the adapter that GetChampionOperator returns")
    if value is None or reference is None or problems.errors:
        return None
    degradation = 0.0 - rule.improvement(value, reference)
    drifted = degradation > max_degradation and not _same_number(degradation, max_degradation)
    reason = (
        f"the champion's {rule.metric} is {value:.6g} now and was {reference:.6g}: "
        f"{_tell_difference(-degradation).removesuffix(' than')}, and {max_degradation:.6g} worse is tolerated"
    )
    return Drift(drifted, reason, value, reference, degradation)
