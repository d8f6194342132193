"""Good arguments of the operators, for property tests: each combination gives an object that the server takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from airflow_llmtune.resources import search_space as search
from experiments import experiments

JSON = dict[str, Any]
Arguments = dict[str, Any]

MODELS = ("org/name", "hf://org/name@v1.0", "s3://bucket/prefix", "pvc://claim/path", "/models/tiny", "file:///m")
DATASETS = ("org/data", "hf://org/data@v1", "s3://bucket/data/", "pvc://claim/data", "pvc://other", "/data")
CHECKPOINTS = ("s3://bucket/kept", "pvc://claim/kept", "pvc://kept", "/kept", "/kept/$USER")
OUTPUTS = ("s3://bucket/out", "pvc://claim/out", "/models/out", "/tmp/a b", "/out/$USER")

# Each apart from all of the above.
CACHES = (
    *(None, "", "pvc://claim/cache", "pvc://shared", "node:///var/cache/llm", "s3://bucket/cache"),
    *({"uri": "pvc://claim/cache", "max_size": "100Gi"}, {"uri": "node:///cache", "max_size": 2**40}),
    *({"size": "50Gi"}, {"size": 2**30, "storage_class_name": "fast", "access_modes": "ReadWriteOnce"}),
    {"size": "1e12", "max_size": "0.5Ti", "access_modes": ["ReadWriteMany", "ReadWriteOnce"]},
)

_one_of = st.sampled_from
_timeouts = _one_of((None, timedelta(hours=6), timedelta(days=365)))
_secret = {"secretKeyRef": {"name": "hub", "key": "token"}}
_env = st.fixed_dictionaries(
    {},
    optional={
        "HF_HOME": _one_of(("/cache", "", "a b", "$HOME", "x\ny")),
        "HF_TOKEN": st.just(_secret),
        "THREADS": _one_of((1, 1.5, True, "2")),
        "POD": st.just({"fieldRef": {"fieldPath": "metadata.name"}}),
        "LEVEL": st.just({"configMapKeyRef": {"name": "levels", "key": "log", "optional": True}}),
    },
)
_resources = st.fixed_dictionaries(
    {},
    optional={
        "cpu": _one_of((1, 0.5, "500m", "2", 4)),
        "memory": _one_of(("1Gi", "512Mi", 2**30, "1e9", "16Gi")),
        "gpu": _one_of((1, "2", 8)),
        "ephemeral-storage": _one_of(("1Gi", "5G")),
        "amd.com/gpu": st.just(1),
    },
)
# What another image's trainer takes nobody knows; of ours an evaluation takes less.
_any_trainer_args = st.fixed_dictionaries(
    {},
    optional={
        "max_steps": _one_of((100, "100", None)),
        "dtype": _one_of(("bfloat16", "auto")),
        "target_modules": _one_of((["q_proj", "v_proj"], "all-linear")),
        "packing": st.booleans(),
        "weight_decay": _one_of((0.0, 1e-5, "0.01")),
        "run_name": _one_of(("a b", "it's", "5 $ a day", "日本語", "")),
    },
)
_OF_EVALUATION = {
    "dtype": _one_of(("bfloat16", "float32")),
    "max_length": _one_of((64, "64", 64.0)),
    "dataset_test_split": _one_of(("test", "train[90%:]", None)),
}
_evaluation_args = st.fixed_dictionaries({}, optional=_OF_EVALUATION)
_trainer_args = st.fixed_dictionaries(
    {},
    optional={
        **_OF_EVALUATION,
        "max_steps": _one_of((100, "100", None)),
        "lora_target_modules": _one_of((["q_proj", "v_proj"], "all-linear")),
        "packing": st.booleans(),
        "weight_decay": _one_of((0.0, 1e-5, "0.01")),
        "sample_prompt": _one_of(("a b", "it's", "5 $ a day", "日本語")),
    },
)
_waiting = {
    "poll_interval": _one_of((30.0, 1)),
    "api_retry_timeout": _one_of((0, 5.0)),
    "timeout": _timeouts,
    "namespace": _one_of((None, "default", "")),
}
_owning = {
    **_waiting,
    "on_stale": _one_of(("restart", "adopt", "fail")),
    "on_clear": _one_of(("restart", "adopt")),
    "on_kill_action": _one_of(("delete", "keep")),
    "on_finish_action": _one_of(("keep", "delete", "delete_succeeded")),
    "stall_timeout": _timeouts,
    "startup_timeout": _timeouts,
    "on_stall": _one_of(("fail", "warn")),
}
_searching = {
    **_owning,
    "on_timeout": _one_of(("fail", "use_best")),
    "on_failure": _one_of(("fail", "use_best")),
    "min_succeeded_trials": _one_of((1, "2")),
    "stop_leftovers": st.booleans(),
}

# --- the job of a trainer -----------------------------------------------------------------------------------

_pod_template = st.fixed_dictionaries(
    {},
    optional={
        "metadata": _one_of(({"labels": {"team": "nlp"}}, {"annotations": {"a.b/c": "1"}}, {})),
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "nodeSelector": st.just({"pool": "gpu"}),
                "tolerations": st.just([{"key": "gpu", "operator": "Exists"}]),
                "volumes": st.just([{"name": "cache", "emptyDir": {}}]),
            },
        ),
    },
)
_counts = {"num_procs_per_node": _one_of((1, "2", 8)), "service_account_name": _one_of((None, "trainer"))}
_job = {**_counts, "pod_template": _pod_template}
_ttl = {"ttl_seconds_after_finished": _one_of((None, 3600, "86400"))}
_deadline = {"active_deadline_seconds": _one_of((1, "3600", 10**6))}
_job_options = st.one_of(
    st.none(),
    st.fixed_dictionaries({}, optional={**_job, **_ttl, **_deadline, "job_kind": st.just("Job")}),
    st.fixed_dictionaries(
        {"num_nodes": _one_of((2, "4"))}, optional={**_job, **_ttl, **_deadline, "job_kind": st.just("PyTorchJob")}
    ),
    st.fixed_dictionaries(
        {"job_kind": st.just("TrainJob")},
        optional={
            **_job,
            **_deadline,
            "num_nodes": _one_of((1, 2)),
            "runtime_ref": _one_of(("torch-distributed", {"name": "torch-distributed"})),
            "kubeflow_trainer_version": _one_of(("2.2", "v2.3.1")),
        },
    ),
)
_trainer = {
    "model": _one_of(MODELS),
    "dataset": _one_of(DATASETS),
}
_other_trainer = st.fixed_dictionaries(
    {"image": _one_of(("registry.example.com/trainer:1", "trainer"))},
    optional={"trainer_args": st.none() | _any_trainer_args},
)
_our_trainer = st.fixed_dictionaries(
    {},
    optional={
        "image": _one_of(("airflow-llmtune/trainer", "registry.example.com/team/airflow-llmtune/trainer:1")),
        "trainer_args": st.none() | _trainer_args,
    },
)
_trainer_optional = {
    "env": st.none() | _env,
    "job_options": _job_options,
    "cache": _one_of(CACHES),
    "skip_if_unchanged": st.just(False),
    "version_options": _one_of((None, {}, {"dataset_version": "2026-11-22"})),
    **_owning,
}


def _one_process_per_gpu(given: Arguments) -> Arguments:
    """Each process of our trainer takes one GPU; without a number there is one for each."""
    resources = given.get("resources_per_trial") or given.get("resources_per_node") or {}
    gpus, options = sum(int(resources.get(name, 0)) for name in ("gpu", "amd.com/gpu")), given.get("job_options") or {}
    if not gpus or "num_procs_per_node" not in options:
        return given
    return {**given, "job_options": {**options, "num_procs_per_node": gpus}}


# --- tuning -------------------------------------------------------------------------------------------------

_doubles = _one_of(
    (
        search.double(0.1, 0.5, step=0.1),
        search.double("0", "1", step="0.25", distribution="uniform"),
        search.double(-1, 1, step=0.5, distribution="normal"),
        {**search.log_uniform(1e-5, 1e-2), "step": 1e-3},
    )
)
_integers = _one_of(
    (search.integer(1, 8, step=1), search.integer("2", 64.0, step=2), search.integer(1, 2**40, step=2**10))
)
_lists = _one_of(
    (
        search.categorical(["a", "b c", "it's", True, 3, 0.5]),
        search.categorical(["linear"]),
        search.discrete([8, 16, "32", 0.5]),
    )
)
_any_spaces = st.fixed_dictionaries(
    {"learning_rate": _doubles, "lora_alpha": _integers},
    optional={"lora_dropout": _doubles, "lora_r": _integers, "lr_scheduler_type": _lists, "warmup_ratio": _lists},
)
_spaces = st.fixed_dictionaries(
    {
        "learning_rate": _one_of((search.double(0.1, 0.5, step=0.1), {**search.log_uniform(1e-5, 1e-2), "step": 1e-3})),
        "lora_alpha": _integers,
    },
    optional={
        "lora_dropout": _one_of((search.double("0", "0.5", step="0.25"), search.discrete([0, 0.05, "0.1"]))),
        "lora_r": _one_of((search.integer(1, 8, step=1), search.double(8, 64, step=8), search.discrete([8, 16, "32"]))),
        "lr_scheduler_type": _one_of((search.categorical(["linear", "cosine"]), search.categorical(["constant"]))),
        "use_rslora": st.just(search.categorical([True, False])),
    },
)
_ALGORITHMS: tuple[tuple[str, JSON | None], ...] = (
    *(("random", None), ("random", {"random_state": 7}), ("grid", None), ("sobol", None), ("sobol", {})),
    *(("tpe", {"gamma": 0.25, "n_EI_candidates": "4"}), ("multivariate-tpe", {"n_startup_trials": 2})),
    *(("cmaes", {"sigma": 0.3, "restart_strategy": "ipop"}), ("bayesianoptimization", {"acq_func": "EI"})),
    ("hyperband", {"r_l": 4, "eta": 2, "resource_name": "lora_alpha"}),
    ("pbt", {"suggestion_trial_dir": "/opt/katib/data", "n_population": 5, "truncation_threshold": 0.4}),
)


@st.composite
def _searches(draw: st.DrawFn, spaces: st.SearchStrategy[Any]) -> Arguments:
    name, settings = draw(_one_of(_ALGORITHMS))
    # Hyperband starts four at once; the smallest grid has more.
    parallel = draw(_one_of((4, "4", 5)))
    return {
        "parameters": dict(draw(spaces)),
        "algorithm_name": name,
        "algorithm_settings": settings,
        "parallel_trial_count": parallel,
        "max_trial_count": draw(_one_of((5, "6", 7.0))),
    }


_tuning = st.fixed_dictionaries(
    _trainer,
    optional={
        **_trainer_optional,
        **_searching,
        "objective_goal": _one_of((None, 0.001, "1e-3", -5, 0)),
        "max_failed_trial_count": _one_of((None, 0, "3", 5)),
        "resources_per_trial": st.none() | _resources,
        "output_uri": st.none() | _one_of(OUTPUTS),
        "warm_start": _one_of((None, {"learning_rate": 0.3}, {"learning_rate": "0.2", "lora_r": None, "x": []})),
        "warm_start_scale": _one_of((0.25, 1, "0.5")),
    },
)


def _together(*parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(*parts).map(lambda found: {name: value for part in found for name, value in part.items()})


_early_stopping = st.fixed_dictionaries(
    {"algorithm_name": st.just("medianstop")},
    optional={"min_trials_required": _one_of((1, "3")), "start_step": _one_of((1, 4.0))},
)
_stopping = st.fixed_dictionaries({"early_stopping": st.none() | _early_stopping})
_our_stopping = st.fixed_dictionaries(
    {"early_stopping": _early_stopping, "trainer_args": st.just({"eval_steps": 5, "metrics_push": False})}
)
_pushing = st.just({"trainer_args": {"metrics_push": True, "lora_rank_pattern": {"q_proj": 8}}})
_keeping = st.just({}) | st.fixed_dictionaries(
    {"checkpoint_steps": _one_of((1, "50")), "checkpoint_uri": _one_of(CHECKPOINTS)}
)
# Which way is better is known of ours only.
_our_objective = _one_of(
    (
        {},
        {"objective_metric_name": "eval_loss", "objective_type": "minimize"},
        {"objective_metric_name": "eval_token_accuracy", "objective_type": "maximize"},
        {"additional_metric_names": ["train_loss"]},
        {"additional_metric_names": ("train_loss", "eval_perplexity")},
    )
)
_any_objective = st.fixed_dictionaries(
    {},
    optional={
        "objective_metric_name": _one_of(("eval_loss", "accuracy-1", "a|b")),
        "objective_type": _one_of(("minimize", "maximize")),
        "additional_metric_names": _one_of(((), ["train_loss"], ("train_loss", "perplexity"))),
    },
)
_ours = _together(_our_trainer | _our_stopping | _pushing, _our_objective, _searches(_spaces))
_others = _together(_other_trainer, _stopping, _any_objective, _searches(_any_spaces))


def _of_some_length(given: dict[str, Any]) -> dict[str, Any]:
    """Checkpoints are kept for trials of other lengths, so there is one."""
    if "checkpoint_uri" not in given or "max_steps" in given["parameters"]:
        return given
    fixed = given.get("trainer_args") or {}
    return {**given, "trainer_args": {**fixed, "max_steps": fixed.get("max_steps") or 100}}


def _of_one_node(given: dict[str, Any]) -> dict[str, Any]:
    """Katib would end the first node of a trial only; Kubeflow's own runtime of TrainJobs starts the others again."""
    options = given.get("job_options") or {}
    if given.get("early_stopping") is None or options.get("job_kind") != "TrainJob":
        return given
    return {**given, "job_options": {**options, "num_nodes": 1}}


