"""Completion indexes of an Indexed Job: which have succeeded, failed or run, and the status' texts for them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Object = dict[str, Any]

INDEX = "batch.kubernetes.io/job-completion-index"
"""Both an annotation and a label of the pod."""

FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
ENVIRONMENT = "JOB_COMPLETION_INDEX"

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def index_of(pod: Mapping[str, Any]) -> int | None:
    text = str((pod["metadata"].get("annotations") or {}).get(INDEX, ""))
    return int(text) if text.isdigit() else None


def indexes_of(pods: Iterable[Mapping[str, Any]], completions: int) -> set[int]:
    """Without those beyond ``completions``, which may have been lowered meanwhile."""
    return {index for pod in pods if (index := index_of(pod)) is not None and index < completions}


def parse_indexes(text: str, completions: int) -> set[int]:
    """``1,3-5`` as numbers; what is no such list counts as empty."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        match = _RANGE.fullmatch(part)
        if match is None:
            return set()
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return {index for index in found if index < completions}


def format_indexes(indexes: Iterable[int]) -> str:
    """``0,1,3-5``: ranges from three on."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(_run_text(first, last) for first, last in runs)


def _run_text(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first},{last}" if last == first + 1 else f"{first}-{last}"


def failure_counts(pod: Mapping[str, Any]) -> tuple[int, int]:
    """How often the pod's index had failed before it: counted failures and ignored ones."""
    annotations = pod["metadata"].get("annotations") or {}
    return int(annotations.get(FAILURES, 0)), int(annotations.get(IGNORED_FAILURES, 0))


def unneeded(active: Sequence[Object], completions: int) -> list[Object]:
    """Active pods of an index that another pod works on already, or that is none any more."""
    seen: set[int] = set()
    extra = []
    for pod in active:
        index = index_of(pod)
        if index is None or index >= completions or index in seen:
            extra.append(pod)
        else:
            seen.add(index)
    return extra


def rule_met(policy: Mapping[str, Any] | None, succeeded: set[int], completions: int) -> str | None:
    """What a met rule of the success policy says."""
    for number, rule in enumerate((policy or {}).get("rules", ())):
        if not succeeded:
            return None
        wanted = rule.get("succeededIndexes")
        candidates = set(range(completions)) if wanted is None else parse_indexes(wanted, completions)
        if not candidates:
            continue
        enough = rule.get("succeededCount", len(candidates) if wanted is not None else None)
        if enough is not None and len(candidates & succeeded) >= enough:
            return f"Matched rules at index {number}"
    return None
