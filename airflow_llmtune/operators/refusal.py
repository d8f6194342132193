"""What no retry can mend: a task says so to Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.exceptions import InvalidSpecError, KubernetesApiError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_llmtune.resources.meta import ResourceKind
    from airflow_llmtune.resources.problems import Problems

__all__ = ["fail_on", "fail_on_bad_input"]

# Answers of the API server to an input that it will refuse again.
BAD_INPUT = frozenset({400, 413, 422})


def fail_on(operator: BaseOperator, problems: Problems) -> None:
    """Fail the task, without a retry, when its arguments have mistakes."""
    try:
        problems.raise_if_any(f"Task {operator.task_id}")
    except InvalidSpecError as error:
        raise AirflowFailException(str(error)) from error


def fail_on_bad_input(kind: ResourceKind, name: str, error: KubernetesApiError) -> None:
    """Fail the task, without a retry, when the error says so; a webhook may refuse with a 403, as RBAC does."""
    if error.code in BAD_INPUT or (error.code == 403 and "denied the request" in str(error)):
        raise AirflowFailException(f"{kind.kind} {name!r} was refused: {error}") from error
