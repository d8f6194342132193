"""What becomes of a task's arguments: the real operator up to the created object, which the server only rehearses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_llmtune.exceptions import DeploymentFailedError, FieldError, InvalidSpecError, KubernetesApiError
from airflow_llmtune.hooks.client import KubeflowClient
from task_run import Run

_UNPRINTABLE = r"[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]"


class Rehearsal(KubeflowClient):
    """Changes nothing: each write is a dry run, which the server checks in full."""

    async def create(self, *request: Any, **options: Any) -> dict[str, Any]:
        return await super().create(*request, **{**options, "dry_run": True})

    async def apply(self, *request: Any, **options: Any) -> dict[str, Any]:
        return await super().apply(*request, **{**options, "dry_run": True})


@dataclass(frozen=True)
class Verdict:
    """
    :param mistakes: what the operator itself found; None when it found nothing.
    :param refusal: what the server said; None when it took the object, or was not asked.
    """

    mistakes: tuple[FieldError, ...] | None = None
    refusal: str | None = None

    @property
    def accepted(self) -> bool:
        return self.mistakes is None and self.refusal is None

    @property
    def arguments(self) -> list[str]:
        return sorted(mistake.argument for mistake in self.mistakes or ())


def made(kind: type[Any], kubeconfig: str, arguments: dict[str, Any]) -> Any:
    return kind(task_id="task", kubernetes_conn_id=None, config_file=kubeconfig, **arguments)


def judge(operator: Any) -> Verdict:
    """Any other exception is a bug of ours, and comes out as it is."""
    try:
        operator.execute(Run().new_try())
    except (TaskDeferred, DeploymentFailedError):
        # A deployment is looked at before the task waits, and what was only rehearsed is not there.
        return Verdict()
    except AirflowFailException as error:
        cause = error.__cause__
        if isinstance(cause, InvalidSpecError):
            _check_text(str(error), cause.errors)
            return Verdict(mistakes=cause.errors)
        if isinstance(cause, KubernetesApiError):
            return Verdict(refusal=str(error))
        raise
    except KubernetesApiError as error:
        # Somebody may make the namespace yet, so Airflow tries again.
        if error.code != 404:
            raise
        return Verdict(refusal=str(error))
    raise AssertionError("the task ended without waiting")


def _check_text(text: str, mistakes: tuple[FieldError, ...]) -> None:
    """It names each mistake in a line of its own that a terminal and a database can take."""
    assert mistakes
    assert len(text.splitlines()) == 1 + len(mistakes), text
    for mistake in mistakes:
        assert str(mistake) in text
        assert all(mistake), mistake
        assert len(str(mistake)) < 1500, mistake
        assert not re.search(_UNPRINTABLE, str(mistake)), mistake
