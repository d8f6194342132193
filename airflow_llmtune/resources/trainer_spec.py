"""What runs the trainer, checked: sources, settings, resources, environment; the job has a file of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from airflow_llmtune.resources import train_job
from airflow_llmtune.resources.cache import CACHE_FLAG, CACHE_SIZE_FLAG, Cache
from airflow_llmtune.resources.checkpoints import (
    CHECKPOINT_ARGUMENTS,
    RESERVED_CHECKPOINT_FLAGS,
    SAVE_FLAG,
    Checkpoints,
)
from airflow_llmtune.resources.credentials import Credentials, argument_of
from airflow_llmtune.resources.defaults import TRAINER_IMAGE
from airflow_llmtune.resources.environment import read_env, refuse_secret
from airflow_llmtune.resources.job_options import DEFAULTS, PRIMARY_CONTAINERS, read_job
from airflow_llmtune.resources.meta import is_plain, text_of
from airflow_llmtune.resources.pod_override import limits_of
from airflow_llmtune.resources.pod_resources import count_gpus, quantity, read_resources
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.redaction import carries_secret, is_secret
from airflow_llmtune.resources.runtime_patch import Version
from airflow_llmtune.resources.shape import check_plain
from airflow_llmtune.resources.source import Source
from airflow_llmtune.resources.trainer_flags import (
    DEFAULT_TASK,
    PUSH_FLAG,
    TASK_FLAG,
    Run,
    check_flags,
    is_of_trainer,
    is_true,
    takes_json,
)
from airflow_llmtune.resources.trainer_rules import Given, check_together

__all__ = ["OUTPUT_FLAG", "RESERVED_FLAGS", "TrainerSpec", "read_flags"]

OUTPUT_FLAG = "output_dir"
_SHARDS_FLAG = "fsdp"
# Flags that follow from arguments of their own.
RESERVED_FLAGS = {
    "model_name_or_path": "model",
    "model_revision": "model",
    "dataset_name": "dataset",
    OUTPUT_FLAG: "output_uri",
    CACHE_FLAG: "cache",
    CACHE_SIZE_FLAG: "cache={'uri': …, 'max_size': …}",
    "adapter": "EvaluateLLMOperator(adapter=…)",
    **RESERVED_CHECKPOINT_FLAGS,
}
# As the operators that have these call them.
_ARGUMENTS = {**RESERVED_FLAGS, CACHE_SIZE_FLAG: "cache.max_size", **CHECKPOINT_ARGUMENTS}

_FLAG_NAME = r"[a-z][a-z0-9_]*"
_IMAGE = r"[!-~]+"


class TrainerSpec(NamedTuple):
    """Everything of a trainer run but its hyperparameters."""

    image: str
    job_kind: str
    flags: Mapping[str, str]
    output: Source | None
    cache: Cache | None
    claims: Mapping[str, bool]  # persistent volume claim: may the trainer write to it?
    resources: Mapping[str, str]
    threads: int | None
    env: Mapping[str, str | Mapping[str, Any]]
    num_nodes: int
    num_procs_per_node: int
    service_account_name: str | None
    active_deadline_seconds: int
    ttl_seconds_after_finished: int | None
    pod_template: Mapping[str, Any]
    runtime_ref: Mapping[str, str]
    kubeflow_trainer_version: Version
    evaluates: bool = False  # or trains

    @classmethod
    def from_args(
        cls,
        *,
        model: Any,
        dataset: Any,
        image: Any = TRAINER_IMAGE,
        trainer_args: Any = None,
        resources: Any = None,
        env: Any = None,
        output_uri: Any = None,
        cache: Any = None,
        checkpoint_steps: Any = None,
        checkpoint_uri: Any = None,
        shares_checkpoints: bool = False,
        evaluates: bool = False,
        adapter: Any = None,
        resources_argument: str = "resources",
        problems: Problems,
        **job_options: Any,
    ) -> TrainerSpec:
        """Note every mistake in ``problems``; the spec returned is good only when there is none."""
        options = {**DEFAULTS, **read_job("", job_options, problems)}
        base = Source.read("model", model, problems)
        data = Source.read("dataset", dataset, problems)
        output = None if output_uri is None else Source.read("output_uri", output_uri, problems, hub=False)
        # An empty text is what a template makes of an adapter that is not there.
        judged = Source.read("adapter", adapter, problems) if adapter else None
        checkpoints = Checkpoints.read(checkpoint_steps, checkpoint_uri, problems, shared=shares_checkpoints)
        shared = Cache.read(cache, problems)
        if shared is not None:
            folders = {"model": base, "dataset": data, "adapter": judged, "output_uri": output}
            folders["checkpoint_uri"] = checkpoints.place
            shared.check_apart({name: folder and folder.flag for name, folder in folders.items()}, problems)
        if not isinstance(image, str) or not re.fullmatch(_IMAGE, image):
            problems.add("image", image, "is not an image name", f"give one, or leave it out for {TRAINER_IMAGE}")
        limits = read_resources(resources_argument, resources, problems)
        asked = {**limits, **limits_of(options["pod_template"], PRIMARY_CONTAINERS[options["job_kind"]])}
        options["num_procs_per_node"] = options["num_procs_per_node"] or max(1, count_gpus(asked))
        cpus = quantity(limits.get("cpu", ""))
        variables = read_env(env, problems)
        if options["job_kind"] == train_job.KIND.kind:
            train_job.check_reserved("env", variables, problems)
        flags = read_flags("trainer_args", trainer_args, problems, image=image)
        trainer = cls(
            image=str(image),
            flags=_source_flags(base, data, judged) | checkpoints.flags | flags,
            output=output,
            cache=shared,
            claims=_claims((output, shared, checkpoints.place), (base, data, judged)),
            resources=limits,
            threads=None if cpus is None else max(1, int(cpus / options["num_procs_per_node"])),
            env=variables,
            evaluates=evaluates,
            **options,
        )
        trainer.check_flags("trainer_args", flags, problems)
        trainer.check_processes(count_gpus(asked), problems)
        return trainer

    @property
    def run(self) -> Run:
        """What is known of a run of our own trainer."""
        return Run(self.flags.get(TASK_FLAG, DEFAULT_TASK), self.evaluates, _ARGUMENTS)

    def check_flags(self, argument: str, flags: Mapping[str, str], problems: Problems) -> None:
        """Whether our own trainer takes them; another image's may take any."""
        if is_of_trainer(self.image):
            check_flags(argument, flags, self.run, problems)

    def check_together(self, chosen: Mapping[str, Given], problems: Problems) -> None:
        """Whether our own trainer takes all that it is given beside each other; ``chosen`` by a search."""
        if is_of_trainer(self.image):
            output = {} if self.output is None else {OUTPUT_FLAG: self.output.flag}
            told = {**self.flags, **output, **({} if self.cache is None else self.cache.flags)}
            given = {name: Given(_ARGUMENTS.get(name, f"trainer_args.{name}"), (text,)) for name, text in told.items()}
            check_together({**given, **chosen}, self.run, problems)

    def check_processes(self, gpus: int, problems: Problems) -> None:
        """A process of our own trainer takes one GPU: further ones would idle, and one without would fail."""
        if not is_of_trainer(self.image):
            return
        if gpus not in (0, self.num_procs_per_node):
            rule = f"is not one for each GPU of a pod, which has {gpus}"
            fix = "leave it out: it follows from the GPUs; or ask for as many of them"
            problems.add("job_options.num_procs_per_node", self.num_procs_per_node, rule, fix)
        if is_true(self.flags.get(_SHARDS_FLAG, "")) and self.num_nodes * self.num_procs_per_node == 1:
            rule = "shards the model over several processes, and there is one"
            problems.add(f"trainer_args.{_SHARDS_FLAG}", True, rule, "give more GPUs or nodes, or leave it out")

    @property
    def pushes_metrics(self) -> bool:
        """Itself, to Katib's DB manager; nobody has to read its output."""
        return is_true(self.flags.get(PUSH_FLAG, ""))

    @property
    def saves_checkpoints(self) -> bool:
        return SAVE_FLAG in self.flags

    @property
    def primary_container(self) -> str:
        return PRIMARY_CONTAINERS[self.job_kind]

    def with_credentials(self, credentials: Credentials, problems: Problems) -> TrainerSpec:
        """A setting of ``env`` goes before the connection's, which may be one of the worker only; a secret does not."""
        references = credentials.references
        for name in sorted(references.keys() & self.env.keys()):
            # Half of a key pair from here, half from there would be worse than neither.
            rule = f"is also given by `{argument_of(name)}`"
            problems.add(f"env.{name}", self.env[name], rule, "leave one of the two out")
        return self._replace(env={**references, **credentials.settings, **self.env})


