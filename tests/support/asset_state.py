"""The state of assets and the events of outlets, in memory; values go through JSON as on their way to Airflow."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from airflow.sdk.execution_time.context import OutletEventAccessors

from task_run import Run


class MemoryState:
    """What Airflow's `asset_state_store` does, for one asset."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value, allow_nan=False)


class AssetStates:
    """One store for every asset, by name."""

    def __init__(self) -> None:
        self._states: defaultdict[str, MemoryState] = defaultdict(MemoryState)

    def __getitem__(self, asset: Any) -> MemoryState:
        return self._states[asset.name]


class AssetRun(Run):
    """A task instance whose context has asset states, outlet events and XCom."""

    def __init__(self, states: AssetStates, **settings: Any) -> None:
        super().__init__(**settings)
        self.states = states
        self.outlet_events = OutletEventAccessors()

    def context(self) -> dict[str, Any]:
        context = super().context()
        self.outlet_events = OutletEventAccessors()
        return {**context, "asset_state_store": self.states, "outlet_events": self.outlet_events}