_sound = _together(_tuning, _keeping, _ours | _others)
tunings = _sound.map(_of_some_length).map(_one_process_per_gpu).map(_of_one_node)

# --- trainings ----------------------------------------------------------------------------------------------

_training = st.fixed_dictionaries(
    {**_trainer, "output_uri": _one_of(OUTPUTS)},
    optional={
        **_trainer_optional,
        "resources_per_node": st.none() | _resources,
        "checkpoint_steps": _one_of((None, 50, "10")),
    },
)
_found = st.fixed_dictionaries({}, optional={"hyperparameters": _one_of(({}, {"learning_rate": 3e-4, "lora_r": 8}))})
_any_found = _found | st.just({"hyperparameters": {"lr_scheduler_type": "a b$"}})
fine_tunings = (_together(_training, _our_trainer, _found) | _together(_training, _other_trainer, _any_found)).map(
    _one_process_per_gpu
)
_evaluation = st.fixed_dictionaries(
    _trainer,
    optional={
        **_trainer_optional,
        "resources_per_node": st.none() | _resources,
        "adapter": _one_of((None, "", "org/adapter", "s3://bucket/out", "pvc://claim/out")),
    },
)
_our_evaluation = st.fixed_dictionaries({}, optional={"trainer_args": st.none() | _evaluation_args})
evaluations = _together(_evaluation, _our_evaluation | _other_trainer).map(_one_process_per_gpu)

