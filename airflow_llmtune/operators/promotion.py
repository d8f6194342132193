"""The gate: is a candidate better than the model's champion, does it take its place, and has the champion got worse?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_llmtune.exceptions import LLMTuneError
from airflow_llmtune.operators.model_asset import ModelState, lineage_of, name_in_inlets, tell_outlets
from airflow_llmtune.operators.refusal import fail_on
from airflow_llmtune.resources import champion
from airflow_llmtune.resources.problems import Problems

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_llmtune.resources.champion import Decision

__all__ = ["CompareModelOperator", "DetectModelDriftOperator", "GetChampionOperator", "PromoteModelOperator"]

JSON = dict[str, Any]
# The XCom that tells why, also when the task skips and so returns nothing.
DECISION = "decision"
# How to compare; a promotion after a comparison takes all of it from there.
DEFAULTS: JSON = {
    "metric": "eval_loss",
    "direction": "minimize",
    "min_improvement": 0.0,
    "baseline": None,
    "allow_backfill": False,
}
# Champions that other runs may write while this one decides, before it gives up.
ROUNDS = 3


class ModelAssetOperator(BaseOperator):
    """
    Works on what the model's asset remembers.

    :param model_asset: the Airflow asset that stands for the model; its state holds the champion.
    """

    ui_color = "#e4f0e8"

    def __init__(self, *, model_asset: Asset, multiple_outputs: bool = True, **kwargs: Any) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.model_asset = model_asset
        name_in_inlets(self, model_asset)

    def skip(self, context: Context, decision: JSON) -> NoReturn:
        """Skip this task, and so what comes after it; the reason stays readable in the XCom ``decision``."""
        context["ti"].xcom_push(key=DECISION, value=decision)
        raise AirflowSkipException(decision["reason"])


class CompareModelOperator(ModelAssetOperator):
    """
    Lets a candidate through that is better than the model's champion, and skips itself and what follows otherwise.

    Two results compare only on the same evaluation rows, which their ``manifest["evaluation"]["fingerprint"]`` tells.
    On new data evaluate the champion again and give that as ``baseline``. Nothing is written: put an approval and a
    deployment behind it, and :class:`PromoteModelOperator` at the end.

    XCom: the candidate itself, and ``decision``: ``{"promote", "reason", "metric", "direction", "min_improvement",
    "value", "reference", "improvement", "baseline", "allow_backfill"}``; the latter also when it skips.

    :param model_asset: the Airflow asset that stands for the model; its state holds the champion.
    :param candidate: result of the training, such as ``fine_tune.output``.
    :param baseline: evaluation of the champion's adapter on the candidate's rows, such as ``evaluate.output``; without
        a champion that of the base model, which the first candidate then has to beat.
    :param metric: metric to compare; default ``eval_loss``.
    :param direction: ``minimize`` (default) or ``maximize``.
    :param min_improvement: how much better, in the metric's own unit, the candidate has to be; default: any better.
    :param allow_backfill: let a run of an earlier date replace the champion of a later one though its data is another;
        where both were evaluated on the same rows the better one wins in any case. Default: false. May be a template,
        such as ``"{{ params.backfill }}"``.
    """

    template_fields: Sequence[str] = (
        "candidate",
        "baseline",
        "metric",
        "direction",
        "min_improvement",
        "allow_backfill",
    )
    template_fields_renderers = {"candidate": "json", "baseline": "json"}

    def __init__(
        self,
        *,
        model_asset: Asset,
        candidate: Mapping[str, Any],
        baseline: Mapping[str, Any] | None = None,
        metric: str | None = None,
        direction: str | None = None,
        min_improvement: float | str | None = None,
        allow_backfill: bool | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model_asset=model_asset, **kwargs)
        self.candidate = candidate
        self.baseline = baseline
        self.metric = metric
        self.direction = direction
        self.min_improvement = min_improvement
        self.allow_backfill = allow_backfill

    def execute(self, context: Context) -> JSON:
        _, told = self._decide(context, ModelState(context, self.model_asset).champion())
        return {**self.candidate, DECISION: told}

    def _decide(self, context: Context, current: JSON | None) -> tuple[Decision, JSON]:
        """Return a decision for the candidate, and how it is told; one against it skips the task."""
        problems = Problems()
        asked = self._asked(problems)
        rule = champion.Rule.read(asked["metric"], asked["direction"], asked["min_improvement"], problems)
        allow_backfill = problems.boolean("allow_backfill", asked["allow_backfill"])
        decision = None
        if not problems.errors:
            decision = champion.decide(
                self.candidate,
                current,
                asked["baseline"],
                rule,
                problems,
                lineage=lineage_of(context),
                allow_backfill=bool(allow_backfill),
            )
        fail_on(self, problems)
        assert decision is not None, "else there were problems"
        told = {**decision.to_json(rule, asked["baseline"]), "allow_backfill": allow_backfill}
        if not decision.promote:
            self.skip(context, told)
        self.log.info("The candidate passes: %s", decision.reason)
        return decision, told

    def _asked(self, problems: Problems) -> JSON:
        """Return what is to be compared, and how: as the arguments say, or as an earlier comparison did."""
        own = {key: getattr(self, key) for key in DEFAULTS if getattr(self, key) is not None}
        earlier = self.candidate.get(DECISION) if isinstance(self.candidate, Mapping) else None
        if not isinstance(earlier, Mapping):
            return {**DEFAULTS, **own}
        for key, value in own.items():
            rule, fix = "was said already where the candidate was compared", "leave it out here"
            problems.add(key, value, rule, fix)
        return {key: earlier.get(key, default) for key, default in DEFAULTS.items()}


class PromoteModelOperator(CompareModelOperator):
    """
    Makes a candidate the model's champion if it is better than the one before, and skips what follows otherwise.

    Takes the result of a training, or that of :class:`CompareModelOperator`, whose rule and baseline then hold. The
    champion may have changed since the comparison, by another run; so it is compared again, and the champion read anew
    before and after it is written. Airflow's state store cannot compare and write in one step, so one instance of this
    task runs at a time (``max_active_tis_per_dag=1``); tasks of several DAGs that promote one model need a pool of one
    slot.

    XCom: the champion's record, ``{"parameters", "metrics", "artifact_uri", "model", "dataset", "manifest",
    "experiment", "trial", "lineage", "promoted_at", "schema_version"}``, and ``decision``. The asset gets an event with
    its parts.

    :param model_asset: the Airflow asset that stands for the model; its state holds the champion.
    :param candidate: result of the training or of the comparison.
    :param tuned: result of the tuning, ``tune.output``: the champion then remembers the parameters that were searched,
        for ``warm_start``, and the Experiment; default: all settings that the training was given.
    :param baseline: as for :class:`CompareModelOperator`, and so are the other arguments.
    """

    template_fields: Sequence[str] = (*CompareModelOperator.template_fields, "tuned")
    template_fields_renderers = {**CompareModelOperator.template_fields_renderers, "tuned": "json"}

    def __init__(
        self, *, model_asset: Asset, candidate: Mapping[str, Any], tuned: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(model_asset=model_asset, candidate=candidate, **{"max_active_tis_per_dag": 1, **kwargs})
        self.tuned = tuned
        if model_asset not in self.outlets:
            self.outlets.append(model_asset)

    def execute(self, context: Context) -> JSON:
        state = ModelState(context, self.model_asset)
        record, told = self._promote(context, state)
        tell_outlets(context, self, record)
        return {**record, DECISION: told}

    def _promote(self, context: Context, state: ModelState) -> tuple[JSON, JSON]:
        for _ in range(ROUNDS):
            current = state.champion()
            decision, told = self._decide(context, current)
            if decision.done and current is not None:
                return current, told
            now = datetime.now(UTC).isoformat()
            record = champion.to_record(self.candidate, self.tuned, lineage_of(context), now)
            if state.crown(record, replacing=current):
                return record, told
        raise LLMTuneError(
            f"The champion of asset {self.model_asset.name!r} changed {ROUNDS} times while this task decided. "
            f"Fix: give all tasks that promote this model one pool with one slot"
        )


class GetChampionOperator(ModelAssetOperator):
    """
    Returns the model's champion for the tasks that follow.

    XCom: the champion's record and ``exists``. Without a champion ``exists`` is false, ``parameters`` and ``metrics``
    are empty, and ``artifact_uri``, ``model`` and ``dataset`` are None, so that an EvaluateLLMOperator with
    ``adapter=champion.output["artifact_uri"]`` evaluates the base model.

    :param model_asset: the Airflow asset that stands for the model; its state holds the champion.
    """

    def __init__(self, *, model_asset: Asset, **kwargs: Any) -> None:
        super().__init__(model_asset=model_asset, **kwargs)

    def execute(self, context: Context) -> JSON:
        found = ModelState(context, self.model_asset).champion()
        made = "none yet" if found is None else f"{found['artifact_uri']}, of run {found['lineage']['run_id']}"
        self.log.info("Champion of %s: %s", self.model_asset.name, made)
        return champion.describe(found)


class DetectModelDriftOperator(ModelAssetOperator):
    """
    Succeeds when the champion does worse on fresh data than when it was promoted, and skips what follows otherwise.

    Its ``outlets`` get an event then, which can start the DAG that tunes again.

    XCom: ``{"drifted", "reason", "metric", "value", "reference", "degradation"}``; when it skips, as ``decision``.

    :param model_asset: the Airflow asset that stands for the model; its state holds the champion.
    :param evaluation: evaluation of the champion's adapter on fresh data, such as ``evaluate.output``.
    :param max_degradation: how much worse, in the metric's own unit, is tolerated.
    :param metric: metric to compare.
    :param direction: ``minimize`` or ``maximize``.
    """

    template_fields: Sequence[str] = ("evaluation", "max_degradation", "metric", "direction")
    template_fields_renderers = {"evaluation": "json"}

    def __init__(
        self,
        *,
        model_asset: Asset,
        evaluation: Mapping[str, Any],
        max_degradation: float | str,
        metric: str = "eval_loss",
        direction: str = "minimize",
        **kwargs: Any,
    ) -> None:
        super().__init__(model_asset=model_asset, **kwargs)
        self.evaluation = evaluation
        self.max_degradation = max_degradation
        self.metric = metric
        self.direction = direction

    def execute(self, context: Context) -> JSON:
        current = ModelState(context, self.model_asset).champion()
        if current is None:
            self.skip(context, {"drifted": False, "reason": "there is no champion yet, so nothing has drifted"})
        problems = Problems()
        rule = champion.Rule.read(self.metric, self.direction, 0, problems)
        tolerated = problems.number("max_degradation", self.max_degradation)
        if tolerated is not None and tolerated < 0:
            problems.add("max_degradation", self.max_degradation, "is negative", "give 0 or more")
        drift = None
        if tolerated is not None:
            drift = champion.detect_drift(self.evaluation, current, rule, tolerated, problems)
        fail_on(self, problems)
        assert drift is not None, "else there were problems"
        told = drift.to_json(self.metric)
        if not drift.drifted:
            self.skip(context, told)
        self.log.warning("Drift: %s", drift.reason)
        tell_outlets(context, self, told)
        return told
