"""The page of what is served is made from the code, and says something about all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_llmtune.controlplane import algorithms
from docs.compatibility_fields import FIELD_KINDS, field_rows, split_field_note, unknown_field
from docs.compatibility_notes import NotesError, read_notes
from docs.generate_compatibility import PAGE, page

LINE = "kind | Pod | supported | its containers are processes"


def test_the_page_is_what_make_docs_writes():
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_setting_that_an_algorithm_reads_is_on_the_page():
    """Read from the code by its usual forms: ``settings["x"]``, ``settings.get("x")``, ``"x": (rule, text)``."""
    forms = (r'settings(?:\.get\(|\[)"(\w+)"', r'^    "(\w+)": (?:\(|_one_of|RANDOM_STATE)', r'\{"(\w+)": RANDOM_STATE')
    source = "\n".join(path.read_text() for path in Path(algorithms.__file__).parent.glob("*.py"))
    found = {name for form in forms for name in re.findall(form, source, re.MULTILINE)}
    assert {"random_state", "gamma", "acq_func", "r_l", "n_population", "start_step"} <= found
    text = PAGE.read_text()
    assert [name for name in sorted(found) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("kind | Pod | supported", "line 1 is not"),
        ("kind | Pod | maybe | why", "line 1: status 'maybe'"),
    ],
)
def test_a_malformed_line_is_told(line, complaint):
    with pytest.raises(NotesError, match=complaint):
        read_notes(line)


def test_a_line_about_something_that_is_not_served_is_told():
    with pytest.raises(NotesError, match="kind Pod: the control plane knows none"):
        read_notes(LINE).check_names("kind", ["Job"])


@pytest.mark.parametrize("text", ["", f"{LINE}\n{LINE}"])
def test_something_served_needs_exactly_one_line(text):
    with pytest.raises(NotesError, match="kind Pod needs exactly one line"):
        read_notes(text).one("kind", "Pod")


def test_a_line_that_no_section_takes_is_told():
    with pytest.raises(NotesError, match="no section takes this line"):
        read_notes(LINE).check_all_used()


def test_a_reason_may_have_bars_in_it():
    assert read_notes("Pods | x | differing | a | b").others()[0].why == "a | b"


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("Pod spec.priority, spec.containers[].env[].value", ""),
        ("Pod spec.priority, spec.prioritys", "a Pod has no field spec.prioritys"),
        ("JobSet spec.replicatedJobs[].template.spec.suspend", "a JobSet has no field"),
        ("Lease spec.a", "no fields of a Lease are listed"),
    ],
)
def test_a_note_is_about_fields_that_are_there(what, complaint):
    (note,) = read_notes(f"field | {what} | differing | why").lines
    assert unknown_field(*split_field_note(note)).startswith(complaint)
    assert bool(unknown_field(*split_field_note(note))) == bool(complaint)


@pytest.mark.parametrize("kind", FIELD_KINDS)
def test_fields_are_listed_once(kind):
    rows = list(field_rows(kind))
    assert rows[0][0] == "spec"
    assert len({path for path, _ in rows}) == len(rows)