# --- manifests ----------------------------------------------------------------------------------------------


def _pod_spec(container: str) -> JSON:
    env = [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": _secret}]
    main = {"name": container, "image": "busybox", "command": ["sh", "-c", "true"], "env": env}
    return {"containers": [main], "volumes": [{"name": "cache", "emptyDir": {}}]}


def any_train_job(**spec: Any) -> JSON:
    trainer = {"image": "busybox", "command": ["true"], "env": [{"name": "A", "value": "1"}], "numNodes": 2}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"labels": {"team": "nlp"}, "annotations": {"a.b/c": "x"}},
        "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": {**trainer, "numProcPerNode": 2}, **spec},
    }


def _patch(pod: JSON) -> JSON:
    jobs = [{"name": "node", "template": {"spec": {"template": {"spec": pod}}}}]
    runtime = {"template": {"spec": {"replicatedJobs": jobs}}}
    return {"runtimePatches": [{"manager": "example.com/my-dag", "trainingRuntimeSpec": runtime}]}


_tolerant = {"tolerations": [{"key": "gpu", "operator": "Exists"}], "nodeSelector": {"pool": "gpu"}}
train_jobs = _one_of(
    (
        any_train_job(),
        any_train_job(**_patch(_tolerant), activeDeadlineSeconds=60),
        any_train_job(**_patch({"volumes": [{"name": "v", "emptyDir": {}}]}), suspend=False),
        any_train_job(managedBy="trainer.kubeflow.org/trainjob-controller"),
    )
)


