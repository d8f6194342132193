"""Condenses a CustomResourceDefinition to the facts of its schema: which fields there are, and what they may hold.

    python -m tests.support.condense_crd CRD.yaml VERSION > tests/data/crd/KIND.json

No sentence of it is kept, nor its rules in CEL. Equal parts, such as the many pod templates, are kept once.
The files in `tests/data/crd` were made so from Kubeflow Trainer v2.3.0, Training Operator v1.9.0 and KServe v0.20.0.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml

JSON = dict[str, Any]
FACTS = (
    "type",
    "required",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)
SHORTEST_SHARED = 200


def condense(schema: JSON) -> JSON:
    """Return a JSON schema (draft 2020-12) that refuses what the API server would drop."""
    shared: dict[str, JSON] = {}
    root = _condensed(schema, shared)
    return {**_resolved(root, shared), "$defs": dict(sorted(shared.items()))}


def _condensed(schema: JSON, shared: dict[str, JSON]) -> JSON:
    found: JSON = {key: schema[key] for key in FACTS if key in schema}
    if found.pop("x-kubernetes-int-or-string", False):
        found["type"] = ["integer", "string"]
    keeps_unknown = found.pop("x-kubernetes-preserve-unknown-fields", False)
    if "items" in schema:
        found["items"] = _condensed(schema["items"], shared)
    if isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = _condensed(schema["additionalProperties"], shared)
    if "properties" in schema:
        found["properties"] = {name: _condensed(each, shared) for name, each in sorted(schema["properties"].items())}
        if not keeps_unknown:
            found["additionalProperties"] = False
    text = json.dumps(found, sort_keys=True)
    if len(text) < SHORTEST_SHARED:
        return found
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    shared[name] = found
    return {"$ref": f"#/$defs/{name}"}


def _resolved(root: JSON, shared: dict[str, JSON]) -> JSON:
    return shared.pop(root["$ref"].rpartition("/")[2]) if "$ref" in root else root


def main() -> None:
    definition = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    versions = {version["name"]: version for version in definition["spec"]["versions"]}
    schema = versions[sys.argv[2]]["schema"]["openAPIV3Schema"]
    # Object metadata is the API server's own.
    schema["properties"]["metadata"] = {"type": "object"}
    sys.stdout.write(json.dumps(condense(schema), indent=1) + "\n")


if __name__ == "__main__":
    main()
