"""Writes ``docs/reference/compatibility.md``: what the control plane serves, refuses and does in another way.

What can be asked is asked of a running control plane (discovery, admission in a dry run, the algorithms' own checks).
What only a person can know, the reasons, stands in ``compatibility.txt``, a line each: ``area | what | status | why``.
A line about something that is not there and something served without a line are both errors.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.algorithms.catalog import ALGORITHM_NAMES, EARLY_STOPPING_NAMES
from airflow_llmtune.controlplane.deviations import DEVIATIONS
from docs.algorithm_settings import Setting, refused_requests, settings_of
from docs.compatibility_fields import FIELD_KINDS, field_rows, split_field_note, unknown_field
from docs.compatibility_notes import Note, Notes, NotesError, read_notes
from docs.compatibility_probes import Resource, Session, Verdict, Verdicts
from docs.markdown import table

HERE = Path(__file__).parent
PAGE = HERE / "reference" / "compatibility.md"
NOTES = HERE / "compatibility.txt"

_INTRODUCTION = """\
# What the embedded control plane can do

It speaks the Kubernetes API over HTTPS on loopback; requests need the token of its kubeconfig. `kubectl`, the Python
`kubernetes` client, `kubernetes_asyncio`, Katib's SDK (`kubeflow-katib` 0.19) and Kubeflow's (`kubeflow` 0.5) are in
its tests. What is not listed as differing or refused is as in Kubernetes 1.34, Katib 0.19, Training Operator 1.9 and
Trainer 2.3. `make docs` writes this page from the code and `docs/compatibility.txt`."""

_ABOUT_FIELDS = """\
What is known below `spec`; `[]` is each item of a list, `{}` each value of a map. Any other field is dropped, but for
those of Trials and Suggestions, and for those of the pods of a PyTorchJob, a JobSet or a runtime until there are such
pods. A ClusterTrainingRuntime is as a TrainingRuntime."""


def page() -> str:
    """The page's text; raises NotesError when the notes and the code disagree."""
    notes = read_notes(NOTES.read_text())
    with tempfile.TemporaryDirectory() as folder, ControlPlane(state_dir=Path(folder)) as plane:
        session = Session(plane)
        sections = [
            _INTRODUCTION,
            *_api(session.resources(), notes),
            *_experiments(session, notes),
            *_fields(notes),
            *_algorithms(session, notes),
            *_collectors(session, notes),
            *_conditions(notes),
            *_differences(notes),
            *_faults(),
        ]
    notes.check_all_used()
    return "\n\n".join(sections) + "\n"


def _api(resources: Sequence[Resource], notes: Notes) -> list[str]:
    notes.check_names("kind", [each.kind for each in resources])
    usual = max(resources, key=lambda each: len(each.verbs)).verbs
    rows = []
    for each in resources:
        note = notes.one("kind", each.kind)
        rows.append(
            [
                each.kind,
                f"`{each.api_version}`",
                _words(each.subresources),
                "all" if each.verbs == usual else _words(each.verbs),
                _told(note),
            ]
        )
    return [
        "## API",
        f"All verbs are {_words(usual)}.",
        table(["kind", "API version", "subresources", "verbs", "what happens with it"], rows),
        table(["request", "status", "how"], notes.rows("request")),
    ]


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _experiments(session: Session, notes: Notes) -> list[str]:
    words = {
        "parameterType": session.parameter_types(),
        "distribution": session.distributions(),
        "resumePolicy": session.resume_policies(),
    }
    answers = [
        [f"`{name}`", _words(word for word, verdict in found if verdict.accepted), _refusals(found)]
        for name, found in words.items()
    ]
    kinds = session.trial_kinds()
    notes.check_names("trial kind", [word for word, _ in kinds])
    return [
        "## Experiment",
        table(["word", "accepted", "refused"], answers),
        "### Kinds of trials",
        table(
            ["kind of `trialSpec`", "admission without conditions given", "then"],
            [[f"`{word}`", _answer(verdict), _told(notes.one("trial kind", word))] for word, verdict in kinds],
        ),
    ]


def _refusals(verdicts: Verdicts) -> str:
    return "; ".join(f"`{word}`: {verdict.text}" for word, verdict in verdicts if not verdict.accepted)


