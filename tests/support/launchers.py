"""The trainer as a command: one process, and two that train together."""

from __future__ import annotations

import sys

ONE_PROCESS = (sys.executable, "-m", "llmtune_trainer")
TWO_PROCESSES = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
    *("-m", "llmtune_trainer"),
)
