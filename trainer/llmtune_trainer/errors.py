"""What ends a run, and with which exit code.

TrainerError        1   training did not give what was asked for
├── BadInputError   2   settings, model or data are wrong; the same command cannot succeed
└── DivergedError   1   the loss is no longer a finite number
"""

from __future__ import annotations


class TrainerError(Exception):
    exit_code = 1


class BadInputError(TrainerError):
    exit_code = 2


class DivergedError(TrainerError):
    pass
