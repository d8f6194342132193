"""The whole control plane in one object: store, API server, admission, controllers and kubelet in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from types import TracebackType

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.admission.openapi import OPENAPI_SCHEMAS
from airflow_llmtune.controlplane.apiserver.app import ApiServer
from airflow_llmtune.controlplane.apiserver.built_in_definitions import install_definitions
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.faults import Faults
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock, utc_now
from airflow_llmtune.controlplane.collectors.sidecar import collector_images
from airflow_llmtune.controlplane.controllers.definition import DefinitionController
from airflow_llmtune.controlplane.controllers.deployment import DeploymentController
from airflow_llmtune.controlplane.controllers.early_stopping import EarlyStoppingService
from airflow_llmtune.controlplane.controllers.experiment import ExperimentController
from airflow_llmtune.controlplane.controllers.garbage_collector import GarbageCollector
from airflow_llmtune.controlplane.controllers.inference_service import InferenceServiceController
from airflow_llmtune.controlplane.controllers.job import JobController
from airflow_llmtune.controlplane.controllers.job_set import JobSetController
from airflow_llmtune.controlplane.controllers.llm_inference_service import LLMInferenceServiceController
from airflow_llmtune.controlplane.controllers.namespace import NamespaceController
from airflow_llmtune.controlplane.controllers.pytorch_job import PyTorchJobController
from airflow_llmtune.controlplane.controllers.replica_set import ReplicaSetController
from airflow_llmtune.controlplane.controllers.runtime import Manager
from airflow_llmtune.controlplane.controllers.scheduler import Scheduler
from airflow_llmtune.controlplane.controllers.shipped_runtimes import ship_runtimes
from airflow_llmtune.controlplane.controllers.shipped_serving_runtimes import ship_serving_runtimes
from airflow_llmtune.controlplane.controllers.suggestion import SuggestionController
from airflow_llmtune.controlplane.controllers.train_job import TrainJobController
from airflow_llmtune.controlplane.controllers.training_runtime import runtime_controllers
from airflow_llmtune.controlplane.controllers.trial import TrialController
from airflow_llmtune.controlplane.db_manager import DBManager
from airflow_llmtune.controlplane.gateway import Gateway
from airflow_llmtune.controlplane.gateway.controller import HttpRouteController
from airflow_llmtune.controlplane.grpc_services.db_manager_server import DBManagerServer
from airflow_llmtune.controlplane.initializer.image import initializer_images
from airflow_llmtune.controlplane.kubeconfig import kubeconfig, write_private
from airflow_llmtune.controlplane.kubelet import OUTAGE_SECONDS, Kubelet
from airflow_llmtune.controlplane.kubelet.node import all_resources
from airflow_llmtune.controlplane.loop_thread import BackgroundTasks, LoopThread
from airflow_llmtune.controlplane.server import (
    GatewayServer,
    HttpsServer,
    StartError,
    base_url,
    check_loopback,
    still_free,
)
from airflow_llmtune.controlplane.state.directory import check_path, temporary
from airflow_llmtune.controlplane.state.errors import StateError
from airflow_llmtune.controlplane.state.identity import new_identity
from airflow_llmtune.controlplane.state.kept import state_of
from airflow_llmtune.controlplane.store import Store

__all__ = ["ControlPlane", "CrashError", "StartError"]

_NAMESPACE_LABELS = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}

log = logging.getLogger(__name__)


class CrashError(Exception):
    """A part of the control plane died while it was in use; told when it stops."""


class ControlPlane:
    """Starts in under a second, stops with every process it started; to be used as a context manager.

    :param host: a loopback address; any other is refused
    :param port: 0 picks a free one, with a state directory the same as last time; ``url`` tells which
    :param gateway_port: the same for models, which answer at ``gateway_url``
    :param state_dir: what keeps objects, metrics, token and certificate, logs and volumes: started again on it, the
        control plane goes on; None keeps nothing beyond ``stop``
    :param images: image name to the prefix (a virtual environment) its programs come from; None runs all images
        with the host's programs
    :param namespaces: made at the start, ready for Katib; the first is the kubeconfig's default
    :param job_backoff_base_seconds: wait after a Job's first failed pod, doubled each time
    :param node_resources: what pods can ask for, such as ``{"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"}``, in
        place of what the machine has; GPUs count only when they are given
    :param strict: show Katib's own faults instead of repairing them; ``deviations.py`` lists them
    :param on_crash: called, on the plane's own thread, when a part of it has died and it should be stopped
    :param clock: what every timestamp and every age is taken from
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        gateway_port: int = 0,
        state_dir: Path | str | None = None,
        images: Mapping[str, Path | str] | None = None,
        namespaces: Sequence[str] = ("default",),
        job_backoff_base_seconds: float = 10.0,
        node_resources: Mapping[str, str] | None = None,
        strict: bool = False,
        on_crash: Callable[[], None] = lambda: None,
        clock: Clock = utc_now,
    ) -> None:
        check_loopback(host)
        self.faults = Faults()
        self.url = ""
        self.gateway_url = ""
        """Below it, models answer HTTP requests that bring the token."""
        self.db_manager_address = ""
        """Host and port of Katib's DB manager, for gRPC clients outside of pods."""
        self._host = host
        self._port = port
        self._gateway_port = gateway_port
        # Both absolute, as pods see them from working folders of their own.
        self._given_state_dir = None if state_dir is None else Path(state_dir).absolute()
        self._images = None if images is None else {name: Path(path).absolute() for name, path in images.items()}
        self._namespaces = tuple(namespaces)
        self._job_backoff_base_seconds = job_backoff_base_seconds
        self._node_resources = all_resources(node_resources or {})
        self._strict = strict
        self._on_crash = on_crash
        self._clock = clock
        self._identity = new_identity(host)
        self._crashes: list[tuple[str, BaseException | None]] = []
        self._thread: LoopThread | None = None
        self._starting: asyncio.Task[None] | None = None
        self._running = contextlib.AsyncExitStack()
        self._files = contextlib.ExitStack()

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when requests are answered; on an error nothing is left behind."""
        with contextlib.ExitStack() as unwinding:
            unwinding.callback(self._files.close)
            try:
                state_dir = self._given_state_dir or self._files.enter_context(temporary())
                check_path(state_dir)
                # For the owner only: logs may hold what pods were told in confidence.
                state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                unwinding.callback(self.stop)
                self._thread = LoopThread("llmtune control plane")
                self._thread.run(self._start(state_dir))
            except OSError as error:
                where = self._given_state_dir or "(a temporary one)"
                raise StartError(f"cannot use the state directory {where}: {error.strerror}") from error
            except ApiError as error:
                raise StartError(error.message) from error
            except StateError as error:
                raise StartError(str(error)) from error
            except CancelledError:
                raise StartError("the control plane was stopped while it was starting") from None
            unwinding.pop_all()

    def stop(self) -> None:
        """Ends open watches, kills the processes of all pods, waits for all of it. May be called again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.run(self._end())
        finally:
            thread.stop()
            self._files.close()
        if self._crashes:
            name, error = self._crashes[0]
            raise CrashError(f"the control plane's {name} ended while it was running: {error!r}") from error

    @property
    def token(self) -> str:
        """What a request needs; with a state directory it is known from the start on."""
        return self._identity.token

    @property
    def kubeconfig(self) -> str:
        """YAML for any Kubernetes client. It holds the token."""
        authority = self._identity.certificate.authority
        return kubeconfig(self.url, self.token, authority, self._namespaces[0])

    def write_kubeconfig(self, path: Path | str) -> None:
        """Written with mode 0600."""
        write_private(Path(path), self.kubeconfig)

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How many requests of each verb and resource have been answered."""
        return Counter(self._api.requests)

    @property
    def open_streams(self) -> int:
        """How many watches and followed logs are open at this moment."""
        return len(self._api.streams)

    def drop_watches(self) -> None:
        """End all open watches and followed logs, as a restarting API server or a proxy would."""
        if self._thread is not None:
            self._thread.call(self._api.streams.end_all)

    def rotate_token(self) -> None:
        """As when a token expires: the old one gets 401 from now on, a kubeconfig written anew has the next one."""
        assert self._thread is not None, "only while it is running"
        token = secrets.token_urlsafe(32)
        self._state.remember_token(token)
        self._identity = self._state.identity
        self._thread.call(self._api.accept_token, token)
        self._thread.call(self._gateway.accept_token, token)

    async def _end(self) -> None:
        starting = self._starting
        if starting is not None and not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
        await self._running.aclose()

    async def _start(self, state_dir: Path) -> None:
        self._starting = asyncio.current_task()
        async with contextlib.AsyncExitStack() as stack:
            state = stack.enter_context(state_of(self._given_state_dir, self._host, self._identity))
            self._state = state
            self._identity = state.identity
            # Above all numbers of an earlier control plane: a client that outlived that gets 410, not silence.
            store = Store(first_revision=int(time.time() * 1000), journal=state.objects)
            self.registry = Registry(store, KatibAdmission(store), self._clock)
            install_definitions(self.registry)
            for name in self._namespaces:
                if self.registry.find(NAMESPACE, None, name) is None:
                    self.registry.create(NAMESPACE, {"metadata": {"name": name, "labels": _NAMESPACE_LABELS}})
            ship_runtimes(self.registry)
            ship_serving_runtimes(self.registry)
            db_manager = DBManager(state.reports)
            db_manager_server = DBManagerServer(self.registry, db_manager)
            stack.push_async_callback(db_manager_server.stop)
            self.db_manager_address = await db_manager_server.start(str(state_dir))
            kubelet = self._kubelet(db_manager, state_dir)
            self._api = ApiServer(
                self.registry,
                kubelet,
                token=self.token,
                faults=self.faults,
                clock=self._clock,
                schemas=OPENAPI_SCHEMAS,
            )
            # A port that is taken is told before the kubelet takes up pods, which would end with this attempt.
            wanted = self._port or still_free(self._host, state.identity.port)
            server = HttpsServer(self._api, self._host, wanted, state.identity.certificate)
            stack.callback(server.close)
            gateway_server = self._make_gateway(state.identity.gateway_port, stack)
            stack.push_async_callback(kubelet.stop)
            tasks = BackgroundTasks(self._crashed)
            stack.push_async_callback(tasks.stop)
            tasks.start("kubelet", kubelet.run)
            tasks.start("scheduler", Scheduler(self.registry, self._clock).run)
            tasks.start("controller manager", self._manager(db_manager, state_dir).run)
            tasks.start("garbage collector", GarbageCollector(self.registry).run)
            tasks.start("state", lambda: state.maintain(store))
            tasks.start("gateway", self._gateway.follow)
            stack.push_async_callback(server.stop)
            await server.start()
            stack.push_async_callback(gateway_server.stop)
            await gateway_server.start()
            state.remember_ports(server.port, gateway_server.port)
            self.url = base_url("https", self._host, server.port)
            self._running = stack.pop_all()

    def _make_gateway(self, last_port: int, stack: contextlib.AsyncExitStack) -> GatewayServer:
        """Its URL is known before controllers run, which write it into what they make."""
        self._gateway = Gateway(self.registry, token=self.token)
        stack.push_async_callback(self._gateway.close)
        server = GatewayServer(self._gateway, self._host, self._gateway_port or still_free(self._host, last_port))
        stack.callback(server.close)
        self.gateway_url = base_url("http", self._host, server.port)
        return server

    def _kubelet(self, db_manager: DBManager, state_dir: Path) -> Kubelet:
        early_stopping = EarlyStoppingService(self.registry, self._clock, strict=self._strict)
        db_manager_host = self.db_manager_address.rpartition(":")[0]
        return Kubelet(
            self.registry,
            state_dir,
            self._images,
            {
                **collector_images(db_manager, early_stopping.set_trial_status, strict=self._strict),
                **initializer_images(self._images),
            },
            self._clock,
            hosts={"katib-db-manager.kubeflow": db_manager_host},
            suggestion_address=db_manager_host,
            authority=self._identity.certificate.authority,
            node_resources=self._node_resources,
            outage_seconds=OUTAGE_SECONDS if self._given_state_dir is not None else 0.0,
            is_temporary=self._given_state_dir is None,
        )

    def _manager(self, db_manager: DBManager, state_dir: Path) -> Manager:
        registry = self.registry
        backoff = self._job_backoff_base_seconds
        controllers = [
            ExperimentController(registry, self._clock, strict=self._strict),
            SuggestionController(registry, self._clock, db_manager, state_dir / "volumes", strict=self._strict),
            TrialController(registry, db_manager, self._clock, strict=self._strict),
            JobController(registry, self._clock, backoff_base_seconds=backoff),
            PyTorchJobController(registry, self._clock),
            JobSetController(registry, self._clock),
            TrainJobController(registry, self._clock),
            *runtime_controllers(registry),
            DeploymentController(registry, self._clock),
            ReplicaSetController(registry, self._clock),
            HttpRouteController(registry, self._clock),
            InferenceServiceController(registry, self._clock, lambda: self.gateway_url),
            LLMInferenceServiceController(registry, self._clock, lambda: self.gateway_url),
            NamespaceController(registry),
            DefinitionController(registry),
        ]
        return Manager(registry, controllers)

    def _crashed(self, name: str, error: BaseException | None) -> None:
        log.critical("the %s ended while the control plane was running", name, exc_info=error)
        self._crashes.append((name, error))
        self._on_crash()
