"""Which failures of a tuning are worth another try; ``docs/reference/outcomes.md`` shows what follows."""

from datetime import timedelta

from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

from airflow_llmtune.exceptions import (
    KubernetesApiError,
    OutcomeError,
    OwnershipError,
    WaitTimeoutError,
)

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        # Somebody has to look: the same trials would fail again, and cost as much again.
        RetryRule([OutcomeError, OwnershipError, WaitTimeoutError], RetryAction.FAIL),
        # An upgrade of the cluster takes a while, and the Experiment goes on without us.
        RetryRule(KubernetesApiError, RetryAction.RETRY, retry_delay=timedelta(minutes=5)),
    ]
)
