"""CustomResourceDefinitions: what they make, what they refuse, and what they do to the objects of their kind."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.built_in_definitions import install_definitions
from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, EXPERIMENT, Kind
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.definition import DefinitionController
from airflow_llmtune.controlplane.store import Store
from definitions import definition, version, widget
from registries import AdmitAll, refused

Object = dict[str, Any]


def define(registry: Registry, obj: Object | None = None) -> Object:
    return registry.create(CUSTOM_RESOURCE_DEFINITION, obj or definition())


def kind_of(registry: Registry, api_version: str = "example.com/v1") -> Kind:
    found = registry.kinds.find(api_version, "Widget")
    assert found is not None
    return found


def conditions(obj: Object) -> list[tuple[str, str, str]]:
    return [(one["type"], one["status"], one["reason"]) for one in obj["status"]["conditions"]]


def test_a_definition_makes_its_kind_served_at_once(registry: Registry) -> None:
    assert registry.kinds.find("example.com/v1", "Widget") is None
    made = define(registry)
    assert conditions(made) == [
        ("NamesAccepted", "True", "NoConflicts"),
        ("Established", "True", "InitialNamesAccepted"),
    ]
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["status"]["acceptedNames"]["singular"] == "widget"
    kind = kind_of(registry)
    assert registry.kinds.find_resource("example.com", "v1", "widgets") == kind
    assert (kind.namespaced, kind.short_names, kind.has_status) == (True, ("widgets-short",), True)
    assert registry.create(kind, widget(), "default")["metadata"]["generation"] == 1


def test_a_new_registry_on_the_same_store_knows_the_kinds(registry: Registry) -> None:
    define(registry)
    registry.create(kind_of(registry), widget(), "default")
    again = Registry(registry.store, AdmitAll())
    assert again.get(kind_of(again), "default", "w")["spec"]["size"] == "s"


def test_objects_are_pruned_filled_in_and_checked(registry: Registry) -> None:
    define(registry)
    kind = kind_of(registry)
    made = registry.create(kind, widget(colour="red"), "default")
    assert made["spec"] == {"size": "s", "count": 3}
    error = refused(registry.create, kind, widget("x", size="xl", count=0), "default")
    assert (error.code, error.reason) == (422, "Invalid")
    assert error.message == (
        'Widget.example.com "x" is invalid: [spec.size: Unsupported value: "xl": supported values: "s", "m", '
        "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1]"
    )
    wrong = refused(registry.patch, kind, "default", "w", MERGE, {"spec": {"count": "x"}})
    assert "spec.count in body must be of type integer" in wrong.message


def test_the_status_is_a_subresource_only_where_the_definition_says_so(registry: Registry) -> None:
    define(registry, definition(version(subresources={})))
    kind = kind_of(registry)
    made = registry.create(kind, widget() | {"status": {"phase": "x"}}, "default")
    assert made["status"] == {"phase": "x"}
    changed = registry.patch(kind, "default", "w", MERGE, {"status": {"phase": "y"}})
    assert (changed["status"], changed["metadata"]["generation"]) == ({"phase": "y"}, 2)


async def test_each_version_shows_the_same_objects_under_its_own_name(registry: Registry) -> None:
    define(registry, definition(version("v1"), version("v1alpha1", storage=False), version("v2", storage=False)))
    new, old = kind_of(registry), kind_of(registry, "example.com/v1alpha1")
    registry.create(old, widget() | {"apiVersion": "example.com/v1alpha1"}, "default")
    assert registry.get(new, "default", "w")["apiVersion"] == "example.com/v1"
    assert registry.list(old)[0][0]["apiVersion"] == "example.com/v1alpha1"
    async for event in registry.watch(new, timeout_seconds=1):
        assert event.object["apiVersion"] == "example.com/v1"
        break
    listed = [kind.version for kind in registry.kinds.all() if kind.group == "example.com"]
    assert listed == ["v2", "v1", "v1alpha1"]
    assert [kind.version for kind in registry.kinds.custom()] == ["v2"]


def test_a_version_that_is_no_longer_served_is_gone(registry: Registry) -> None:
    made = define(registry, definition(version("v1"), version("v1alpha1", storage=False)))
    made["spec"]["versions"][1]["served"] = False
    registry.update(CUSTOM_RESOURCE_DEFINITION, made)
    assert registry.kinds.find("example.com/v1alpha1", "Widget") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": "other.com"}, 'metadata.name: Invalid value: "widgets.example.com": must be spec.names.plural'),
        ({"scope": "Global"}, 'spec.scope: Unsupported value: "Global": supported values: "Cluster", "Namespaced"'),
        ({"group": 5}, "spec.group in body must be of type string"),
        ({"group": None}, "spec.group: Required value"),
        ({"versions": []}, "spec.versions in body should have at least 1 items"),
        ({"versions": ["v1"]}, "spec.versions[0]: Invalid value"),
        ({"versions": [version(), version(storage=False)]}, "must contain unique version names"),
        (
            {"versions": [version(selectableFields=[{}])]},
            "spec.versions[0].selectableFields[0].jsonPath: Required value",
        ),
        ({"versions": [version(additionalPrinterColumns=["x"])]}, "spec.versions[0].additionalPrinterColumns[0]: Inv"),
        ({"versions": [version(schema="x")]}, "spec.versions[0].schema in body must be of type object"),
        ({"names": {"plural": "widgets", "kind": "Widget", "shortNames": 5}}, "spec.names.shortNames: Invalid value"),
        ({"names": {"plural": "widgets", "kind": "A/B"}}, "spec.names.kind: Invalid value"),
        ({"conversion": "None"}, "spec.conversion in body must be of type object"),
        (
            {"versions": [version(schema={"openAPIV3Schema": {"type": "object", "minLength": "x"}})]},
            "openAPIV3Schema.minLength in body must be of type integer",
        ),
        (
            {"versions": [version(schema={"openAPIV3Schema": {"type": "object", "not": {"pattern": "("}}})]},
            'not.pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: missing )',
        ),
        (
            {
                "versions": [
                    version(schema={"openAPIV3Schema": {"type": "object", "default": {"a": 1}, "maxProperties": 0}})
                ]
            },
            "openAPIV3Schema.default: Too many: 1",
        ),
        ({"names": {"plural": "widgets"}}, "spec.names.kind: Required value"),
        ({"names": "widgets"}, "spec.names: Invalid value"),
        ({"names": {"plural": "widgets", "kind": "Widget", "singular": "A B"}}, "spec.names.singular: Invalid value"),
        ({"versions": [version(storage=False)]}, "must have exactly one version marked as storage version"),
        ({"versions": [version("V 1")]}, "spec.versions[0].name: Invalid value"),
        ({"versions": [version(schema={})]}, "openAPIV3Schema: Required value"),
        ({"versions": [version(schema={"openAPIV3Schema": {}})]}, "must be object at the root"),
        (
            {
                "versions": [
                    version(schema={"openAPIV3Schema": {"type": "object", "properties": {"a": {"pattern": 1}}}})
                ]
            },
            "spec.versions[0].schema.openAPIV3Schema.properties[a].pattern: Invalid value",
        ),
        (
            {"versions": [version(schema={"openAPIV3Schema": {"type": "object", "properties": ["a"]}})]},
            "spec.versions[0].schema.openAPIV3Schema.properties: Invalid value",
        ),
        (
            {"versions": [version(schema={"openAPIV3Schema": {"type": "object", "items": "x"}})]},
            "spec.versions[0].schema.openAPIV3Schema.items: Invalid value",
        ),
        (
            {
                "versions": [
                    version(schema={"openAPIV3Schema": {"type": "object", "additionalProperties": {"pattern": 1}}})
                ]
            },
            "spec.versions[0].schema.openAPIV3Schema.additionalProperties: Invalid value",
        ),
        (
            {"versions": [version(schema={"openAPIV3Schema": {"type": "object", "oneOf": "x", "enum": {"a": 1}}})]},
            "openAPIV3Schema.oneOf: Invalid value",
        ),
        (
            {"versions": [version(schema={"openAPIV3Schema": {"type": "object", "anyOf": [{"required": "a"}]}})]},
            "openAPIV3Schema.anyOf[0].required: Invalid value",
        ),
        ({"conversion": {"strategy": "Webhook"}}, 'spec.conversion.strategy: Unsupported value: "Webhook"'),
    ],
)
def test_a_definition_that_cannot_work_is_refused(registry: Registry, change: Object, message: str) -> None:
    obj = definition()
    obj["spec"] |= change
    error = refused(registry.create, CUSTOM_RESOURCE_DEFINITION, obj)
    assert error.code == 422
    assert message in error.message


def test_nulls_in_a_definition_count_as_absent(registry: Registry) -> None:
    schema = {"type": "object", "properties": {"size": {"type": "string", "nullable": True, "default": None}}}
    made = version(schema={"openAPIV3Schema": schema | {"minProperties": None}}, additionalPrinterColumns=None)
    stored = define(registry, definition(made))["spec"]["versions"][0]
    assert "additionalPrinterColumns" not in stored
    assert stored["schema"] == {"openAPIV3Schema": schema}


def test_nobody_but_the_server_writes_the_status_of_a_definition(registry: Registry) -> None:
    made = define(registry)
    registry.update_status(CUSTOM_RESOURCE_DEFINITION, made | {"status": {"conditions": [{"type": "Established"}]}})
    assert kind_of(registry).name == "Widget"
    assert registry.get(CUSTOM_RESOURCE_DEFINITION, None, "widgets.example.com")["status"] == made["status"]


@pytest.mark.parametrize(("field", "value"), [("scope", "Cluster"), ("names", {"plural": "widgets", "kind": "Other"})])
def test_what_makes_the_resource_cannot_be_changed(registry: Registry, field: str, value: Any) -> None:
    made = define(registry)
    made["spec"][field] = value
    assert "field is immutable" in refused(registry.update, CUSTOM_RESOURCE_DEFINITION, made).message


def test_a_kind_in_use_is_told_as_such(registry: Registry) -> None:
    define(registry)
    names = {"plural": "gadgets", "kind": "Widget", "singular": "gadget"}
    second = define(registry, definition(plural="gadgets", names=names))
    assert conditions(second)[0] == ("NamesAccepted", "False", "KindConflict")


def test_a_group_needs_a_domain(registry: Registry) -> None:
    obj = definition(group="example")
    obj["metadata"]["name"] = "widgets.example"
    assert "should be a domain" in refused(registry.create, CUSTOM_RESOURCE_DEFINITION, obj).message


def test_names_in_use_keep_a_second_definition_from_being_served(registry: Registry) -> None:
    define(registry)
    second = definition(plural="gadgets")
    assert conditions(define(registry, second)) == [
        ("NamesAccepted", "False", "NameConflict"),
        ("Established", "False", "NotAccepted"),
    ]
    assert registry.kinds.find_resource("example.com", "v1", "gadgets") is None


async def test_deleting_a_definition_deletes_its_objects_first(registry: Registry) -> None:
    define(registry)
    kind = kind_of(registry)
    registry.create(kind, widget() | {"metadata": {"name": "held", "finalizers": ["a/b"]}}, "default")
    registry.create(kind, widget("free"), "default")
    controller = DefinitionController(registry)
    assert await controller.reconcile("", "widgets.example.com") is None
    registry.delete(CUSTOM_RESOURCE_DEFINITION, None, "widgets.example.com")
    assert await controller.reconcile("", "widgets.example.com") is not None
    assert [entry.key[1] for entry in registry.entries(kind)] == ["held"]
    error = refused(registry.create, kind, widget("late"), "default")
    assert (error.code, error.message) == (405, "create not allowed while custom resource definition is terminating")
    registry.patch(kind, "default", "held", MERGE, {"metadata": {"finalizers": None}})
    assert await controller.reconcile("", "widgets.example.com") is None
    assert registry.find(CUSTOM_RESOURCE_DEFINITION, None, "widgets.example.com") is None
    assert registry.kinds.find("example.com/v1", "Widget") is None
    assert await controller.reconcile("", "widgets.example.com") is None


async def test_watches_of_a_kind_end_with_its_definition(registry: Registry) -> None:
    define(registry)
    kind = kind_of(registry)
    watch = registry.watch(kind, resource_version=registry.resource_version)
    other = registry.watch(EXPERIMENT, resource_version=registry.resource_version, timeout_seconds=0.05)
    registry.delete(CUSTOM_RESOURCE_DEFINITION, None, "widgets.example.com")
    await DefinitionController(registry).reconcile("", "widgets.example.com")
    assert [event.type async for event in watch] == []
    registry.create(EXPERIMENT, {"metadata": {"name": "x"}}, "default")
    assert [event.type async for event in other] == ["ADDED"]


def test_the_definitions_of_built_in_kinds_are_shown_and_fixed(registry: Registry) -> None:
    install_definitions(registry)
    install_definitions(registry)
    name = "experiments.kubeflow.org"
    shown = registry.get(CUSTOM_RESOURCE_DEFINITION, None, name)
    assert ("Established", "True", "InitialNamesAccepted") in conditions(shown)
    error = refused(registry.delete, CUSTOM_RESOURCE_DEFINITION, None, name)
    assert (error.code, error.reason) == (403, "Forbidden")
    assert "this control plane serves the resource itself" in error.message
    shown["spec"]["scope"] = "Cluster"
    assert refused(registry.update, CUSTOM_RESOURCE_DEFINITION, shown).code == 403
    labelled = registry.patch(CUSTOM_RESOURCE_DEFINITION, None, name, MERGE, {"metadata": {"labels": {"a": "b"}}})
    assert labelled["metadata"]["labels"] == {"a": "b"}
    assert registry.kinds.find("kubeflow.org/v1beta1", "Experiment") is EXPERIMENT


def test_a_deprecated_version_carries_its_warning(registry: Registry) -> None:
    define(registry, definition(version(deprecated=True)))
    found = registry.kinds.version(kind_of(registry))
    assert found is not None
    assert found.warning == "example.com/v1 Widget is deprecated"


def test_a_catalog_of_an_empty_store_has_the_built_in_kinds_only() -> None:
    registry = Registry(Store(), AdmitAll())
    assert registry.kinds.custom() == ()
    assert registry.kinds.version(EXPERIMENT) is None
