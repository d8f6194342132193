"""A stand-in for the trainer's image, for tests of what is around it."""

from __future__ import annotations

import stat
from pathlib import Path

# An image whose `python` is this script: it knows the trainer's flags and answers in the trainer's form, in
# milliseconds. The loss is lowest at a learning rate of 1e-3; the real trainer runs in tests/system and tests/trainer.
TRAINER = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --learning_rate=*) rate="${word#*=}";;
    --output_dir=*) out="${word#*=}";;
    --crash=true) crash=yes;;
    --diverge=true) diverge=yes;;
    --nap=*) sleep "${word#*=}";;
  esac
done
if [ -n "$crash" ]; then
  printf '{"schema_version":1,"status":"failed","error":"the model lies nowhere"}' > "$LLMTUNE_TERMINATION_LOG"
  echo "Traceback: boom"; exit 1
fi
if [ -n "$diverge" ]; then echo "2026-11-22T09:00:00.000000Z eval_loss=1000000000.0"; exit 0; fi
loss=$(awk -v rate="${rate:-0.001}" 'BEGIN { d = log(rate) / log(10) + 3; printf "%.6f", 1 + d * d }')
echo "2026-11-22T09:00:00.000000Z eval_loss=$loss"
result='{"schema_version":1,"status":"succeeded","metrics":{"eval_loss":%s},"artifact_uri":"%s"}'
printf "$result" "$loss" "$out" > "$LLMTUNE_TERMINATION_LOG"
"""


def make_image(prefix: Path) -> Path:
    """Put its programs below an empty folder."""
    (prefix / "bin").mkdir()
    for name in ("python", "torchrun"):
        script = prefix / "bin" / name
        script.write_text(TRAINER)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return prefix
