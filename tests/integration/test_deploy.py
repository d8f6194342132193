"""Models deployed, updated, tried on a share of the requests and rolled back, through KServe's controllers."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.exceptions import (
    DeploymentFailedError,
    ForeignObjectError,
    KubernetesApiError,
    WaitTimeoutError,
)
from airflow_llmtune.operators import deployment as deployment_module
from airflow_llmtune.operators.claim import Claim
from airflow_llmtune.resources import inference_service, llm_inference_service, rollback_record
from airflow_llmtune.resources.inference_service import KIND
from airflow_llmtune.resources.meta import Outcome
from airflow_llmtune.resources.revision import read_revisions
from airflow_llmtune.triggers import base as triggers_base
from airflow_llmtune.triggers.base import API_ERROR
from airflow_llmtune.triggers.kserve import InferenceServiceTrigger
from airflow_llmtune.triggers.rollback import keep_previous
from asset_state import AssetRun, AssetStates
from deployments import ENDPOINT_CONN_ID, Clients, apply_service, deploy, raw_service, shift
from model_image import make_model_image
from task_run import Run
from tasks import make_claim

MODES = pytest.mark.parametrize("mode", ["Standard", "Knative"])


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    image = make_model_image(tmp_path_factory.mktemp("image"))
    with ControlPlane(images={"airflow-llmtune/trainer": image}) as plane:
        yield plane


@pytest.fixture
def token(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> str:
    token = str(yaml.safe_load(Path(kubeconfig).read_text())["users"][0]["user"]["token"])
    connection = json.dumps({"conn_type": "http", "password": token})
    monkeypatch.setenv(f"AIRFLOW_CONN_{ENDPOINT_CONN_ID.upper()}", connection)
    return token


@pytest.fixture
def name() -> str:
    return f"chat-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def clients(plane: ControlPlane, name: str, token: str) -> Clients:
    return Clients(f"{plane.gateway_url}/serving/default/{name}", name, token)


@pytest.fixture
def service(ask: Any, name: str) -> Any:
    """Read the InferenceService as it is."""
    return lambda: ask(lambda client: client.find(KIND, "default", name))


@pytest.fixture
def record(ask: Any, name: str) -> Any:
    """Read what is kept of the version before."""
    found = rollback_record.record_name(KIND, name)
    return lambda: ask(lambda client: client.find(rollback_record.KIND, "default", found))


@MODES
def test_a_model_is_served_and_the_same_again_changes_nothing(
    kubeconfig: str, name: str, token: str, service: Any, record: Any, mode: str
) -> None:
    operator = deploy(kubeconfig, name, deployment_mode=mode)
    first, again = Run(), Run()
    result = first.complete(operator)
    made = service()
    assert result["url"].endswith(f"/serving/default/{name}")
    assert result["smoke_test"]["answer"] == "served from /models/first"
    assert (result["served_model_name"], result["deployment_mode"]) == (name, mode)
    assert again.complete(operator)["revision"] == result["revision"]
    assert (first.deferrals, again.deferrals) == (1, 0)
    assert service()["metadata"]["generation"] == made["metadata"]["generation"]
    assert record() is None


def test_the_event_of_an_outlet_tells_where_the_model_is_served(kubeconfig: str, name: str, token: str) -> None:
    serving = Asset("serving")
    run = AssetRun(AssetStates())
    result = run.complete(deploy(kubeconfig, name, outlets=[serving]))
    extra = run.outlet_events[serving].extra
    assert (extra["url"], extra["revision"]) == (result["url"], result["revision"])


@MODES
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "/models/broken"}, r"(?s)(CrashLoopBackOff|ModelLoadFailed).*no adapter at .*/models/broken"),
        (
            {"overrides": {"predictor": {"model": {"image": "example/missing:1"}}}},
            r"(?s)ImagePullBackOff.*example/missing",
        ),
        ({"runtime": "vllm", "overrides": {"predictor": {"model": {"runtime": "nobody"}}}}, "RuntimeNotRecognized"),
        ({"model": "/models/hungry", "resources_per_replica": {"memory": "128Mi"}}, "OOMKilled"),
        ({"model": "/models/mute", "smoke_test": {"expect": r"\w"}}, "does not match"),
    ],
    ids=["crash", "image", "runtime", "memory", "mute"],
)
def test_a_broken_version_is_rolled_back_while_the_old_one_answers_every_request(
    kubeconfig: str, name: str, clients: Clients, service: Any, record: Any, mode: str, changes: Any, told: str
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode=mode))
    before = service()["spec"]
    with clients, pytest.raises(DeploymentFailedError, match=told) as failed:
        Run().complete(deploy(kubeconfig, name, deployment_mode=mode, **changes))
    assert str(failed.value).endswith("It was rolled back to the version before")
    assert service()["spec"] == before
    assert (clients.failures, record()) == ([], None)
    assert set(clients.answers) <= {"served from /models/first", ""}


@MODES
def test_an_update_loses_no_request(kubeconfig: str, name: str, clients: Clients, mode: str) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode=mode))
    with clients:
        Run().complete(deploy(kubeconfig, name, "/models/slow-second", deployment_mode=mode))
        assert clients.has(lambda answers: answers[-1] == "served from /models/slow-second")
    assert clients.failures == []


def test_a_first_version_that_breaks_is_deleted(
    kubeconfig: str, name: str, token: str, service: Any, record: Any
) -> None:
    with pytest.raises(DeploymentFailedError, match="there was no version before"):
        Run().complete(deploy(kubeconfig, name, "/models/broken"))
    assert (service(), record()) == (None, None)


def test_a_failed_version_is_kept_when_the_author_wants_it(
    kubeconfig: str, name: str, token: str, service: Any, record: Any
) -> None:
    with pytest.raises(DeploymentFailedError, match="It was left as it is: on_failure='keep'"):
        Run().complete(deploy(kubeconfig, name, "/models/broken", on_failure="keep"))
    assert service() is not None
    # Else the next deployment would go on with this one, and with its deadline.
    assert record() is None
    assert Run().complete(deploy(kubeconfig, name, on_failure="keep"))["smoke_test"] is not None


def test_a_retry_after_a_lost_worker_goes_back_to_what_served_before_the_first_try(
    kubeconfig: str, name: str, token: str, service: Any
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    before = service()["spec"]
    run = Run()
    run.defer(deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard"))  # and the worker is lost
    with pytest.raises(DeploymentFailedError, match="rolled back to the version before"):
        run.complete(deploy(kubeconfig, name, "/models/broken-too", deployment_mode="Standard"))
    assert service()["spec"] == before


def test_a_retry_goes_on_waiting_and_a_later_run_has_its_own_time(
    kubeconfig: str, name: str, token: str, service: Any
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    before, run = service()["spec"], Run()
    endless = deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard")
    first, again, later = run.defer(endless), run.defer(endless), Run()
    assert again.deadline == first.deadline
    assert later.defer(endless).deadline > first.deadline
    # And back to what served before the first of them.
    with pytest.raises(DeploymentFailedError, match="rolled back to the version before"):
        later.complete(deploy(kubeconfig, name, "/models/broken", deployment_mode="Standard"))
    assert service()["spec"] == before


@pytest.mark.parametrize(("tries", "told"), [(1, ""), (2, "\n  It was rolled back to the version before")])
def test_an_api_server_that_could_not_be_asked_leaves_the_deployment_to_the_retry_if_there_is_one(
    kubeconfig: str, name: str, token: str, service: Any, tries: int, told: str
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    before, run = service()["spec"], Run()
    operator = deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard")
    for _ in range(tries):
        trigger = run.defer(operator)
    event = Outcome("Failed", API_ERROR, "no answer").to_event(name, "default", trigger.uid)
    with pytest.raises(KubernetesApiError) as failed:
        operator.execute_complete(run.context(), event)
    assert str(failed.value) == f"no answer{told}"
    assert (service()["spec"] == before) == bool(told)


def test_what_failed_is_told_also_when_it_cannot_be_rolled_back(
    kubeconfig: str, name: str, token: str, record: Any, ask: Any
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    run, operator = Run(), deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard")
    trigger = run.defer(operator)
    # As if KServe took the version before no more.
    spoilt = {"data": {"previous": {"spec": {"predictor": {"model": None}}}}}
    kept = record()["metadata"]["name"]
    ask(lambda client: client.patch(rollback_record.KIND, "default", kept, spoilt))
    event = Outcome("Failed", "OOMKilled", "too big").to_event(name, "default", trigger.uid)
    with pytest.raises(DeploymentFailedError) as failed:
        operator.execute_complete(run.context(), event)
    told = r"(?s)was not deployed: OOMKilled: too big\n.*It could not be rolled back: .* answered 4\d\d .*-rollback'$"
    assert re.search(told, str(failed.value))
    assert record() is not None


def test_a_change_of_somebody_else_meanwhile_is_what_is_kept(
    kubeconfig: str, name: str, token: str, service: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    by_hand = {"spec": {"predictor": {"timeout": 77}}}

    async def meanwhile(client: Any, *args: Any) -> Any:
        if not seen:
            seen.append(await client.patch(KIND, "default", name, by_hand))
        return await keep_previous(client, *args)

    seen: list[Any] = []
    monkeypatch.setattr(deployment_module, "keep_previous", meanwhile)
    with pytest.raises(DeploymentFailedError, match="rolled back to the version before"):
        Run().complete(deploy(kubeconfig, name, "/models/broken", deployment_mode="Standard"))
    assert service()["spec"]["predictor"]["timeout"] == 77


def test_of_two_tasks_at_once_neither_takes_the_others_half_done_version_for_the_one_before(
    kubeconfig: str, name: str, token: str, service: Any, ask: Any
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    first = service()
    second, third = ({**first, "spec": {"predictor": {"timeout": seconds}}} for seconds in (2, 3))
    for owner, preview, current in (("a", second, first), ("b", third, first), ("b", third, second)):
        kept = ask(lambda client, call=(preview, current, owner): keep_previous(client, KIND, *call, "now"))
    assert rollback_record.belongs_to(kept, "b")
    assert rollback_record.previous_manifest(kept)["spec"] == first["spec"]


def test_a_connection_that_is_missing_is_told_before_anything_is_changed(
    kubeconfig: str, name: str, service: Any
) -> None:
    with pytest.raises(AirflowNotFoundException, match="nowhere"):
        Run().complete(deploy(kubeconfig, name, endpoint_conn_id="nowhere"))
    assert service() is None


def test_what_somebody_else_has_changed_since_is_left_alone(
    kubeconfig: str, name: str, token: str, service: Any, ask: Any
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    trigger = Run().defer(deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard"))
    by_hand = {"spec": {"predictor": {"labels": {"airflow-llmtune/revision": "by-hand"}}}}
    ask(lambda client: client.patch(KIND, "default", name, by_hand))
    outcome = asyncio.run(trigger.wait())
    assert (outcome.phase, outcome.reason) == ("Failed", "Superseded")
    operator, run = deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard"), Run()
    with pytest.raises(DeploymentFailedError, match="Superseded"):
        operator.execute_complete(run.new_try(), outcome.to_event(name, "default", trigger.uid))
    assert read_revisions(service()["spec"]) == ["by-hand"]


def test_a_field_of_another_manager_is_a_conflict_until_it_is_forced(
    kubeconfig: str, name: str, token: str, service: Any, ask: Any
) -> None:
    Run().complete(deploy(kubeconfig, name, min_replicas=1))
    ask(lambda client: client.patch(KIND, "default", name, {"spec": {"predictor": {"minReplicas": 2}}}))
    with pytest.raises(ForeignObjectError, match=r"(?s)\.spec\.predictor\.minReplicas.*force_conflicts=True"):
        Run().complete(deploy(kubeconfig, name, min_replicas=1))
    assert service()["spec"]["predictor"]["minReplicas"] == 2
    Run().complete(deploy(kubeconfig, name, min_replicas=1, force_conflicts=True))
    assert service()["spec"]["predictor"]["minReplicas"] == 1


def test_a_refused_input_changes_nothing_and_is_not_retried(
    kubeconfig: str, name: str, token: str, service: Any, record: Any
) -> None:
    unknown = deploy(kubeconfig, name, overrides={"predictor": {"tolerance": []}})
    with pytest.raises(AirflowFailException, match="tolerance"):
        Run().complete(unknown)
    assert (service(), record()) == (None, None)


def test_a_killed_task_gives_back_what_served_before(kubeconfig: str, name: str, token: str, service: Any) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    before, run = service()["spec"], Run()
    operator = deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard")
    trigger = run.defer(operator)

    async def kill() -> None:
        async with trigger.hook.connect() as client:
            await trigger.undo(client, "another try")
            assert service_now["spec"] != before
            await trigger.undo(client, str(run.ti_id))

    service_now = service()
    asyncio.run(kill())
    assert service()["spec"] == before
    # The worker that is killed while it waits itself does the same.
    trigger = run.defer(operator)
    asyncio.run(operator.abandon(_claim(run)))
    assert service()["spec"] == before


@pytest.mark.parametrize(("state", "is_kept"), [("success", True), ("deferred", True), ("failed", False)])
async def test_a_user_who_ends_the_task_as_a_failure_takes_the_deployment_back(
    kubeconfig: str, name: str, token: str, service: Any, monkeypatch: pytest.MonkeyPatch, state: str, is_kept: bool
) -> None:
    run = Run()
    trigger = await asyncio.to_thread(run.defer, deploy(kubeconfig, name, "/models/endless"))
    trigger.task_instance = SimpleNamespace(id=run.ti_id, dag_id="d", task_id="t", run_id="r", map_index=-1)

    # The state comes from Airflow's supervisor, which only a real triggerer has.
    monkeypatch.setattr(triggers_base, "task_state", lambda ti: state)
    await trigger.on_kill()
    assert (await asyncio.to_thread(service) is not None) == is_kept


def test_a_deployment_that_takes_too_long_is_rolled_back(kubeconfig: str, name: str, token: str, service: Any) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode="Standard"))
    before = service()["spec"]
    endless = deploy(kubeconfig, name, "/models/endless", deployment_mode="Standard", timeout=timedelta(seconds=1))
    with pytest.raises(WaitTimeoutError, match="rolled back to the version before"):
        Run().complete(endless)
    assert service()["spec"] == before


@MODES
def test_a_canary_gets_its_share_then_all_requests(
    kubeconfig: str, name: str, clients: Clients, service: Any, mode: str
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode=mode))
    with clients:
        second = deploy(kubeconfig, name, "/models/second", deployment_mode=mode, canary_traffic_percent=20)
        assert Run().complete(second)["smoke_test"]["answer"].startswith("served from /models/")
        _expect_share(clients, "/models/second", 0.02, 0.5)
        Run().complete(shift(kubeconfig, name, 70))
        _expect_share(clients, "/models/second", 0.4, 0.95)
        Run().complete(shift(kubeconfig, name, 100))
        _expect_share(clients, "/models/second", 1, 1)
    assert clients.failures == []
    assert "canary" not in service()["spec"]
    # The next deployment of the same is none.
    run = Run()
    run.complete(deploy(kubeconfig, name, "/models/second", deployment_mode=mode))
    assert run.deferrals == 0


@MODES
def test_a_promotion_that_lost_its_worker_is_ended_by_the_retry(
    kubeconfig: str, name: str, clients: Clients, record: Any, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode=mode))
    Run().complete(deploy(kubeconfig, name, "/models/second", deployment_mode=mode, canary_traffic_percent=20))
    run, promote = Run(), shift(kubeconfig, name, 100)

    async def lost(*args: Any) -> None:
        raise RuntimeError("the worker is lost")

    with monkeypatch.context() as at_once:
        at_once.setattr(InferenceServiceTrigger, "look", lost)
        with pytest.raises(RuntimeError, match="is lost"):
            run.complete(promote)
    assert record() is not None
    run.complete(promote)
    assert record() is None
    with clients:
        _expect_share(clients, "/models/second", 1, 1)
    # For any other task there is nothing to promote.
    with pytest.raises(AirflowFailException, match="deploy one with"):
        Run().complete(promote)


@MODES
def test_a_canary_that_is_ended_leaves_the_stable_version(
    kubeconfig: str, name: str, clients: Clients, service: Any, mode: str
) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode=mode))
    with clients:
        Run().complete(deploy(kubeconfig, name, "/models/second", deployment_mode=mode, canary_traffic_percent=50))
        Run().complete(shift(kubeconfig, name, 0))
        _expect_share(clients, "/models/first", 1, 1)
    assert clients.failures == []


@MODES
def test_a_broken_canary_is_dropped(kubeconfig: str, name: str, clients: Clients, service: Any, mode: str) -> None:
    Run().complete(deploy(kubeconfig, name, deployment_mode=mode))
    before = service()["spec"]
    with clients, pytest.raises(DeploymentFailedError, match="rolled back to the version before"):
        Run().complete(deploy(kubeconfig, name, "/models/broken", deployment_mode=mode, canary_traffic_percent=50))
    assert service()["spec"] == before
    assert clients.failures == []
    assert set(clients.answers) == {"served from /models/first"}


@pytest.mark.parametrize("form", ["dict", "yaml"])
def test_any_inference_service_keeps_its_name_and_takes_over_one_that_somebody_made(
    kubeconfig: str, name: str, token: str, service: Any, ask: Any, form: str
) -> None:
    manifest = raw_service(name, "/models/first")
    ask(lambda client: client.create(KIND, "default", manifest))
    given = manifest if form == "dict" else yaml.safe_dump(manifest)
    result = Run().complete(apply_service(kubeconfig, given, smoke_test={"model": name, "prompt": "Hi"}))
    assert result["smoke_test"]["answer"] == "served from /models/first"
    assert (result["name"], inference_service.deployment_mode(service())) == (name, "Standard")


@pytest.mark.parametrize("runtime", ["huggingface", "vllm"])
def test_an_adapter_is_asked_for_by_the_served_name(kubeconfig: str, name: str, token: str, runtime: str) -> None:
    operator = deploy(
        kubeconfig, name, adapter="/adapters/tuned", served_model_name="tuned", max_lora_rank=20, runtime=runtime
    )
    result = Run().complete(operator)
    assert (result["served_model_name"], result["smoke_test"]["answer"]) == ("tuned", "served from /adapters/tuned")


def test_an_llm_inference_service_is_deployed_updated_and_rolled_back(
    kubeconfig: str, name: str, token: str, ask: Any
) -> None:
    make_claim(ask, name)
    first = {"kind": "LLMInferenceService", "model": f"pvc://{name}/base", "adapter": f"pvc://{name}/tuned"}
    result = Run().complete(deploy(kubeconfig, name, **first))
    assert result["url"] is not None
    assert re.match(r"served from /.*tuned|served from /mnt/lora/", result["smoke_test"]["answer"])
    again = Run()
    again.complete(deploy(kubeconfig, name, **first))
    assert again.deferrals == 0
    before = ask(lambda client: client.get(llm_inference_service.KIND, "default", name))["spec"]
    with pytest.raises(DeploymentFailedError, match=r"(?s)exit code 1.*rolled back to the version before"):
        Run().complete(deploy(kubeconfig, name, **first, served_model_name="broken"))
    assert ask(lambda client: client.get(llm_inference_service.KIND, "default", name))["spec"] == before


def test_a_model_without_a_chat_template_is_asked_to_go_on(kubeconfig: str, name: str, token: str) -> None:
    result = Run().complete(deploy(kubeconfig, name, "/models/chatless"))
    assert result["smoke_test"]["answer"] == "served from /models/chatless"


def test_a_task_that_does_not_defer_waits_in_the_worker(kubeconfig: str, name: str, token: str) -> None:
    run = Run()
    assert run.complete(deploy(kubeconfig, name, deferrable=False))["smoke_test"]["answer"]
    assert run.deferrals == 0


def _claim(run: Run) -> Any:
    return Claim.of(run.context())


def _expect_share(clients: Clients, model: str, least: float, most: float) -> None:
    """Of the next 50 answers, soon; routes follow a moment after the status."""
    share = -1.0

    def settled(_: list[str]) -> bool:
        nonlocal share
        recent = clients.answers[-50:]
        share = sum(answer == f"served from {model}" for answer in recent) / max(len(recent), 1)
        return len(recent) == 50 and least <= share <= most

    assert clients.has(settled), (model, share)
