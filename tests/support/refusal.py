"""One rule of Katib's validator: a change that breaks a valid Experiment, and the exact field errors.

The changes suit any Experiment with an inline Job of one container whose first trial parameter refers to the first
parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from objects import Object

Texts = str | tuple[str, ...]

DENIED = 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request: '


@dataclass(frozen=True)
class Refusal:
    name: str
    change: Callable[[Object], Any]
    errors: Texts | Callable[[Object], Texts]
    is_whole: bool = True
    """False when each text is only a part: what follows is a whole spec as Go prints it."""

    def texts(self, changed: Object) -> list[str]:
        found = self.errors(changed) if callable(self.errors) else self.errors
        return [found] if isinstance(found, str) else list(found)

    def __str__(self) -> str:
        return self.name


def denied(texts: list[str]) -> str:
    return DENIED + (texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


def template(obj: Object) -> Object:
    found: Object = obj["spec"]["trialTemplate"]
    return found


def job_spec(obj: Object) -> Object:
    found: Object = template(obj)["trialSpec"]["spec"]
    return found


def container(obj: Object) -> Object:
    found: Object = job_spec(obj)["template"]["spec"]["containers"][0]
    return found


def collector(kind: str, custom: Object | None = None, **source: Any) -> Callable[[Object], None]:
    chosen = {"kind": kind, **({"customCollector": custom} if custom is not None else {})}
    return lambda e: e["spec"].update(metricsCollectorSpec={"collector": chosen, "source": source})
