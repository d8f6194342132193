"""Defaults that the operators' signatures show: a DAG file loads this module, and none of those that use them."""

__all__ = ["TRAINER_IMAGE", "WARM_START_SCALE"]

# The trainer and this provider are released together.
_TRAINER_VERSION = "0.1.0"
TRAINER_IMAGE = f"airflow-llmtune/trainer:{_TRAINER_VERSION}"

# A search of n trials over d parameters knows its best point to about n^(-1/d) of each range: 12 to 30 trials over
# two parameters leave 0.29 to 0.18 of it.
WARM_START_SCALE = 0.25
