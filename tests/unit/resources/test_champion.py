"""Whether a candidate takes the champion's place, and in which words the answer comes."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources.champion import Rule, decide, describe, detect_drift, to_record
from airflow_llmtune.resources.problems import Problems

LAST_WEEK, TODAY = "2026-11-15T00:00:00+00:00", "2026-11-22T00:00:00+00:00"
NOW = {"dag_id": "retune", "run_id": "today", "task_id": "gate", "map_index": -1, "try_number": 1, "run_after": TODAY}
THEN = {**NOW, "run_id": "last week", "run_after": LAST_WEEK}
MINIMIZE = Rule("eval_loss", "minimize", 0.0)


def trained(
    loss: Any, rows: str | None = "aaaa", uri: str | None = "s3://models/new", **metrics: Any
) -> dict[str, Any]:
    evaluation = None if rows is None else {"fingerprint": rows, "rows": 64}
    manifest = {"base_model": "org/base", "dataset": "s3://data", "parameters": {"lora_r": 8}, "evaluation": evaluation}
    return {"metrics": {"eval_loss": loss, **metrics}, "artifact_uri": uri, "manifest": manifest}


def promoted(loss: float, rows: str = "aaaa", uri: str = "s3://models/old", lineage: Any = THEN) -> dict[str, Any]:
    return to_record(trained(loss, rows, uri), None, lineage, LAST_WEEK)


def ask(candidate: Any, champion: Any = None, baseline: Any = None, rule: Rule = MINIMIZE, **changes: Any) -> Any:
    problems = Problems()
    decision = decide(candidate, champion, baseline, rule, problems, **{"lineage": NOW, **changes})
    assert (decision is None) == bool(problems.errors)
    return decision


def mistake(*args: Any, **changes: Any) -> str:
    problems = Problems()
    assert decide(*args, problems, **{"lineage": NOW, **changes}) is None
    return "\n".join(map(str, problems.errors))


@pytest.mark.parametrize(
    ("new", "old", "rule", "promote"),
    [
        (2.4, 2.5, MINIMIZE, True),
        (2.5, 2.5, MINIMIZE, False),
        (2.6, 2.5, MINIMIZE, False),
        (2.4, 2.5, Rule("eval_loss", "minimize", 0.1), True),
        (2.41, 2.5, Rule("eval_loss", "minimize", 0.1), False),
        (0.9, 0.8, Rule("eval_loss", "maximize", 0.0), True),
        (0.9, 0.8, Rule("eval_loss", "maximize", 0.1), True),
        (0.8, 0.9, Rule("eval_loss", "maximize", 0.0), False),
        (-0.1, 0.1, MINIMIZE, True),
        (1e-9, 2e-9, MINIMIZE, True),
    ],
)
def test_the_better_one_is_the_champion(new, old, rule, promote):
    decision = ask(trained(new), promoted(old), rule=rule)
    assert decision.promote is promote
    assert decision.value == new
    assert decision.reference == old


@pytest.mark.parametrize(
    ("candidate", "champion", "rule", "reason"),
    [
        (trained(2.4), promoted(2.5), MINIMIZE, "eval_loss 2.4 is 0.1 better than the champion's 2.5"),
        (trained(2.75), promoted(2.5), MINIMIZE, "eval_loss 2.75 is 0.25 worse than the champion's 2.5"),
        (trained(2.5), promoted(2.5), MINIMIZE, "eval_loss 2.5 is no better than the champion's 2.5"),
        (
            trained(2.49),
            promoted(2.5),
            Rule("eval_loss", "minimize", 0.1),
            "eval_loss 2.49 is 0.01 better than the champion's 2.5; at least 0.1 better is asked for",
        ),
        (trained(2.5), None, MINIMIZE, "there is no champion yet; eval_loss is 2.5"),
    ],
)
def test_the_reason_is_one_sentence_with_both_numbers(candidate, champion, rule, reason):
    assert ask(candidate, champion, rule=rule).reason == reason


def test_the_first_candidate_needs_no_evaluation_to_compare_with():
    assert ask(trained(9.0, rows=None)).promote


@pytest.mark.parametrize(("base", "promote"), [(3.0, True), (2.0, False)])
def test_the_first_candidate_has_to_beat_the_base_model_when_that_was_evaluated(base, promote):
    decision = ask(trained(2.5), None, trained(base, uri=None))
    assert decision.promote is promote
    assert "the baseline's" in decision.reason


@pytest.mark.parametrize(("again", "promote"), [(2.6, True), (2.4, False)])
def test_on_new_rows_the_champion_is_what_it_is_worth_there(again, promote):
    baseline = trained(again, rows="bbbb", uri="s3://models/old")
    decision = ask(trained(2.5, rows="bbbb"), promoted(1.0, rows="aaaa"), baseline)
    assert decision.promote is promote
    assert decision.reference == again


def test_a_baseline_of_a_former_champion_is_not_needed_where_the_new_one_has_the_same_rows():
    former = trained(1.0, uri="s3://models/older")
    assert ask(trained(2.4), promoted(2.5), former).reference == 2.5


@pytest.mark.parametrize(
    ("candidate", "champion", "baseline", "words"),
    [
        (
            trained(2.4, rows="bbbb"),
            promoted(2.5),
            None,
            ["other rows (bbbb) than the champion (aaaa)", "give `baseline`"],
        ),
        (trained(2.4, rows=None), promoted(2.5), None, ["`candidate`", "does not tell on which rows"]),
        (
            trained(2.4, rows="bbbb"),
            promoted(2.5),
            trained(2.5, rows="bbbb", uri=None),
            ["`baseline`", "another model than the champion, s3://models/old", "clear the task"],
        ),
        (
            trained(2.4, rows="bbbb"),
            promoted(2.5),
            trained(2.5, rows="cccc", uri="s3://models/old"),
            ["`baseline`", "other rows (cccc) than the candidate (bbbb)"],
        ),
        (trained(2.4), None, trained(3.0, rows=None, uri=None), ["`baseline`", "does not tell on which rows"]),
        (trained(float("nan")), promoted(2.5), None, ["`candidate.metrics.eval_loss`=nan", "is not a finite number"]),
        (trained(None), None, None, ["is not a finite number"]),
        (trained(2.4), promoted(2.5), trained(float("inf"), uri="s3://models/old"), ["`baseline.metrics.eval_loss`"]),
        ({"metrics": {"evalloss": 2.4}}, None, None, ["has no metric 'eval_loss'", "did you mean `evalloss`?"]),
        ({"job": "train"}, None, None, ["`candidate`", "is no result with metrics"]),
        (None, None, None, ["`candidate`=None", "is no result with metrics"]),
        ("{{ output }}", promoted(2.5), None, ["is no result with metrics"]),
        (trained(2.4), None, "text", ["`baseline`", "is no result with metrics"]),
        (
            trained(2.4, uri="s3://models/old"),
            promoted(2.5),
            None,
            ["`candidate.artifact_uri`", "has been written over", "run_id"],
        ),
    ],
)
def test_what_cannot_be_compared_is_a_mistake_with_a_way_to_mend_it(candidate, champion, baseline, words):
    told = mistake(candidate, champion, baseline, MINIMIZE)
    assert [word for word in words if word not in told] == []


@pytest.mark.parametrize(
    ("lineage", "promote", "done", "words"),
    [
        (NOW, False, False, "nothing has changed since it was promoted"),
        (THEN, True, True, "already, by this very run"),
        ({**THEN, "try_number": 2}, True, True, "already, by this very run"),
    ],
)
def test_a_candidate_that_is_the_champion_is_let_through_only_in_the_run_that_made_it(lineage, promote, done, words):
    decision = ask(trained(2.5, uri="s3://models/old"), promoted(2.5), lineage=lineage)
    assert (decision.promote, decision.done) == (promote, done)
    assert words in decision.reason


def test_the_pace_of_a_training_says_nothing_of_its_model():
    again = trained(2.5, uri="s3://models/old")
    again["metrics"] |= {"train_tokens_per_second": 812.5, "peak_memory_bytes": 1.5e9}
    decision = ask(again, promoted(2.5), lineage=NOW)
    assert "nothing has changed" in decision.reason


def test_a_cleared_run_that_trained_its_champion_again_writes_it_anew():
    decision = ask(trained(2.7, uri="s3://models/old"), promoted(2.5), lineage=THEN)
    assert decision.promote
    assert not decision.done


@pytest.mark.parametrize(("allowed", "promote"), [(False, False), (True, True)])
def test_a_backfill_with_old_data_does_not_replace_the_champion_of_a_later_run(allowed, promote):
    champion, baseline = promoted(2.5, lineage=NOW), trained(3.0, rows="old", uri="s3://models/old")
    decision = ask(trained(1.0, rows="old"), champion, baseline, lineage=THEN, allow_backfill=allowed)
    assert decision.promote is promote
    if not allowed:
        assert "run today of 2026-11-22" in decision.reason
        assert "allow_backfill=True" in decision.reason


def test_of_two_runs_on_the_same_rows_the_better_one_wins_whichever_began_first():
    assert ask(trained(2.4), promoted(2.5, lineage=NOW), lineage=THEN).promote


def test_run_dates_compare_as_times_not_as_texts():
    earlier = {**THEN, "run_after": "2026-11-22T02:00:00+05:00"}
    assert not ask(trained(1.0, rows="old"), promoted(2.5, lineage={**NOW, "run_id": "x"}), lineage=earlier).promote


@pytest.mark.parametrize(
    ("metric", "direction", "least", "count"),
    [
        ("eval_loss", "minimize", 0, 0),
        ("eval_loss", "maximize", "0.1", 0),
        ("", "minimize", 0, 1),
        ("eval_loss", "down", 0, 1),
        ("eval_loss", "minimize", -1, 1),
        (None, None, "x", 3),
    ],
)
def test_a_rule_tells_all_its_mistakes_at_once(metric, direction, least, count):
    problems = Problems()
    Rule.read(metric, direction, least, problems)
    assert len(problems.errors) == count


def test_the_record_has_the_searched_parameters_and_where_they_come_from():
    tuned = {"parameters": {"learning_rate": 0.001}, "experiment": "exp", "trial": "exp-1", "metrics": {"eval_loss": 3}}
    record = to_record({**trained(2.4), "samples": {}}, tuned, NOW, TODAY)
    assert record["parameters"] == {"learning_rate": 0.001}
    assert (record["experiment"], record["trial"]) == ("exp", "exp-1")
    assert (record["model"], record["dataset"]) == ("org/base", "s3://data")
    assert record["lineage"] == NOW
    assert "samples" not in record


def test_without_a_tuning_the_record_has_the_settings_of_the_training():
    assert to_record(trained(2.4), None, NOW, TODAY)["parameters"] == {"lora_r": 8}


def test_a_model_without_a_champion_has_all_the_parts_that_templates_ask_for():
    none = describe(None)
    assert none["exists"] is False
    assert none["artifact_uri"] is None
    assert none["parameters"] == {}
    some = describe(promoted(2.5))
    assert some["exists"] is True
    assert some["artifact_uri"] == "s3://models/old"
    assert set(none) <= set(some)


def test_a_decision_carries_only_what_a_later_comparison_needs_of_the_baseline():
    baseline = trained(2.6, uri="s3://models/old", train_loss=1.0)
    told = ask(trained(2.5), promoted(2.7), baseline).to_json(MINIMIZE, baseline)
    kept = told["baseline"]
    assert kept["metrics"] == {"eval_loss": 2.6}
    assert set(kept["manifest"]) == {"evaluation"}
    assert ask(trained(2.5), promoted(2.7), kept).reference == 2.6


@pytest.mark.parametrize(
    ("now", "tolerated", "rule", "drifted"),
    [
        (2.6, 0.2, MINIMIZE, False),
        (2.8, 0.2, MINIMIZE, True),
        (2.0, 0.0, MINIMIZE, False),
        (2.0, 0.2, Rule("eval_loss", "maximize", 0.0), True),
        (2.6, 0.0, MINIMIZE, True),
    ],
)
def test_the_champion_drifts_when_it_gets_worse_by_more_than_is_tolerated(now, tolerated, rule, drifted):
    problems = Problems()
    found = detect_drift(trained(now, "zzzz", "s3://models/old"), promoted(2.5), rule, tolerated, problems)
    assert found.drifted is drifted
    assert f"is {now:.6g} now and was 2.5" in found.reason


def test_drift_is_told_of_the_champion_only():
    problems = Problems()
    assert detect_drift(trained(2.4), promoted(2.5), MINIMIZE, 0.1, problems) is None
    assert "is no evaluation of the champion" in str(problems.errors[0])
