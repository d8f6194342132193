"""Deployments to run against a control plane, and clients that ask the model all the while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import httpx

from airflow_llmtune.operators.kserve import CanaryTrafficOperator, DeployLLMOperator, InferenceServiceOperator

ENDPOINT_CONN_ID = "models"


def settings(kubeconfig: str) -> dict[str, Any]:
    return {
        "task_id": "deploy",
        "kubernetes_conn_id": None,
        "config_file": kubeconfig,
        "api_retry_timeout": 5,
        "endpoint_conn_id": ENDPOINT_CONN_ID,
    }


def deploy(kubeconfig: str, name: str, model: str = "/models/first", **changes: Any) -> DeployLLMOperator:
    """Serve a model from a path, which the stand-in server never opens."""
    return DeployLLMOperator(**{**settings(kubeconfig), "name": name, "model": model, **changes})


def shift(kubeconfig: str, name: str, percent: int, **changes: Any) -> CanaryTrafficOperator:
    return CanaryTrafficOperator(**{**settings(kubeconfig), "name": name, "percent": percent, **changes})


def apply_service(kubeconfig: str, inference_service: Any, **changes: Any) -> InferenceServiceOperator:
    return InferenceServiceOperator(**{**settings(kubeconfig), "inference_service": inference_service, **changes})


def raw_service(name: str, model: str, **predictor: Any) -> dict[str, Any]:
    args = [f"--model_name={name}", f"--model_dir={model}"]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "huggingface"}, "args": args}, **predictor}},
    }


class Clients(threading.Thread):
    """Ask a model without a pause, and keep every answer and every failure."""

    def __init__(self, url: str, model: str, token: str) -> None:
        super().__init__(daemon=True)
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._url = f"{url}/openai/v1/chat/completions"
        self._body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        self._headers = {"Authorization": f"Bearer {token}"}
        self._stop_now = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        self.has(lambda answers: len(answers) > 0)
        return self

    def __exit__(self, *args: object) -> None:
        self._stop_now.set()
        self.join()

    def run(self) -> None:
        with httpx.Client(headers=self._headers, timeout=10) as client:
            while not self._stop_now.wait(0.01):
                try:
                    response = client.post(self._url, json=self._body)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if response.status_code == 200:
                    self.answers.append(response.json()["choices"][0]["message"]["content"])
                else:
                    self.failures.append(f"{response.status_code}: {response.text}")

    def has(self, wanted: Callable[[list[str]], bool], seconds: float = 20) -> bool:
        """Wait until the answers so far are as wanted."""
        end = time.monotonic() + seconds
        while not wanted(self.answers) and time.monotonic() < end:
            time.sleep(0.02)
        return wanted(self.answers)
