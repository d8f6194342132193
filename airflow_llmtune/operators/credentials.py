"""Airflow connections whose credentials the pods of a task get, and with which the task itself reads versions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_llmtune.operators.base import KubeflowOperator
from airflow_llmtune.resources import credentials

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["CredentialsOperator"]

JSON = dict[str, Any]
# What a template makes of a connection's name that is not there.
_NONE = (None, "", "None")


class CredentialsOperator(KubeflowOperator):
    """
    Gives pods the credentials of Airflow connections, by a Kubernetes Secret that goes with the task's object.

    :param hub_conn_id: Airflow connection to the Hugging Face Hub: its password is the token, and its host the address
        if it is another. Pods get ``HF_TOKEN`` and ``HF_ENDPOINT``.
    :param aws_conn_id: Airflow connection to S3: login and password are the access key; its extra may have
        ``aws_session_token``, ``region_name`` and ``endpoint_url``. Pods get ``AWS_ACCESS_KEY_ID``,
        ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_DEFAULT_REGION`` and ``AWS_ENDPOINT_URL``.
    """

    template_fields: Sequence[str] = (*KubeflowOperator.template_fields, "hub_conn_id", "aws_conn_id")

    def __init__(self, *, hub_conn_id: str | None = None, aws_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hub_conn_id = hub_conn_id
        self.aws_conn_id = aws_conn_id
        self._credentials: credentials.Credentials | None = None

    def read_credentials(self, problems: Problems) -> credentials.Credentials:
        """
        Ask Airflow for the connections, once.

        :param problems: takes every mistake.
        """
        if self._credentials is None:
            before = len(problems.errors)
            hub = _read(credentials.HUB, self.hub_conn_id, problems)
            found = hub | _read(credentials.AWS, self.aws_conn_id, problems)
            if len(problems.errors) > before:
                return found
            self._credentials = found
        return self._credentials

    def companions(self, obj: JSON) -> list[JSON]:
        assert self._credentials is not None, "the manifest was made of them"
        made = [self._credentials.to_secret(obj)] if self._credentials.secrets else []
        return [*super().companions(obj), *made]


def _read(argument: str, conn_id: Any, problems: Problems) -> credentials.Credentials:
    if conn_id in _NONE:
        return credentials.Credentials()
    if not isinstance(conn_id, str):
        problems.add(argument, conn_id, "is not the id of a connection", "give it as text")
        return credentials.Credentials()
    # Imported here: at DAG-parse time nobody reads connections.
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    connection = None
    with suppress(AirflowNotFoundException):  # Airflow says so as well of one that it cannot parse.
        connection = BaseHook.get_connection(conn_id)
    return credentials.read_connection(argument, conn_id, connection, problems)
