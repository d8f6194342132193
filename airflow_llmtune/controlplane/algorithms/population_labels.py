"""How a trial of ``pbt`` says where it comes from."""

from __future__ import annotations

GENERATION_LABEL = "pbt.suggestion.katib.kubeflow.org/generation"
PARENT_LABEL = "pbt.suggestion.katib.kubeflow.org/parent"
