"""Writes ``docs/reference/outcomes.md``: what each event does to the Experiment, the task and its XCom.

The rows are the cases of ``tests/chaos``, which makes all of them happen; the exceptions come from the code. Only what
a retry is good for is written here, a line for each exception: one too many or too few is an error.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from airflow_llmtune import exceptions
from airflow_llmtune.operators.katib import KatibExperimentOperator
from docs.markdown import table
from tests.chaos.cases import FAULTS, KILLS, PHASES, Kill, Outcome
from tests.chaos.event import Event
from tests.chaos.event_cases import EVENTS

HERE = Path(__file__).parent
PAGE = HERE / "reference" / "outcomes.md"
EXAMPLE = HERE.parent / "tests" / "chaos" / "retry_policy.py"

_INTRODUCTION = """\
# What becomes of a tuning

Whatever dies, is cleared, is killed or times out: the task delivers its result once, no second Experiment is paid for
without need, and nothing is left running. `make chaos` makes each row happen on a real Airflow with two triggerers, and
counts; [the last runs](chaos.md). `make docs` writes this page from the same definitions.

"Goes on" and "kept" are said of the Experiment that was there. A new try needs `retries`. Training jobs behave
likewise, with the arguments that they have."""

_ABOUT_TABLE = """\
First the processes: each is killed, stopped for 40 seconds and continued, and restarted, in the phases of a task's life
in brackets. Then whatever else happens to a task; where an argument decides, its value stands beside it, in **bold** if
it is the default."""

_ABOUT_GAPS = """\
The last try deletes what runs when it fails, unless `on_kill_action="keep"`. Four gaps are Airflow's own:

* A task that is ended in the second or two between its deferral and the start of its trigger is told to nobody: its
  Experiment runs on to its own end, unless `dags/sweep_orphans.py` finds it before.
* Where a wait is that short, the scheduler may hear of its end before it hears that the worker is done, and takes the
  task for lost; a new try returns the result. While the api-server is away, each worker that cannot reach it costs a
  try. So every task that waits should have `retries`, and these with their delay should last longer than an outage.
* A task that is cleared while it waits deletes its Experiment when its next try starts; until then it runs on.
* A task that is cleared in the seconds in which its worker reads a finished Experiment returns that result again."""

_ABOUT_EXCEPTIONS = """\
All are in `airflow_llmtune.exceptions`, indented below what they derive from."""

_ABOUT_POLICY = """\
A failed try is repeated as often as `retries` says. A `retry_policy` can tell the failures apart:"""

# What comes of the next try after each exception.
RETRIES = {
    "LLMTuneError": "",
    "InvalidSpecError": "none takes place: it arrives as `AirflowFailException`",
    "OwnershipError": "",
    "ForeignObjectError": "fails as well, until the other object is gone",
    "StaleObjectError": "fails as well, until the object has ended or the arguments are as before",
    "SupersededError": "is under way already",
    "KubernetesApiError": "adopts what runs",
    "PermissionDeniedError": "fails as well, until the verb is granted",
    "OutcomeError": "starts another Experiment",
    "DeploymentFailedError": "deploys again",
    "ExperimentFailedError": "starts another Experiment",
    "TrainingFailedError": "starts another job, which goes on from its last checkpoint",
    "SourceVersionError": "helps if the source could not be reached",
    "WaitTimeoutError": "starts another Experiment after `execution_timeout`; none takes place after `timeout`",
    "StalledError": "starts another Experiment",
    "CannotStartError": "starts another Experiment",
}


class PageError(Exception):
    """The definitions and the code disagree."""


def page() -> str:
    """The page's text; raises PageError when an exception has no line, or a line no exception."""
    head = ["what happens", "argument", "Experiment", "task", "XCom"]
    return (
        "\n\n".join(
            [
                _INTRODUCTION,
                "## Events",
                _ABOUT_TABLE,
                table(head, [*_process_rows(KILLS), *_event_rows(EVENTS)]),
                _ABOUT_GAPS,
                "## Exceptions",
                _ABOUT_EXCEPTIONS,
                table(["exception", "what has happened", "another try"], _exception_rows()),
                "## Which failures are worth another try",
                _ABOUT_POLICY,
                f"```python\n{_example()}\n```",
            ]
        )
        + "\n"
    )


