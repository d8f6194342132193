"""Everything this provider raises on purpose.

LLMTuneError
├── InvalidSpecError        arguments or manifest are wrong; nothing was created; a retry cannot help
├── OwnershipError          the task's object is not the task's to use
│   ├── ForeignObjectError  somebody else made it
│   ├── StaleObjectError    the task made it with other arguments, and its author wants to know
│   └── SupersededError     a newer try of the task has taken it over
├── KubernetesApiError      the API server refused or could not be reached
│   └── PermissionDeniedError
├── OutcomeError            the object ended without the result that was asked for
│   ├── DeploymentFailedError
│   ├── ExperimentFailedError
│   └── TrainingFailedError
├── SourceVersionError      which version of a model or data set lies at its address could not be read
└── WaitTimeoutError        the deadline passed first
    └── StalledError        nothing changed for as long as the author allows
        └── CannotStartError  a pod waits for what does not come by itself
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "CannotStartError",
    "DeploymentFailedError",
    "ExperimentFailedError",
    "FieldError",
    "ForeignObjectError",
    "InvalidSpecError",
    "KubernetesApiError",
    "LLMTuneError",
    "OutcomeError",
    "OwnershipError",
    "PermissionDeniedError",
    "SourceVersionError",
    "StaleObjectError",
    "StalledError",
    "SupersededError",
    "TrainingFailedError",
    "WaitTimeoutError",
]


# Reason of a KubernetesApiError: there was nobody to ask.
INVALID_CONFIGURATION = "InvalidConfiguration"


class LLMTuneError(Exception):
    """Base of all errors of this package."""


class FieldError(NamedTuple):
    """One mistake in the input: the argument, its value as a log may show it, the rule it breaks, how to mend it."""

    argument: str
    shown: str
    rule: str
    fix: str

    def __str__(self) -> str:
        return f"`{self.argument}`={self.shown} {self.rule}. Fix: {self.fix}"


class InvalidSpecError(LLMTuneError):
    """The input is wrong. Holds every mistake found, not only the first."""

    def __init__(self, subject: str, errors: Sequence[FieldError]) -> None:
        self.subject = subject
        self.errors = tuple(errors)
        count = len(self.errors)
        lines = "\n".join(f"  {number}. {error}" for number, error in enumerate(self.errors, 1))
        super().__init__(f"{subject} has {count} mistake{'s' if count != 1 else ''}:\n{lines}")


class OwnershipError(LLMTuneError):
    """The object that the task would use is not its own, or no longer."""


class ForeignObjectError(OwnershipError):
    """An object of the same name exists that this task did not create."""


class StaleObjectError(OwnershipError):
    """The task's object was made with other arguments than the task has now, and ``on_stale`` says to fail."""


class SupersededError(OwnershipError):
    """A newer try of this task owns the object; this try, lost and found again, has to leave it alone."""


class KubernetesApiError(LLMTuneError):
    """
    The API server's answer, decoded from its ``metav1.Status``; ``code`` is 0 when there was no answer.

    ``retry_after`` are the seconds that the server asked to wait before the next request.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int = 0,
        reason: str = "",
        causes: Sequence[str] = (),
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.causes = tuple(causes)
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Tell whether the same request may succeed later; 401 because a token may just have been rotated."""
        return self.code in {0, 401, 429, 500, 502, 503, 504} and self.reason != INVALID_CONFIGURATION


class PermissionDeniedError(KubernetesApiError):
    """The service account lacks a verb on a resource; the message names all three."""


class OutcomeError(LLMTuneError):
    """The object reached its end without the result that was asked for."""


class DeploymentFailedError(OutcomeError):
    """The new version of a served model did not become ready, or did not answer."""


class ExperimentFailedError(OutcomeError):
    """The Experiment failed, or succeeded without one usable trial."""


class TrainingFailedError(OutcomeError):
    """The training job failed."""


class SourceVersionError(LLMTuneError):
    """The version of a model or a data set could not be read where the task runs; it may be later if ``transient``."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class WaitTimeoutError(LLMTuneError):
    """The deadline passed before the object finished."""


class StalledError(WaitTimeoutError):
    """The object did not get on for longer than its task allows."""


class CannotStartError(StalledError):
    """A pod cannot start, for a reason that does not pass by itself, such as an image or a Secret that is not there."""
