"""The gate, from XCom to the asset's state: retries, clears, backfills and runs that overlap."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import DAG, Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.serialization.serialized_objects import DagSerialization

from airflow_llmtune.exceptions import InvalidSpecError, LLMTuneError
from airflow_llmtune.operators.model_asset import CHAMPION, HISTORY, KEPT_CHAMPIONS
from airflow_llmtune.operators.promotion import (
    CompareModelOperator,
    DetectModelDriftOperator,
    GetChampionOperator,
    PromoteModelOperator,
)
from asset_state import AssetRun, AssetStates

MODEL = Asset("model")
DRIFT = Asset("drift")
TUNED = {"parameters": {"learning_rate": 0.001}, "experiment": "exp", "trial": "exp-1", "metrics": {"eval_loss": 3.0}}


def trained(loss: Any, run: str = "new", rows: str = "aaaa") -> dict[str, Any]:
    manifest = {"base_model": "org/base", "dataset": "s3://data", "parameters": {}, "evaluation": {"fingerprint": rows}}
    return {"metrics": {"eval_loss": loss}, "artifact_uri": f"s3://models/{run}", "manifest": manifest}


def promote(candidate: Any, **changes: Any) -> PromoteModelOperator:
    return PromoteModelOperator(task_id="promote", model_asset=MODEL, candidate=candidate, **changes)


@pytest.fixture
def states() -> AssetStates:
    return AssetStates()


@pytest.fixture
def champion(states: AssetStates) -> dict[str, Any]:
    """Last week's champion."""
    run = AssetRun(states, run_id="last week", run_after=datetime(2026, 11, 15, tzinfo=UTC))
    run.complete(promote(trained(2.5, "old"), tuned=TUNED))
    return states[MODEL].get(CHAMPION)


def test_the_first_candidate_is_recorded_with_its_lineage_and_told_to_the_assets_consumers(states):
    run = AssetRun(states)
    result = run.complete(promote(trained(2.5), tuned=TUNED))
    record = states[MODEL].get(CHAMPION)
    assert {key: result[key] for key in record} == record
    assert record["parameters"] == {"learning_rate": 0.001}
    assert record["lineage"]["run_id"] == run.run_id
    assert record["lineage"]["run_after"] == run.run_after.isoformat()
    extra = run.outlet_events[MODEL].extra
    assert extra["artifact_uri"] == "s3://models/new"
    assert extra["metrics"] == {"eval_loss": 2.5}
    assert result["decision"]["promote"] is True


def test_a_better_candidate_takes_the_place_and_the_one_before_goes_into_the_history(states, champion):
    AssetRun(states).complete(promote(trained(2.4)))
    assert states[MODEL].get(CHAMPION)["artifact_uri"] == "s3://models/new"
    (before,) = states[MODEL].get(HISTORY)
    assert before["artifact_uri"] == "s3://models/old"
    assert "manifest" not in before


def test_a_worse_candidate_skips_with_the_reason_and_changes_nothing(states, champion):
    run = AssetRun(states)
    with pytest.raises(AirflowSkipException, match=r"eval_loss 2.75 is 0.25 worse than the champion's 2.5"):
        run.complete(promote(trained(2.75)))
    assert run.xcoms["decision"]["promote"] is False
    assert run.xcoms["decision"]["reference"] == 2.5
    assert states[MODEL].get(CHAMPION) == champion


def test_the_history_is_bounded(states):
    for number in range(KEPT_CHAMPIONS + 5):
        AssetRun(states).complete(promote(trained(100.0 - number, f"run-{number}")))
    assert len(states[MODEL].get(HISTORY)) == KEPT_CHAMPIONS


def test_a_retry_after_the_record_was_written_returns_it_again(states):
    run = AssetRun(states)
    first = run.complete(promote(trained(2.5)))
    again = run.complete(promote(trained(2.5)))
    assert again["promoted_at"] == first["promoted_at"]
    assert run.outlet_events[MODEL].extra["artifact_uri"] == "s3://models/new"
    assert states[MODEL].get(HISTORY) is None


def test_a_candidate_that_an_unchanged_run_returned_skips(states, champion):
    with pytest.raises(AirflowSkipException, match="nothing has changed since it was promoted"):
        AssetRun(states).complete(promote({**trained(2.5, "old"), "unchanged": True}))


def test_a_comparison_lets_the_candidate_through_and_writes_nothing(states, champion):
    run = AssetRun(states)
    passed = run.complete(CompareModelOperator(task_id="compare", model_asset=MODEL, candidate=trained(2.4)))
    assert passed["artifact_uri"] == "s3://models/new"
    assert states[MODEL].get(CHAMPION) == champion
    assert run.outlet_events._dict == {}


