"""The whole control plane in one object: store, API server, admission, controllers and kubelet in one loop."""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.app import ApiServer
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.faults import Faults
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.certificates import issue
from airflow_llmtune.controlplane.clock import utc_now
from airflow_llmtune.controlplane.controllers.experiment import ExperimentController
from airflow_llmtune.controlplane.controllers.garbage_collector import GarbageCollector
from airflow_llmtune.controlplane.controllers.job import JobController
from airflow_llmtune.controlplane.controllers.namespace import NamespaceController
from airflow_llmtune.controlplane.controllers.pytorch_job import PyTorchJobController
from airflow_llmtune.controlplane.controllers.runtime import Manager
from airflow_llmtune.controlplane.controllers.suggestion import SuggestionController
from airflow_llmtune.controlplane.controllers.trial import TrialController
from airflow_llmtune.controlplane.db_manager import DBManager
from airflow_llmtune.controlplane.kubeconfig import kubeconfig, write_private
from airflow_llmtune.controlplane.kubelet import Kubelet
from airflow_llmtune.controlplane.loop_thread import BackgroundTasks, LoopThread
from airflow_llmtune.controlplane.metrics_collector import IMAGE as METRICS_COLLECTOR_IMAGE
from airflow_llmtune.controlplane.metrics_collector import FileMetricsCollector
from airflow_llmtune.controlplane.server import HttpsServer, StartError, check_loopback
from airflow_llmtune.controlplane.store import Store

__all__ = ["ControlPlane", "CrashError", "StartError"]

_NAMESPACE_LABELS = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}

log = logging.getLogger(__name__)


class CrashError(Exception):
    """A part of the control plane died while it was in use; told when it stops."""


class ControlPlane:
    """Starts in under a second, stops with every process it started; to be used as a context manager.

    :param host: a loopback address; any other is refused
    :param port: 0 picks a free one; ``url`` tells which
    :param state_dir: where logs and volumes of pods lie; None makes a temporary one that goes with ``stop``
    :param images: image name to the prefix (a virtual environment) its programs come from; None runs all images
        with the host's programs
    :param namespaces: made at the start, ready for Katib; the first is the kubeconfig's default
    :param job_backoff_base_seconds: wait after a Job's first failed pod, doubled each time
    :param on_crash: called, on the plane's own thread, when a part of it has died and it should be stopped
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        state_dir: Path | None = None,
        images: Mapping[str, Path] | None = None,
        namespaces: Sequence[str] = ("default",),
        job_backoff_base_seconds: float = 10.0,
        on_crash: Callable[[], None] = lambda: None,
    ) -> None:
        check_loopback(host)
        self.faults = Faults()
        self.token = secrets.token_urlsafe(32)
        self.url = ""
        self._host = host
        self._port = port
        self._given_state_dir = state_dir
        self._images = images
        self._namespaces = tuple(namespaces)
        self._job_backoff_base_seconds = job_backoff_base_seconds
        self._on_crash = on_crash
        self._certificate = issue(host)
        self._crashes: list[tuple[str, BaseException | None]] = []
        self._thread: LoopThread | None = None
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
        state_dir = self._given_state_dir
        if state_dir is None:
            state_dir = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="llmtune-")))
        with contextlib.ExitStack() as unwinding:
            unwinding.callback(self.stop)
            self._thread = LoopThread("llmtune control plane")
            try:
                # For the owner only: logs may hold what pods were told in confidence.
                state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._thread.run(self._start(state_dir))
            except OSError as error:
                raise StartError(f"cannot use the state directory {state_dir}: {error.strerror}") from error
            except ApiError as error:
                raise StartError(error.message) from error
            unwinding.pop_all()

    def stop(self) -> None:
        """Ends open watches, kills the processes of all pods, waits for all of it. May be called again."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.run(self._running.aclose())
        finally:
            thread.stop()
            self._files.close()
        if self._crashes:
            name, error = self._crashes[0]
            raise CrashError(f"the control plane's {name} ended while it was running: {error!r}") from error

    @property
    def kubeconfig(self) -> str:
        """YAML for any Kubernetes client. It holds the token."""
        return kubeconfig(self.url, self.token, self._certificate.authority, self._namespaces[0])

    def write_kubeconfig(self, path: Path | str) -> None:
        """Written with mode 0600."""
        write_private(Path(path), self.kubeconfig)

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How many requests of each verb and resource have been answered."""
        return Counter(self._api.requests)

    def drop_watches(self) -> None:
        """End all open watches and followed logs, as a restarting API server or a proxy would."""
        if self._thread is not None:
            self._thread.call(self._api.streams.end_all)

    async def _start(self, state_dir: Path) -> None:
        async with contextlib.AsyncExitStack() as stack:
            # Above all numbers of an earlier control plane: a client that outlived that gets 410, not silence.
            store = Store(first_revision=int(time.time() * 1000))
            self.registry = Registry(store, KatibAdmission(store), utc_now)
            for name in self._namespaces:
                self.registry.create(NAMESPACE, {"metadata": {"name": name, "labels": _NAMESPACE_LABELS}})
            db_manager = DBManager()
            kubelet = Kubelet(
                self.registry,
                state_dir,
                self._images,
                {METRICS_COLLECTOR_IMAGE: FileMetricsCollector(db_manager)},
                utc_now,
            )
            stack.push_async_callback(kubelet.stop)
            tasks = BackgroundTasks(self._crashed)
            stack.push_async_callback(tasks.stop)
            tasks.start("kubelet", kubelet.run)
            tasks.start("controller manager", self._manager(db_manager).run)
            tasks.start("garbage collector", GarbageCollector(self.registry).run)
            self._api = ApiServer(self.registry, kubelet, token=self.token, faults=self.faults, clock=utc_now)
            server = HttpsServer(self._api, self._host, self._port, self._certificate)
            stack.push_async_callback(server.stop)
            port = await server.start()
            shown = f"[{self._host}]" if ":" in self._host else self._host
            self.url = f"https://{shown}:{port}"
            self._running = stack.pop_all()

    def _manager(self, db_manager: DBManager) -> Manager:
        registry = self.registry
        backoff = self._job_backoff_base_seconds
        controllers = [
            ExperimentController(registry, utc_now),
            SuggestionController(registry, utc_now),
            TrialController(registry, db_manager, utc_now),
            JobController(registry, utc_now, backoff_base_seconds=backoff),
            PyTorchJobController(registry, utc_now),
            NamespaceController(registry),
        ]
        return Manager(registry, controllers)

    def _crashed(self, name: str, error: BaseException | None) -> None:
        log.critical("the %s ended while the control plane was running", name, exc_info=error)
        self._crashes.append((name, error))
        self._on_crash()