def _source_flags(model: Source | None, dataset: Source | None, adapter: Source | None) -> dict[str, str]:
    flags = {}
    if model is not None:
        flags["model_name_or_path"] = model.flag
        if model.revision is not None:
            flags["model_revision"] = model.revision
    if dataset is not None:
        flags["dataset_name"] = dataset.address
    if adapter is not None:
        flags["adapter"] = adapter.address
    return flags


def _claims(written: Iterable[Source | Cache | None], read: Iterable[Source | None]) -> dict[str, bool]:
    claims = {place.claim: False for place in read if place is not None and place.claim}
    return claims | {place.claim: True for place in written if place is not None and place.claim}


# --- settings of the trainer --------------------------------------------------------------------------------


def read_flags(
    argument: str, given: Any, problems: Problems, *, image: Any = None, none_is_default: bool = True
) -> dict[str, str]:
    """
    Settings as the texts that the trainer casts again; None leaves a setting to the trainer, or is a mistake.

    :param image: only of our own trainer is known which settings are JSON.
    """
    flags: dict[str, str] = {}
    for name, value in problems.mapping(argument, given).items():
        where = f"{argument}.{name}"
        if not re.fullmatch(_FLAG_NAME, name):
            problems.add(where, name, "is not a setting's name", "use a-z, 0-9 and `_`, starting with a letter")
        elif name in RESERVED_FLAGS:
            problems.add(where, value, "has an argument of its own", f"use `{RESERVED_FLAGS[name]}`")
        elif is_secret(name, value):
            refuse_secret(where, value, problems)
        elif value is None and not none_is_default:
            problems.add(where, value, "has no value", "did the upstream task return it?")
        elif value is not None:
            as_json = isinstance(value, Mapping | list | tuple) and is_of_trainer(image) and takes_json(name)
            text = (_json_text if as_json else _flag_text)(where, value, problems)
            flags |= {} if text is None else {name: text}
    return flags


def _flag_text(where: str, value: Any, problems: Problems) -> str | None:
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not all(map(is_plain, items)):
        problems.add(where, value, "is not a text, finite number, boolean or list of these", "give a plain value")
        return None
    texts = [text_of(item) for item in items]
    if len(texts) > 1 and any("," in text for text in texts):
        problems.add(where, value, "has a comma inside an item of the list", "give items without commas")
    text = ",".join(texts)
    _check_placeholder(where, text, value, problems)
    return text


def _json_text(where: str, value: Any, problems: Problems) -> str | None:
    before = len(problems.errors)
    if not check_plain(where, value, lambda: None, problems) or len(problems.errors) > before:
        return None
    text = json.dumps(value)
    if carries_secret(text):
        refuse_secret(where, value, problems)
    _check_placeholder(where, text, value, problems)
    return text


def _check_placeholder(where: str, text: str, value: Any, problems: Problems) -> None:
    if "${trialParameters" in text:
        problems.add(where, value, "contains what Katib would replace", "search the setting in `parameters`")