def test_a_promotion_after_a_comparison_goes_by_its_rule_and_baseline(states, champion):
    run = AssetRun(states)
    candidate, baseline = trained(1.4, rows="bbbb"), trained(1.8, "old", rows="bbbb")
    compare = CompareModelOperator(
        task_id="compare", model_asset=MODEL, candidate=candidate, baseline=baseline, min_improvement="0.25"
    )
    result = run.complete(promote(run.complete(compare)))
    assert result["decision"]["min_improvement"] == 0.25
    assert result["decision"]["reference"] == 1.8
    assert states[MODEL].get(CHAMPION)["metrics"] == {"eval_loss": 1.4}


def test_a_champion_that_another_run_promoted_since_the_comparison_is_compared_with(states, champion):
    run = AssetRun(states)
    passed = run.complete(CompareModelOperator(task_id="compare", model_asset=MODEL, candidate=trained(2.4)))
    AssetRun(states).complete(promote(trained(2.2, "other")))
    with pytest.raises(AirflowSkipException, match=r"0.2 worse than the champion's 2.2"):
        run.complete(promote(passed))
    assert states[MODEL].get(CHAMPION)["artifact_uri"] == "s3://models/other"


@pytest.mark.parametrize(("other", "winner"), [(2.2, "other"), (2.45, "new")])
def test_a_champion_that_is_written_in_the_same_moment_is_not_lost_when_it_is_better(states, champion, other, winner):
    """The other task writes after we have decided, and before we write."""
    state, looks = states[MODEL], iter(range(100))
    get = state.get

    def intruded(key: str, default: Any = None) -> Any:
        # The second look is the one before the write.
        if key == CHAMPION and next(looks) == 1:
            AssetRun(states).complete(promote(trained(other, "other")))
        return get(key, default)

    state.get = intruded
    run = AssetRun(states)
    if winner == "other":
        with pytest.raises(AirflowSkipException):
            run.complete(promote(trained(2.4)))
    else:
        run.complete(promote(trained(2.4)))
    assert get(CHAMPION)["artifact_uri"] == f"s3://models/{winner}"


def test_a_champion_that_changes_all_the_time_is_an_error_to_retry(states, champion):
    state, number = states[MODEL], iter(range(100))
    get = state.get

    def changing(key: str, default: Any = None) -> Any:
        found = get(key, default)
        return {**found, "promoted_at": str(next(number))} if key == CHAMPION else found

    state.get = changing
    with pytest.raises(LLMTuneError, match="one pool with one slot"):
        AssetRun(states).complete(promote(trained(2.4)))


def test_a_backfill_of_an_older_date_does_not_replace_the_champion(states, champion):
    backfill = {"run_id": "backfill", "run_after": datetime(2026, 11, 8, tzinfo=UTC)}
    candidate, baseline = trained(1.0, rows="bbbb"), trained(3.0, "old", rows="bbbb")
    with pytest.raises(AirflowSkipException, match="later than this run's"):
        AssetRun(states, **backfill).complete(promote(candidate, baseline=baseline))
    AssetRun(states, **backfill).complete(promote(candidate, baseline=baseline, allow_backfill=True))
    assert states[MODEL].get(CHAMPION)["artifact_uri"] == "s3://models/new"


@pytest.mark.parametrize(("given", "allowed"), [("{{ false }}", False), ("{{ true }}", True), (False, False)])
def test_whether_a_backfill_may_do_so_can_be_a_template(states, champion, given, allowed):
    backfill = AssetRun(states, run_id="backfill", run_after=datetime(2026, 11, 8, tzinfo=UTC))
    baseline = trained(3.0, "old", rows="bbbb")
    candidate = promote(trained(1.0, rows="bbbb"), baseline=baseline, allow_backfill=given)
    if allowed:
        assert backfill.complete(candidate)["artifact_uri"] == "s3://models/new"
    else:
        with pytest.raises(AirflowSkipException):
            backfill.complete(candidate)


def test_a_backfill_that_a_comparison_let_through_is_promoted(states, champion):
    """What lies between the two has deployed it."""
    run = AssetRun(states, run_id="backfill", run_after=datetime(2026, 11, 8, tzinfo=UTC))
    changes = {"baseline": trained(3.0, "old", rows="bbbb"), "allow_backfill": True}
    candidate = trained(1.0, rows="bbbb")
    compare = CompareModelOperator(task_id="compare", model_asset=MODEL, candidate=candidate, **changes)
    passed = run.complete(compare)
    assert run.complete(promote(passed))["artifact_uri"] == "s3://models/new"


def test_what_cannot_be_compared_fails_the_task_without_a_retry(states, champion):
    run = AssetRun(states)
    with pytest.raises(AirflowFailException, match="give `baseline`"):
        run.complete(promote(trained(1.0, rows="bbbb")))
    with pytest.raises(AirflowFailException, match="`candidate`=None is no result with metrics"):
        run.complete(promote(None))
    with pytest.raises(AirflowFailException, match="`allow_backfill`='perhaps' is neither true nor false"):
        run.complete(promote(trained(1.0), allow_backfill="perhaps"))
    with pytest.raises(AirflowFailException, match=r"`candidate`='s3://models/new' holds what JSON cannot say"):
        run.complete(promote({**trained(1.0), "manifest": {"evaluation": {"fingerprint": "aaaa"}, "rows": (4, 8)}}))
    assert states[MODEL].get(CHAMPION) == champion


