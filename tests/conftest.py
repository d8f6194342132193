"""A private Airflow home for every test process; nothing of the developer's own Airflow is read or written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# Set before anything imports Airflow, which reads its configuration when it is imported.
_HOME = Path(tempfile.mkdtemp(prefix="llmtune-airflow-"))
os.environ |= {
    "AIRFLOW_HOME": str(_HOME),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent.parent / "dags"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME / 'airflow.db'}",
    "NO_PROXY": "127.0.0.1,localhost",
}


def pytest_unconfigure() -> None:
    import shutil

    shutil.rmtree(_HOME, ignore_errors=True)
