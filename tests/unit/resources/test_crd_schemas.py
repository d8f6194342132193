"""Every manifest that the provider makes is valid by the CRD of its kind, and the CRDs' schemas here do refuse."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.crd_schemas import FOLDER, violations

JSON = dict[str, Any]
DATA = Path(__file__).parent / "data"
KINDS = {file.stem for file in FOLDER.glob("*.json")}


def manifests() -> dict[str, JSON]:
    """Return the golden manifests of these kinds, and the trial specs inside the golden Experiments, by file."""
    found = {}
    for file in sorted(DATA.glob("*/*.output.json")):
        golden = json.loads(file.read_text(encoding="utf-8"))
        manifest = golden["spec"]["trialTemplate"]["trialSpec"] if golden.get("kind") == "Experiment" else golden
        if manifest.get("kind") in KINDS:
            found[f"{file.parent.name}/{file.name.partition('.')[0]}"] = manifest
    return found


ALL = manifests()
# In the shapes of Kubeflow Trainer before 2.2, which the schema of 2.3 refuses.
OLDER = {case for case in ALL if "_of_trainer_2_" in case}
MANIFESTS = {case: manifest for case, manifest in ALL.items() if case not in OLDER}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_made_manifest_is_valid_by_its_crd(case):
    assert violations(MANIFESTS[case]) == []


@pytest.mark.parametrize("case", sorted(OLDER))
def test_a_manifest_for_an_older_trainer_is_not_valid_by_the_newest_crd(case):
    assert violations(ALL[case]) != []


def test_every_kind_with_a_crd_has_a_manifest():
    assert {manifest["kind"] for manifest in MANIFESTS.values()} == KINDS


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_field_that_the_crd_does_not_know_is_found(case):
    manifest = copy.deepcopy(MANIFESTS[case])
    manifest["spec"]["nodes"] = 1
    assert len(violations(manifest)) == 1
    assert "('nodes' was unexpected)" in violations(manifest)[0]


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_number_where_the_crd_wants_an_object_is_found(case):
    manifest = copy.deepcopy(MANIFESTS[case])
    field = next(name for name, value in manifest["spec"].items() if isinstance(value, dict))
    manifest["spec"][field] = 1
    assert violations(manifest) == [f"$.spec.{field}: 1 is not of type 'object'"]
