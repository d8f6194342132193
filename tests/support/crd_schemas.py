"""What the CRDs of Kubeflow Trainer, Training Operator and KServe say of a manifest; see `condense_crd`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = Path(__file__).parent.parent / "data" / "crd"


def violations(manifest: dict[str, Any]) -> list[str]:
    """Return each rule that the manifest breaks, with the field's path; empty for a valid one."""
    found = _validator(manifest["kind"]).iter_errors(manifest)
    return sorted(f"{error.json_path}: {error.message}" for error in found)


@cache
def _validator(kind: str) -> Draft202012Validator:
    schema = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)
