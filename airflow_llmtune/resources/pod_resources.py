"""What a pod asks for: requests and limits, as authors write them and as Kubernetes reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import text_of
from airflow_llmtune.resources.problems import Problems, did_you_mean

__all__ = ["count_gpus", "quantity", "read_resources"]

_QUANTITY = r"(?P<number>\d+(\.\d+)?|\.\d+)(?P<unit>m|[kMGTPE]|[KMGTPE]i|[eE]\d+)?"
_UNITS = {"": 1.0, "m": 1e-3} | {
    prefix + suffix: base**power
    for suffix, base in (("", 1000.0), ("i", 1024.0))
    for power, prefix in enumerate("kMGTPE" if not suffix else "KMGTPE", 1)
}
# Of whatever vendor, and those that several pods share. Of MIG's slices a process sees one only.
_GPU = r".+/gpu(\.shared)?"
_RESOURCES = ("cpu", "memory", "gpu", "ephemeral-storage")


def read_resources(argument: str, given: Any, problems: Problems) -> dict[str, str]:
    limits = {}
    for name, value in problems.mapping(argument, given).items():
        where = f"{argument}.{name}"
        text = text_of(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        amount = quantity(text)
        if "/" not in name and name not in _RESOURCES:
            problems.add(where, value, "is not known", did_you_mean(name, _RESOURCES))
        elif amount is None or amount <= 0:
            problems.add(where, value, "is not a quantity above 0", "give such as 2, '500m' or '4Gi'")
        elif name == "memory" and amount < 1024**2:
            problems.add(where, value, "is less than a mebibyte: it counts bytes", "give a unit, such as '4Gi'")
        elif (name == "gpu" or "/" in name) and not amount.is_integer():
            problems.add(where, value, "is not a whole number", "give such as 1")
        else:
            limits["nvidia.com/gpu" if name == "gpu" else name] = text
    return limits


def count_gpus(limits: Mapping[str, Any]) -> int:
    return sum(int(quantity(text_of(amount)) or 0) for name, amount in limits.items() if re.fullmatch(_GPU, name))


def quantity(text: str) -> float | None:
    found = re.fullmatch(_QUANTITY, text)
    if found is None:
        return None
    number, unit = found["number"], found["unit"] or ""
    # Python reads an exponent as Kubernetes does; one that is too large gives infinity.
    amount = float(number + unit) if unit[:1] in ("e", "E") and unit[1:] else float(number) * _UNITS[unit]
    return amount if math.isfinite(amount) else None