def any_pytorch_job(workers: int = 0, **spec: Any) -> JSON:
    master = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": _pod_spec("pytorch")}}
    roles = {"Master": master} | ({"Worker": {**master, "replicas": workers}} if workers else {})
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"labels": {"team": "nlp"}, "name": "mine"},
        "spec": {"pytorchReplicaSpecs": roles, "runPolicy": {"cleanPodPolicy": "None", "backoffLimit": 0}, **spec},
    }


pytorch_jobs = _one_of(
    (
        any_pytorch_job(),
        any_pytorch_job(nprocPerNode="2"),
        any_pytorch_job(3, nprocPerNode="auto"),
        any_pytorch_job(1, elasticPolicy={"minReplicas": 1, "maxReplicas": 3}),
    )
)


@st.composite
def inference_services(draw: st.DrawFn) -> JSON:
    model = {"modelFormat": {"name": "huggingface"}, "args": ["--model_name=a"], "storageUri": "hf://a/b"}
    limits = {"cpu": "1", "memory": "1Gi"}
    predictor = {
        "model": {**model, "env": [{"name": "A", "value": "1"}], "resources": {"limits": limits, "requests": limits}},
        "minReplicas": 1,
        "maxReplicas": draw(st.integers(1, 3)),
        "tolerations": _tolerant["tolerations"],
    }
    annotations = {"serving.kserve.io/deploymentMode": "Standard"}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "chat", "labels": {"team": "nlp"}, "annotations": annotations},
        "spec": {"predictor": predictor},
    }


