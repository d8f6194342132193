"""Not doing again what was done with the same inputs: the result is taken from the model's asset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_llmtune.exceptions import SourceVersionError
from airflow_llmtune.operators.cache import CachingOperator
from airflow_llmtune.operators.model_asset import ModelState, lineage_of, name_in_inlets, suppress_events
from airflow_llmtune.operators.refusal import fail_on
from airflow_llmtune.resources.fingerprint import read_annotations, to_annotations
from airflow_llmtune.resources.problems import Problems, did_you_mean
from airflow_llmtune.resources.source import Source

if TYPE_CHECKING:
    from airflow.sdk import Asset, Context

    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["SkippingOperator"]

JSON = dict[str, Any]
_VERSIONS = {"model": "model_version", "dataset": "dataset_version"}
# What an unchanged run tells of the model's champion.
_CHAMPION_KEYS = ("parameters", "metrics", "artifact_uri")
# What a template makes of an XCom that is not there.
_NO_VERSION = (None, "", "None")
# Whose result it is; another try of the same task instance is the same.
_INSTANCE = ("dag_id", "run_id", "task_id", "map_index")


class SkippingOperator(CachingOperator):
    """
    Adds ``skip_if_unchanged`` to a run of the trainer.

    The inputs' fingerprint is written on the object before it is created, and with its result into the model's asset
    when it is read. So it is that of the data on which the object was started, however long it runs and whatever is
    restarted meanwhile.

    :param model_asset: the Airflow asset that stands for the model; its state remembers champion and results.
    :param skip_if_unchanged: return the result of an earlier run with the same model revision, data set version,
        settings and trainer, with ``"unchanged": True`` and the ``champion`` as it is now, and create nothing; may be
        a template, such as ``"{{ not params.force }}"``: what is found when it says no is remembered as well.
    :param version_options: versions that the worker cannot read, as only the pods see the source: ``model_version``,
        ``dataset_version``. The others it reads with the credentials of the connections.

    ``cache``: :class:`~airflow_llmtune.operators.cache.CachingOperator`. The connections are those of
    :class:`~airflow_llmtune.operators.credentials.CredentialsOperator`.
    """

    template_fields: Sequence[str] = (*CachingOperator.template_fields, "skip_if_unchanged", "version_options")

    # The kind of result that is looked for.
    kept_as: ClassVar[str]
    model: str
    dataset: str

    def __init__(
        self,
        *,
        model_asset: Asset | None = None,
        skip_if_unchanged: bool | str = False,
        version_options: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_asset = model_asset
        self.skip_if_unchanged = skip_if_unchanged
        # A template that says no for once is no reason to return next time what was found before.
        self._remembers = skip_if_unchanged is not False
        self.version_options = version_options
        if model_asset is not None:
            name_in_inlets(self, model_asset)
        # What the object at hand was made from; empty where nobody asked.
        self._inputs: dict[str, str] = {}

    def fingerprints(self, versions: Mapping[str, str]) -> dict[str, str]:
        """
        Say what the result depends on; the arguments are known to be good.

        :param versions: of ``model`` and ``dataset``.
        :return: by the kinds of result for which it will do.
        """
        raise NotImplementedError

    def asked_for(self, manifest: JSON) -> JSON:  # noqa: ARG002 (a champion that moved meanwhile is no other search)
        own = [name for name in self.template_fields if name not in SkippingOperator.template_fields]
        return {name: getattr(self, name) for name in ("cache", *own)}

    def prepare(self, context: Context) -> None:
        """Find out what is needed only when there is something to do."""

    def read_sources(self) -> dict[str, str | None]:
        return {"model": self.model, "dataset": self.dataset}

    def input_annotations(self) -> dict[str, str]:
        return to_annotations(self._inputs)

    def execute(self, context: Context) -> JSON:
        if self._remembers:
            self._checked_manifest()
            skips = Problems().boolean("skip_if_unchanged", self.skip_if_unchanged)
            assert self.model_asset is not None, "checked with the other arguments"
            self._inputs = self.fingerprints(self._read_versions())
            state = ModelState(context, self.model_asset)
            state.check()
            kept = state.find(self.kept_as, self._inputs[self.kept_as]) if skips else None
            # What this very task instance made before is for its retry to adopt; a clear is to do it again.
            if kept is not None and any(kept["lineage"][key] != lineage_of(context)[key] for key in _INSTANCE):
                return self._return_unchanged(kept, state.champion())
        self.prepare(context)
        return super().execute(context)

    def _return(self, context: Context, result: JSON) -> JSON:
        # What was taken from a search that was cut short is no reason not to search again.
        if self._inputs and self.model_asset is not None and not result.get("partial"):
            state = ModelState(context, self.model_asset)
            for kind, fingerprint in self._inputs.items():
                state.keep(kind, fingerprint, result, lineage_of(context))
        return super()._return(context, result)

    async def read_result(self, client: KubeflowClient, obj: JSON) -> JSON:
        self._inputs = read_annotations(obj)
        return await super().read_result(client, obj)

    def _return_unchanged(self, kept: JSON, current: JSON | None) -> JSON:
        made = kept["lineage"]
        self.log.info(
            "Nothing has changed since run %s of %s (fingerprint %s): its result is returned, nothing is created",
            made["run_id"],
            made["run_after"],
            kept["fingerprint"],
        )
        suppress_events(self)
        # The same, unless the gate or a human turned down what these inputs gave.
        best = None if current is None else {key: current[key] for key in _CHAMPION_KEYS}
        self._result = {**kept["result"], "unchanged": True, "champion": best}
        return self._result

    def _check_waiting(self, problems: Problems) -> None:
        super()._check_waiting(problems)
        if not self._remembers:
            return
        problems.boolean("skip_if_unchanged", self.skip_if_unchanged)
        if self.model_asset is None:
            rule = "needs the asset that remembers earlier results"
            problems.add("skip_if_unchanged", self.skip_if_unchanged, rule, 'give `model_asset=Asset("my-model")`')
        known = _VERSIONS.values()
        for key, value in problems.mapping("version_options", self.version_options).items():
            if key not in known:
                problems.add(f"version_options.{key}", value, "is not known", did_you_mean(key, known))
            elif value in _NO_VERSION:
                # The same text each time, whatever the data is.
                rule = "was given and has no value now"
                problems.add(f"version_options.{key}", value, rule, "check that the upstream task returns it")

    def _read_versions(self) -> dict[str, str]:
        # Imported here: at DAG-parse time nobody reads versions.
        from airflow_llmtune.hooks.source_version import read_version

        options = dict(self.version_options or {})
        versions, problems = {}, Problems()
        credentials = self.read_credentials(problems)
        for argument, option in _VERSIONS.items():
            given = getattr(self, argument)
            source = Source.read(argument, given, problems)
            if option in options:
                versions[argument] = f"given:{options[option]}"
            elif source is not None:
                try:
                    versions[argument] = read_version(argument, source, credentials)
                except SourceVersionError as error:
                    if error.transient:
                        raise
                    rule = f"has no version to compare: {error}"
                    problems.add(argument, given, rule, f"give `version_options={{'{option}': ...}}`")
        fail_on(self, problems)
        return versions