def test_what_a_comparison_has_settled_is_not_settled_again(states):
    run = AssetRun(states)
    passed = run.complete(CompareModelOperator(task_id="compare", model_asset=MODEL, candidate=trained(2.4)))
    with pytest.raises(AirflowFailException, match=r"`min_improvement`=0\.5 was said already"):
        run.complete(promote(passed, min_improvement=0.5))


def test_a_champion_of_an_unknown_schema_is_not_guessed_at(states):
    states[MODEL].set(CHAMPION, {"schema_version": 2})
    with pytest.raises(LLMTuneError, match="schema version 1"):
        AssetRun(states).complete(promote(trained(2.4)))


def test_each_model_has_a_champion_of_its_own(states, champion):
    other = Asset("other model")
    AssetRun(states).complete(PromoteModelOperator(task_id="p", model_asset=other, candidate=trained(9.0)))
    assert states[MODEL].get(CHAMPION) == champion
    assert states[other].get(CHAMPION)["metrics"] == {"eval_loss": 9.0}


def test_the_champion_is_there_for_templates_also_when_there_is_none(states):
    get = GetChampionOperator(task_id="get", model_asset=MODEL)
    none = AssetRun(states).complete(get)
    assert (none["exists"], none["artifact_uri"], none["parameters"]) == (False, None, {})
    AssetRun(states).complete(promote(trained(2.5), tuned=TUNED))
    some = AssetRun(states).complete(get)
    assert (some["exists"], some["artifact_uri"]) == (True, "s3://models/new")
    assert some["parameters"] == {"learning_rate": 0.001}


def drift(evaluation: Any, **changes: Any) -> DetectModelDriftOperator:
    settings = {"max_degradation": "0.2", "outlets": [DRIFT], **changes}
    return DetectModelDriftOperator(task_id="drift", model_asset=MODEL, evaluation=evaluation, **settings)


def test_drift_starts_what_waits_for_the_outlet_and_tells_it_the_numbers(states, champion):
    run = AssetRun(states)
    told = run.complete(drift(trained(2.9, "old", rows="cccc")))
    assert told["drifted"] is True
    assert run.outlet_events[DRIFT].extra["value"] == 2.9
    assert run.outlet_events[DRIFT].extra["reference"] == 2.5


@pytest.mark.parametrize("loss", [2.6, 2.0, 2.7])  # 2.7 - 2.5 is a little more than 0.2
def test_without_drift_the_task_skips(states, champion, loss):
    run = AssetRun(states)
    with pytest.raises(AirflowSkipException, match=r"0\.2 worse is tolerated"):
        run.complete(drift(trained(loss, "old", rows="cccc")))
    assert run.xcoms["decision"]["drifted"] is False


def test_nothing_drifts_before_there_is_a_champion(states):
    with pytest.raises(AirflowSkipException, match="no champion yet"):
        AssetRun(states).complete(drift(trained(2.6)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluation": trained(2.6, "another")}, "is no evaluation of the champion"),
        ({"evaluation": trained(2.6, "old"), "max_degradation": "much"}, "`max_degradation`"),
        ({"evaluation": trained(2.6, "old"), "max_degradation": "-0.1"}, "`max_degradation`='-0.1' is negative"),
        ({"evaluation": trained(2.6, "old"), "direction": "down"}, "`direction`"),
    ],
)
def test_a_wrong_drift_check_fails_without_a_retry(states, champion, changes, words):
    with pytest.raises(AirflowFailException, match=words):
        AssetRun(states).complete(drift(**changes))


@pytest.mark.parametrize("given", ["model", None, ["model"]])
def test_a_model_asset_that_is_none_is_told_when_the_dag_is_parsed(given):
    with pytest.raises(InvalidSpecError, match=r"`model_asset`=.* is no Airflow asset\. Fix: give `Asset"):
        GetChampionOperator(task_id="get", model_asset=given)


def test_airflow_runs_one_promotion_at_a_time_and_stores_the_assets():
    with DAG("dag", schedule=None) as dag:
        compare = CompareModelOperator(task_id="compare", model_asset=MODEL, candidate=trained(1.0))
        promotion = PromoteModelOperator(task_id="promote", model_asset=MODEL, candidate=compare.output)
        own = PromoteModelOperator(
            task_id="own", model_asset=MODEL, candidate=compare.output, outlets=[MODEL], max_active_tis_per_dag=4
        )
    assert promotion.upstream_task_ids == {"compare"}
    assert (compare.inlets, compare.outlets) == ([MODEL], [])
    assert promotion.outlets == own.outlets == [MODEL]
    assert (promotion.max_active_tis_per_dag, own.max_active_tis_per_dag) == (1, 4)
    DagSerialization.to_dict(dag)
