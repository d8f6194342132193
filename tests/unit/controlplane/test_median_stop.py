from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.algorithms import median_stop
from airflow_llmtune.controlplane.algorithms.search_space import InvalidSettingsError
from both_modes import both_modes

MINIMIZE = {"type": "minimize", "objectiveMetricName": "loss"}


@both_modes("mean-for-median")
def test_the_limit_is_the_median_of_the_other_trials(strict: bool) -> None:
    (rule,) = median_stop.rules([0.25, 0.5, 3.0], {}, MINIMIZE, strict=strict)
    value = "1.25" if strict else "0.5"
    assert rule == {"name": "loss", "value": value, "comparison": "greater", "startStep": 4}


def test_with_maximize_a_trial_stops_when_it_is_less() -> None:
    objective = {"type": "maximize", "objectiveMetricName": "accuracy"}
    (rule,) = median_stop.rules([0.5, 0.6], {"min_trials_required": "2", "start_step": "7"}, objective, strict=False)
    assert rule == {"name": "accuracy", "value": "0.55", "comparison": "less", "startStep": 7}


@pytest.mark.parametrize(("settings", "count"), [({}, 2), ({"min_trials_required": "6"}, 5)])
def test_there_is_no_rule_before_enough_trials_have_succeeded(settings: dict[str, str], count: int) -> None:
    assert median_stop.rules([0.1] * count, settings, MINIMIZE, strict=False) == []
    assert median_stop.rules([0.1] * (count + 1), settings, MINIMIZE, strict=False)


@pytest.mark.parametrize("strict", [False, True])
def test_only_the_first_reports_count(strict: bool) -> None:
    reports = ["4", "2", "3", "3", "100"]
    assert median_stop.early_mean(reports, {}, strict=strict) == 3.0
    assert median_stop.early_mean(reports, {"start_step": "2"}, strict=strict) == 3.0
    assert median_stop.early_mean(["1"], {}, strict=strict) == 1.0
    assert median_stop.early_mean([], {}, strict=strict) is None


@pytest.mark.parametrize("strict", [False, True])
def test_no_more_reports_are_read_than_are_needed(strict: bool) -> None:
    reports = iter(["1", "2", "3"])
    assert median_stop.early_mean(reports, {"start_step": "2"}, strict=strict) == 1.5
    assert list(reports) == ["3"]


def test_reports_that_are_no_numbers_are_passed_over() -> None:
    assert median_stop.early_mean(["", "nan", "1", "inf", "2", "3"], {"start_step": "2"}, strict=False) == 1.5
    with pytest.raises(ValueError, match="could not convert"):
        median_stop.early_mean(["", "1"], {}, strict=True)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"min_trials_required": "0"}, "min_trials_required must be greater than zero (>0)"),
        ({"start_step": "0"}, "start_step must be greater or equal than one (>=1)"),
        ({"start_step": "x"}, "failed to validate start_step(x): invalid literal"),
        ({"patience": "3"}, "unknown setting patience for algorithm medianstop"),
    ],
)
def test_bad_settings_are_refused_in_katibs_words(settings: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        median_stop.validate(settings)
    assert str(caught.value).startswith(text)


def test_its_own_settings_are_accepted() -> None:
    median_stop.validate({"min_trials_required": "1", "start_step": "1"})
