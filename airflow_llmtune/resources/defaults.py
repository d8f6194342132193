"""Defaults that the operators' signatures show: a DAG file loads this module, and none of those that use them."""

__all__ = ["TRAINER_IMAGE", "TRAINER_NAME", "TRAINER_VERSION", "WARM_START_SCALE"]

# The trainer and this provider are released together.
TRAINER_VERSION = "0.1.0"
TRAINER_NAME = "airflow-llmtune/trainer"
TRAINER_IMAGE = f"{TRAINER_NAME}:{TRAINER_VERSION}"

# A search of n trials over d parameters knows its best point to about n^(-1/d) of each range: 12 to 30 trials over
# two parameters leave 0.29 to 0.18 of it.
WARM_START_SCALE = 0.25
