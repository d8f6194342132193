"""What Airflow reads at every start to learn of this provider: literals only, no imports."""

from __future__ import annotations

from typing import Any

INTEGRATION = "Kubeflow LLM tuning"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider in the form of Airflow's ``provider_info.schema.json``."""

    def modules(kind: str, *names: str) -> list[dict[str, Any]]:
        return [
            {
                "integration-name": INTEGRATION,
                "python-modules": [f"airflow_llmtune.{kind}.{name}" for name in names],
            }
        ]

    return {
        "package-name": "airflow-provider-llmtune",
        "name": "LLM tuning on Kubeflow",
        "description": "Tune, train and deploy LLM fine-tunes on Kubeflow Katib without holding a worker slot.",
        "integrations": [
            {
                "integration-name": INTEGRATION,
                "external-doc-url": "https://www.kubeflow.org/docs/components/katib/",
                "tags": ["service"],
            }
        ],
        "operators": modules("operators", "katib", "kserve", "promotion", "sweep", "trainer"),
        "hooks": modules("hooks", "kubeflow"),
        "triggers": modules("triggers", "katib", "kserve", "trainer"),
        "config": {
            "llmtune": {
                "description": "Tuning, training and deployment of LLMs on Kubeflow.",
                "options": {
                    "site": {
                        "description": (
                            "What tells this Airflow from any other that uses the same Kubernetes namespace. It is "
                            "written on each object; SweepOrphansOperator deletes only those of its own site. "
                            "Default: `[api] base_url`."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "production",
                        "default": None,
                    },
                },
            },
        },
    }
