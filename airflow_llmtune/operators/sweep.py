"""Finds what runs on although nobody waits for it: of a task ended while no triggerer runs, Airflow tells no one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk import BaseOperator

from airflow_llmtune.operators.refusal import fail_on
from airflow_llmtune.operators.site import site_name
from airflow_llmtune.resources.meta import ON_KILL_ANNOTATION, SITE_ANNOTATION, TASK_ANNOTATION, has_our_name, path
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.triggers.connection import ClusterConnection
from airflow_llmtune.triggers.task_state import ENDED_STATES, task_state

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_llmtune.hooks.orphans import Found

__all__ = ["SweepOrphansOperator"]

JSON = dict[str, Any]
KINDS = ("Experiment", "TrainJob", "PyTorchJob", "Job")


class TaskKey(NamedTuple):
    """The task instance that an object was created for, as it stands on the object."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int

    @classmethod
    def read(cls, text: str | None) -> TaskKey | None:
        try:
            return cls(*json.loads(text or ""))
        except (TypeError, ValueError):
            return None


class SweepOrphansOperator(ClusterConnection, BaseOperator):
    """
    Deletes what tasks of this Airflow have left running in a namespace.

    A task that ends by itself, or is ended in Airflow's UI, cleans up after itself. Nobody does when a user ends a
    task while no triggerer runs, when the worker of its last try is killed, or between its deferral and the start of
    its trigger. Such an object is deleted once its task has ended or is no longer known, unless the task has
    ``on_kill_action="keep"``. What has finished stays: it costs nothing, and who wants it gone has
    ``on_finish_action``.

    Only objects that were made by this very Airflow are looked at: run ids are the same wherever a DAG is deployed.
    It is known by the option ``site`` in the section ``llmtune`` of Airflow's configuration, else by ``base_url`` in
    ``api``; one of the two has to be set in the workers. Objects made before it was set are left alone.

    XCom: ``{"namespace", "found", "orphans", "deleted", "kept"}``: how many objects somebody may wait for, the names
    of those nobody waits for, those of them that were deleted, and the names of all others by why they were kept.

    :param namespace: where to look; default: the connection's, else ``default``.
    :param kinds: kinds to look for; one that the cluster does not have is passed over.
    :param min_age: leave younger objects alone.
    :param dry_run: only tell what would be deleted; may be a template.
    :param kubernetes_conn_id: Airflow connection of type ``kubernetes``.
    :param config_file: path of a kubeconfig; goes before the connection.
    :param cluster_context: context of the kubeconfig.
    :param in_cluster: use the service account of the pod in which Airflow runs.
    :param api_retry_timeout: seconds for which an unreachable API server is retried.
    """

    template_fields: Sequence[str] = ("namespace", "only_tells", "kubernetes_conn_id", "config_file", "cluster_context")
    ui_color = "#e4f0e8"

    def __init__(
        self,
        *,
        namespace: str | None = None,
        kinds: Iterable[str] = KINDS,
        min_age: timedelta = timedelta(minutes=15),
        dry_run: bool | str = False,
        kubernetes_conn_id: str | None = "kubernetes_default",
        config_file: str | None = None,
        cluster_context: str | None = None,
        in_cluster: bool | None = None,
        api_retry_timeout: float = 300.0,
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.namespace = namespace
        self.kinds = kinds
        self.min_age = min_age
        self.only_tells = dry_run  # `dry_run` is a method of every operator
        self.kubernetes_conn_id = kubernetes_conn_id
        self.config_file = config_file
        self.cluster_context = cluster_context
        self.in_cluster = in_cluster
        self.api_retry_timeout = api_retry_timeout

    def execute(self, context: Context) -> JSON:  # noqa: ARG002
        site, only_tells = self._check()
        namespace, found = asyncio.run(self._find())
        orphans: list[Found] = []
        kept: dict[str, list[str]] = {}
        for one in found:
            why = self._why_kept(one, site)
            if why is None:
                orphans.append(one)
            else:
                kept.setdefault(why, []).append(str(one))
        deleted = [] if only_tells else asyncio.run(self._delete(orphans))
        self.log.info("%d of %d objects in namespace %s are orphans", len(orphans), len(found), namespace)
        return {
            "namespace": namespace,
            "found": len(found),
            "orphans": [str(one) for one in orphans],
            "deleted": [str(one) for one in deleted],
            "kept": kept,
        }

    def _check(self) -> tuple[str, bool]:
        """Return the name of this Airflow, and whether nothing is to be deleted."""
        problems, site = Problems(), site_name()
        only_tells = problems.boolean("dry_run", self.only_tells)
        problems.namespace("namespace", self.namespace)
        for index, kind in enumerate(self.kinds):
            problems.choice(f"kinds[{index}]", kind, KINDS)
        problems.duration("min_age", self.min_age, "timedelta(minutes=15)")
        if site is None:
            rule = "is not set, and so objects of another Airflow could not be told from those of this one"
            fix = "set AIRFLOW__LLMTUNE__SITE (or [api] base_url) for the workers to what no other Airflow has"
            problems.add("[llmtune] site", site, rule, fix)
        fail_on(self, problems)
        return str(site), bool(only_tells)

    async def _find(self) -> tuple[str, list[Found]]:
        from airflow_llmtune.hooks import orphans

        namespace = self.namespace or await self.hook.default_namespace()
        async with self.hook.connect() as client:
            return namespace, await orphans.find(client, self.kinds, namespace)

    async def _delete(self, found: Iterable[Found]) -> list[Found]:
        from airflow_llmtune.hooks import orphans

        async with self.hook.connect() as client:
            return await orphans.delete(client, found)

    def _why_kept(self, found: Found, site: str) -> str | None:
        """Return why the object is left alone; None for an orphan. Airflow is asked last."""
        annotations = path(found.obj, "metadata", "annotations") or {}
        created = datetime.fromisoformat(found.obj["metadata"]["creationTimestamp"])
        if annotations.get(SITE_ANNOTATION) != site:
            return "it is of another Airflow" if SITE_ANNOTATION in annotations else "it does not tell of which Airflow"
        if found.obj["metadata"].get("deletionTimestamp"):
            return "it is being deleted"
        if found.has_finished:
            return "it has finished"
        if annotations.get(ON_KILL_ANNOTATION) == "keep":
            return "its task has on_kill_action='keep'"
        if datetime.now(UTC) - created < self.min_age:
            return "it is younger than min_age"
        return self._why_awaited(found.obj, annotations.get(TASK_ANNOTATION))

    def _why_awaited(self, obj: JSON, task: str | None) -> str | None:
        key = TaskKey.read(task)
        if key is None:
            return "it does not tell of which task"
        if not has_our_name(obj, *key):
            return "it is somebody's copy"
        state = task_state(key)
        if state not in ENDED_STATES:
            return f"its task is {state}"
        self.log.info("Nobody waits for what task %s made: it is %s", tuple(key), state)
        return None