any_experiments = experiments(only_inline_jobs=True)

# --- serving ------------------------------------------------------------------------------------------------

_deployment = {
    **_waiting,
    "smoke_test": _one_of((False, True, {"prompt": "Hi", "max_tokens": "4"}, {"expect": "a.*b"}, None)),
    "on_failure": _one_of(("rollback", "keep")),
    "on_kill_action": _one_of(("rollback", "keep")),
    "start_timeout": _one_of((timedelta(minutes=1), timedelta(days=2))),
}
deployments = st.fixed_dictionaries(
    {"name": _one_of(("chat", "a", "c" * 43)), "model": _one_of(MODELS), "adapter": _one_of((None, *OUTPUTS[:3]))},
    optional={
        **_deployment,
        "served_model_name": _one_of((None, "my/model:1", "M.v-1")),
        "runtime": _one_of((None, "huggingface", "vllm")),
        "deployment_mode": _one_of((None, "Standard")),
        "model_args": _one_of((None, {"max-model-len": 4096, "trust-remote-code": True, "a": ["b", "c"], "x": None})),
        "env": st.none() | _env,
        "resources_per_replica": st.none() | _resources,
        "min_replicas": _one_of((None, 1, "1")),
        "max_replicas": _one_of((None, 3, "2")),
        "service_account_name": _one_of((None, "models")),
        "labels": _one_of((None, {}, {"team": "nlp"})),
        "overrides": _one_of((None, {}, {"predictor": {"tolerations": _tolerant["tolerations"]}})),
    },
)
raw_deployments = st.fixed_dictionaries({}, optional={**_deployment, "smoke_test": st.just(False)})
searches = st.fixed_dictionaries({}, optional=_searching)
trainings = st.fixed_dictionaries({}, optional=_owning)
