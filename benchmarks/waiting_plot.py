"""How each waiter's costs grow with the number of waits, as an SVG that is the same for the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which those with any colour blindness tell apart; markers differ as well.
_STYLES = {
    "shared_watch": ("#D55E00", "o"),
    "own_watch": ("#0072B2", "s"),
    "job_poll": ("#009E73", "^"),
    "katib_client": ("#CC79A7", "D"),
    "airflow_alone": ("#7F7F7F", "x"),
}
_PANELS = (
    ("requests_per_minute", "API requests a minute", 0.1),
    ("cpu_s_per_minute", "CPU seconds a minute", 0.1),
    ("memory_mb", "memory, MB beyond one wait", 0.1),
)
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "llmtune",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(costs: Mapping[str, Mapping[int, Mapping[str, float]]], titles: Mapping[str, str], path: Path) -> None:
    """``costs`` of each waiter by the number of waits: ``requests_per_minute`` and the other panels' names."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        for axes, (cost, label, least) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
            _panel(axes, costs, cost, least)
            axes.set_title(label, loc="left", fontsize=9)
        handles, keys = axes.get_legend_handles_labels()
        figure.legend(handles, [titles[key] for key in keys], loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _panel(axes: Axes, costs: Mapping[str, Mapping[int, Mapping[str, float]]], cost: str, least: float) -> None:
    """What is below ``least``, such as none, is drawn there, since a logarithmic axis has no zero."""
    axes.set(xscale="log", yscale="log", xlabel="waits")
    axes.grid(visible=True, which="major", color="#E0E0E0", linewidth=0.6)
    for key, (colour, marker) in _STYLES.items():
        rows = costs.get(key, {})
        points = {count: max(row[cost], least) for count, row in sorted(rows.items()) if cost in row}
        width = 2.2 if key == "shared_watch" else 1.2
        axes.plot(
            list(points), list(points.values()), color=colour, marker=marker, markersize=4.5, linewidth=width, label=key
        )
    counts = sorted({count for rows in costs.values() for count in rows})
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()


def costs_of(rows: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, dict[int, dict[str, float]]]:
    """What the panels show, of all runs that came so far."""
    return {
        key: {count: _costs(row["idle"]) for count, row in by_count.items() if "idle" in row}
        for key, by_count in rows.items()
    }


def _costs(idle: Mapping[str, Any]) -> dict[str, float]:
    return {
        "requests_per_minute": idle["requests_per_minute"] + idle.get("renewals_per_minute", 0.0),
        "cpu_s_per_minute": idle["cpu_s_per_minute"],
        "memory_mb": idle["memory_mb"],
    }
