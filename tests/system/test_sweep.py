"""The sweeper on Airflow itself, which it asks for the state of each task."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane
from trainer_image import make_image, names_of

ROOT = Path(__file__).parent.parent.parent
DAGS = [ROOT / "tests/system/dags/orphans.py", ROOT / "dags/sweep_orphans.py"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def an_hour_ago() -> datetime:
    """When all objects are made: the example DAG leaves younger ones alone."""
    return datetime.now(UTC) - timedelta(hours=1)


def sweep_twice(home: Path, kubeconfig: Path) -> list[dict[str, Any]]:
    folder = home.with_name("dags")
    folder.mkdir()
    for dag in DAGS:
        shutil.copy(dag, folder)
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(kubeconfig)}}
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__LLMTUNE__SITE": "test",
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(connection),
        "PYTHONPATH": str(ROOT),
    }
    airflow = str(Path(sys.executable).with_name("airflow"))
    subprocess.run([airflow, "db", "migrate"], env=env, check=True, capture_output=True)
    done = subprocess.run([sys.executable, str(folder / "orphans.py")], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    told: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_what_a_task_has_left_is_deleted_as_soon_as_it_has_ended(tmp_path):
    image, kubeconfig = tmp_path / "image", tmp_path / "kubeconfig.yaml"
    image.mkdir()
    with ControlPlane(images=names_of(make_image(image)), clock=an_hour_ago) as plane:
        plane.write_kubeconfig(kubeconfig)
        during, after = sweep_twice(tmp_path / "airflow", kubeconfig)
    (waiting,) = during["kept"].pop("its task is running")
    assert [name.startswith("Job/orphans-leave-") for name in during["deleted"]] == [True, True]
    assert waiting.startswith("Job/orphans-sweep-")
    assert during["kept"] == {}
    assert after["found"] == 1
    assert after["deleted"] == [waiting]