def _process_rows(kills: Iterable[Kill]) -> list[list[str]]:
    """One row for all kills that have the same outcome."""
    alike: dict[Outcome, list[Kill]] = {}
    for kill in kills:
        alike.setdefault(kill.outcome, []).append(kill)
    return [[_killed(group), "", outcome.experiment, outcome.task, outcome.xcom] for outcome, group in alike.items()]


def _killed(kills: Iterable[Kill]) -> str:
    """Name each target with its phases, and with its faults where they are not all; those that are alike as one."""
    targets: dict[str, list[str]] = {}
    for target, group in groupby(kills, key=lambda kill: kill.target):
        own = list(group)
        faults = [fault for fault in FAULTS if any(kill.fault == fault for kill in own)]
        phases = [phase for phase in PHASES if any(kill.phase == phase for kill in own)]
        words = [*(["at any time"] if len(phases) == len(PHASES) else phases)]
        words += [] if len(faults) == len(FAULTS) else faults
        targets.setdefault(", ".join(words), []).append(target)
    return "; ".join(f"{', '.join(names)} ({how})" for how, names in targets.items())


def _event_rows(events: Iterable[Event]) -> list[list[str]]:
    """One row for all events that are told in the same words; the values of their arguments stand side by side."""
    alike: dict[tuple[str, Outcome], list[str]] = {}
    for event in events:
        alike.setdefault((event.what, event.outcome), []).append(_arguments(event))
    return [
        [what, " or ".join(filter(None, arguments)), outcome.experiment, outcome.task, outcome.xcom]
        for (what, outcome), arguments in alike.items()
    ]


def _arguments(event: Event) -> str:
    given = {**event.arguments, **({"retry_policy": timedelta()} if event.has_retry_policy else {})}
    return ", ".join(_argument(name, value) for name, value in given.items())


def _argument(name: str, value: Any) -> str:
    if isinstance(value, timedelta | float):
        return f"`{name}`"  # Any value will do.
    text = f'`{name}="{value}"`' if isinstance(value, str) else f"`{name}={value}`"
    return f"**{text}**" if _defaults().get(name) == value else text


@cache
def _defaults() -> dict[str, Any]:
    makers = [vars(base).get("__init__") for base in reversed(KatibExperimentOperator.__mro__[:-1])]
    found = [item for maker in filter(None, makers) for item in inspect.signature(maker).parameters.values()]
    return {item.name: item.default for item in found}


def _exception_rows() -> list[list[str]]:
    found = {name: getattr(exceptions, name) for name in exceptions.__all__}
    classes = [each for each in found.values() if inspect.isclass(each) and issubclass(each, Exception)]
    if wrong := {each.__name__ for each in classes} ^ RETRIES.keys():
        raise PageError(f"exceptions, or lines about them, that nobody told of: {sorted(wrong)}")
    return [[_indented(each), _first_line(each), RETRIES[each.__name__]] for each in _tree(exceptions.LLMTuneError)]


def _tree(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(each for child in root.__subclasses__() for each in _tree(child))]


def _indented(error: type[Exception]) -> str:
    depth = error.__mro__.index(exceptions.LLMTuneError)
    return f"{'&emsp;' * depth}`{error.__name__}`"


def _first_line(error: type[Exception]) -> str:
    text = inspect.getdoc(error) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("``", "`")


def _example() -> str:
    """Return the tested file, without its first line, which is about this page."""
    return EXAMPLE.read_text().partition('"""\n\n')[2].rstrip()


def main() -> int:
    try:
        text = page()
    except PageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
