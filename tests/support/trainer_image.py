"""A stand-in for the trainer's image, for tests of what is around it."""

from __future__ import annotations

import stat
from pathlib import Path

# It takes flags that the trainer does not have, so operators must not take it for the trainer.
STAND_IN = "stand-in/trainer:1"
# An image whose `python` is this script: it knows the trainer's flags and answers in the trainer's form, in
# milliseconds. The loss is lowest at a learning rate of 1e-3; the real trainer runs in tests/system and tests/trainer.
TRAINER = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --learning_rate=*) rate="${word#*=}";;
    --lora_r=*) rank="${word#*=}";;
    --use_dora=*) dora="${word#*=}";;
    --output_dir=*) out="${word#*=}";;
    --cache_dir=/*) echo "$HOSTNAME" >> "${word#*=}/used";;
    --max_steps=*) steps="${word#*=}";;
    --checkpoint_dir=/*) kept="${word#*=}";;
    --crash=true) crash=yes;;
    --diverge=true) diverge=yes;;
    --remark=*) remark='"'${word#*=}'"';;
    --nap=*) sleep "${word#*=}";;
  esac
done
if [ -n "$crash" ]; then
  printf '{"schema_version":1,"status":"failed","error":"the model lies nowhere"}' > "$LLMTUNE_TERMINATION_LOG"
  echo "Traceback: boom"; exit 1
fi
if [ -n "$diverge" ]; then
  echo "2026-11-22T09:00:00.000000Z eval_loss=1000000000.0"
  echo "2026-11-22T09:00:00.000000Z eval_f1=0.0"
  printf '{"schema_version":1,"status":"succeeded","diverged":true}' > "$LLMTUNE_TERMINATION_LOG"
  exit 0
fi
if [ -n "$kept" ]; then
  mkdir -p "$kept/$rate"
  for step in $(ls "$kept/$rate"); do echo "$step $steps" >> "$kept/resumed"; done
  touch "$kept/$rate/${steps%.*}"
fi
loss=$(awk -v rate="${rate:-0.001}" 'BEGIN { d = log(rate) / log(10) + 3; printf "%.6f", 1 + d * d }')
echo "2026-11-22T09:00:00.000000Z eval_loss=$loss"
manifest='{"trainer_version":"%s","parameters":{"lora_r":%s,"use_dora":%s},"data":{"remarks":[%s]}}'
result='{"schema_version":1,"status":"succeeded","metrics":{"eval_loss":%s},"artifact_uri":"%s","manifest":'"$manifest}"
set -- "$loss" "$out" "$LLMTUNE_TRAINER_VERSION" "${rank:-16}" "${dora:-false}" "$remark"
printf "$result" "$@" > "$LLMTUNE_TERMINATION_LOG"
"""


def names_of(image: Path) -> dict[str, Path]:
    """Return it by the names under which a control plane runs it: its own, and that of the trainer."""
    return {STAND_IN.partition(":")[0]: image, "airflow-llmtune/trainer": image}


def make_image(prefix: Path) -> Path:
    """Put its programs below an empty folder."""
    (prefix / "bin").mkdir()
    for name in ("python", "torchrun"):
        script = prefix / "bin" / name
        script.write_text(TRAINER)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return prefix
