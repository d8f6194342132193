"""Fields as sets of paths: what holds for any object."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.apiserver.field_sets import (
    decoded,
    encoded,
    fields_of,
    is_key,
    merge,
    remove,
    shown,
)
from airflow_llmtune.controlplane.apiserver.server_side_apply import Change, apply
from airflow_llmtune.controlplane.apiserver.shapes import Shape

Object = dict[str, Any]

NAMES = st.sampled_from(["a", "b", "c.d/e"])
VALUES = st.one_of(st.text(max_size=2), st.integers(0, 3), st.booleans(), st.lists(st.integers(0, 3), max_size=2))
ENV = st.lists(st.fixed_dictionaries({"name": NAMES}, optional={"value": VALUES}), unique_by=lambda one: one["name"])
TREES = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=3),
    lambda below: st.dictionaries(NAMES, st.one_of(VALUES, below), max_size=3),
    max_leaves=6,
)
OBJECTS = st.fixed_dictionaries({}, optional={"data": TREES, "env": ENV})
SHAPE = Shape()


def applied_by(manager: str, live: Object, wanted: Object, *, force: bool = False) -> Object:
    change = Change(manager, "v1", "", "2026-11-22T09:00:00Z", has_status=True)
    return apply(live, copy.deepcopy(wanted), SHAPE, change, force=force)


def empty() -> Object:
    return {"metadata": {"managedFields": [{"manager": "other", "operation": "Update", "fieldsV1": {}}]}}


def content(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name != "metadata"}


@settings(deadline=None, derandomize=True, database=None)
@given(OBJECTS)
def test_a_set_is_the_same_after_it_was_written_and_read(obj: Object) -> None:
    paths = {path for path, _ in fields_of(obj, SHAPE)}
    assert set(decoded(encoded(paths))) == paths


@settings(deadline=None, derandomize=True, database=None)
@given(OBJECTS, OBJECTS)
def test_a_merge_has_all_that_was_applied_and_repeats_to_the_same(live: Object, wanted: Object) -> None:
    merged = merge(live, wanted, SHAPE)
    found = dict(fields_of(merged, SHAPE))
    assert all(found[path] == value for path, value in fields_of(wanted, SHAPE) if value not in ({}, []))
    assert merge(merged, wanted, SHAPE) == merged


@settings(deadline=None, derandomize=True, database=None)
@given(OBJECTS)
def test_a_field_that_was_removed_is_gone_and_no_other(obj: Object) -> None:
    for path, _ in fields_of(obj, SHAPE):
        left = copy.deepcopy(obj)
        remove(left, path, SHAPE)
        remove(left, path, SHAPE)
        if not is_key(path):
            assert path not in {found for found, _ in fields_of(left, SHAPE)}


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(OBJECTS, OBJECTS)
def test_the_only_manager_gets_exactly_what_it_applies_last(first: Object, second: Object) -> None:
    obj = applied_by("one", empty(), first)
    again = applied_by("one", obj, second)
    wanted = {path: value for path, value in fields_of(second, SHAPE) if value not in ({}, [])}
    found = {path: value for path, value in fields_of(content(again), SHAPE) if value not in ({}, [])}
    assert found == wanted
    if wanted:
        assert applied_by("one", again, second) == again


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(OBJECTS, OBJECTS)
def test_whoever_forces_wins_and_nobody_owns_what_is_not_there(first: Object, second: Object) -> None:
    obj = applied_by("two", applied_by("one", empty(), first), second, force=True)
    found = dict(fields_of(content(obj), SHAPE))
    assert all(found[path] == value for path, value in fields_of(second, SHAPE) if value not in ({}, []))
    left = applied_by("one", obj, {})
    assert dict(fields_of(content(left), SHAPE)).keys() >= {
        path for path, value in fields_of(second, SHAPE) if value not in ({}, [])
    }


def test_paths_are_shown_as_people_write_them() -> None:
    obj = {"env": [{"name": "A", "value": "1"}], "metadata": {"finalizers": ["x"]}}
    assert sorted(shown(path) for path, _ in fields_of(obj, SHAPE)) == [
        '.env[name="A"]',
        '.env[name="A"].name',
        '.env[name="A"].value',
        '.metadata.finalizers[="x"]',
    ]