def _fields(notes: Notes) -> list[str]:
    told = []
    for note in notes.all("field"):
        kind, paths = split_field_note(note)
        wrong = unknown_field(kind, paths)
        if wrong:
            raise NotesError(f"field {note.what}: {wrong}")
        told.append([kind, _words(paths), note.status, note.why])
    rows = [
        [kind, f"`{path}`", found if isinstance(found, str) else _words(found)]
        for kind in FIELD_KINDS
        for path, found in field_rows(kind)
    ]
    return [
        "## Fields",
        _ABOUT_FIELDS,
        table(["kind", "object", "fields"], rows),
        "What is refused, has no effect or is else to be known:",
        table(["kind", "fields", "status", "how"], told),
    ]


def _algorithms(session: Session, notes: Notes) -> list[str]:
    served = [*ALGORITHM_NAMES, *EARLY_STOPPING_NAMES]
    refused = [(word, verdict) for word, verdict in session.algorithms() if not verdict.accepted]
    notes.check_names("algorithm", [*served, *(word for word, _ in refused)])
    told = [notes.one("algorithm", name) for name in served]
    rows = [[f"`{note.what}`", note.status, note.why] for note in told]
    rows += [[f"`{word}`", "refused", verdict.text] for word, verdict in refused]
    for word, _ in refused:
        notes.one("algorithm", word)
    settings = [[f"`{name}`", f"`{each.name}`", *_rules(each)] for name in served for each in settings_of(name)]
    requests = [
        [f"`{name}`", f"{each.what}{' (unless strict)' if each.is_taken_when_strict else ''}", each.refusal]
        for name in served
        for each in refused_requests(name)
    ]
    return [
        "## Algorithms",
        table(["algorithm", "status", "how"], rows),
        "### Settings",
        "With what is said to a value that will not do, and when a setting is missing that is required.",
        table(["algorithm", "setting", "example, refusal", "without it"], settings),
        "What else an algorithm refuses.",
        table(["algorithm", "request", "refusal"], requests),
    ]


def _rules(setting: Setting) -> list[str]:
    refused = f"; `{setting.bad}`: {setting.refusal}" if setting.bad else ""
    return [f"`{setting.good}`{refused}", setting.missing]


def _collectors(session: Session, notes: Notes) -> list[str]:
    found = session.collectors()
    notes.check_names("collector", [word for word, _ in found])
    rows = []
    for word, verdict in found:
        note = notes.one("collector", word)
        rows.append([f"`{word}`", note.status, note.why])
        if verdict.accepted == (note.status == "refused"):
            raise NotesError(f"collector {word}: its line says {note.status}, admission says {_answer(verdict)}")
    return ["## Metrics collectors", table(["collector", "status", "how"], rows)]


def _conditions(notes: Notes) -> list[str]:
    source = "\n".join(path.read_text() for path in sorted((HERE.parent / "airflow_llmtune").rglob("*.py")))
    rows = []
    for note in notes.all("condition"):
        kind, type_, reason = note.what.split(maxsplit=2)
        for word in (type_, reason):
            # Some reasons are put together from the kind's name.
            if word not in source and word.removeprefix(kind) not in source:
                raise NotesError(f"condition {note.what}: {word} is not in the code")
        rows.append([kind, type_, f"`{reason}`", _told(note)])
    return ["## Conditions", table(["kind", "type", "reason", "when"], rows)]


def _differences(notes: Notes) -> list[str]:
    rows = [[note.area, note.what, note.status, note.why] for note in notes.others()]
    return ["## Differences", table(["part", "what", "status", "how and why"], rows)]


def _faults() -> list[str]:
    rows = [[f"`{each.id}`", each.katib, each.default] for each in DEVIATIONS]
    return [
        "## Katib's faults",
        "Repaired, unless the control plane is told to be `strict` (`ControlPlane(strict=True)`, `--strict`).",
        table(["fault", "Katib, and `strict`", "here"], rows),
    ]


def _told(note: Note) -> str:
    return note.why if note.status == "supported" else f"{note.status}: {note.why}"


def _answer(verdict: Verdict) -> str:
    return "accepted" if verdict.accepted else f"refused: {verdict.text}"


def main() -> int:
    try:
        text = page()
    except NotesError as error:
        sys.stderr.write(f"{NOTES.relative_to(HERE.parent)}: {error}\n")
        return 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
