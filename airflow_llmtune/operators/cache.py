"""A cache that all pods of a task share: what one of them has downloaded and prepared, the others find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_llmtune.operators.credentials import CredentialsOperator

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems
    from airflow_llmtune.resources.trainer_spec import TrainerSpec

__all__ = ["CachingOperator"]

JSON = dict[str, Any]


class CachingOperator(CredentialsOperator):
    """
    Gives pods of the trainer a cache; a volume that is made for it goes with the task's object.

    :param cache: where model, data set and prepared rows are kept: ``pvc://claim/path`` (a claim that is there),
        ``node:///path`` (a folder of each node), ``s3://bucket/prefix``, or any of these with a bound, as
        ``{"uri": ..., "max_size": "100Gi"}``; or a volume that is made for the task's object and deleted with it:
        ``{"size": "50Gi"}``, with ``storage_class_name``, ``access_modes`` (``["ReadWriteMany"]``) and ``max_size``
        (nine tenths of the size). None: each pod downloads and prepares for itself.
    """

    template_fields: Sequence[str] = (*CredentialsOperator.template_fields, "cache")

    def __init__(self, *, cache: str | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cache = cache

    def companions(self, obj: JSON) -> list[JSON]:
        from airflow_llmtune.resources.cache import claims_of

        return [*super().companions(obj), *claims_of(obj)]

    def cache_annotations(self, trainer: TrainerSpec, pods: int, problems: Problems) -> dict[str, str]:
        """
        Return what the object has to tell of its cache.

        :param trainer: the run.
        :param pods: how many of its pods there are at once.
        :param problems: takes every mistake.
        """
        if trainer.cache is None:
            return {}
        note = trainer.cache.check_shared(pods, problems)
        if note is not None:
            self.log.warning("Cache: %s", note)
        return trainer.cache.annotations
