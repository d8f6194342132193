"""Requests that are too much for a server, and answers that take it a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from definitions import WIDGETS, definition, version, widget
from objects import CONFIG_MAPS, EXPERIMENTS

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

Served = Any  # the fixture's type lives in conftest, which cannot be imported


@pytest.mark.parametrize("depth", [150, 900, 5000])
def test_a_deeply_nested_object_is_stored_or_refused_but_no_fault(served: Served, depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    body = '{"apiVersion":"kubeflow.org/v1beta1","kind":"Experiment","metadata":{"name":"x"},"spec":' + nested + "}"
    created = served.http.post(EXPERIMENTS, content=body, headers={"content-type": "application/json"})
    assert created.status_code == (201 if depth == 150 else 400), created.text
    headers = {"content-type": "application/apply-patch+yaml"}
    applied = served.http.patch(f"{EXPERIMENTS}/x?fieldManager=m", content=body, headers=headers)
    assert applied.status_code == (200 if depth == 150 else 400), applied.text


def test_a_bomb_of_yaml_aliases_is_refused(served: Served) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    headers = {"content-type": "application/yaml"}
    answer = served.http.post(CONFIG_MAPS, content="\n".join(lines), headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert "aliases are not supported" in answer.json()["message"]


def test_a_refusal_may_quote_what_is_no_text(served: Served) -> None:
    body = '{"metadata":{"name":"\\ud800"}}'
    answer = served.http.post(CONFIG_MAPS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    patched = served.http.patch(
        "/api/v1/namespaces/default", content=body, headers={"content-type": "application/merge-patch+json"}
    )
    assert (patched.status_code, patched.json()["reason"]) == (400, "BadRequest")


def test_a_client_that_breaks_off_is_no_fault(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    def broken_off() -> Iterator[bytes]:
        yield b'{"meta'
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        served.http.post(CONFIG_MAPS, content=broken_off(), headers={"content-type": "application/json"})
    served.http.get(CONFIG_MAPS).raise_for_status()
    assert caplog.records == []


def test_a_limit_beyond_all_bounds_is_a_bad_request(served: Served) -> None:
    assert served.http.get(f"{CONFIG_MAPS}?limit=99999999999999999999").status_code == 400


def test_a_null_in_the_metadata_of_a_replacement_is_an_absent_field(served: Served) -> None:
    served.create_config_map("c")
    body = {"metadata": {"name": None, "namespace": None}, "data": {"a": "b"}}
    assert served.http.put(f"{CONFIG_MAPS}/c", json=body).json()["data"] == {"a": "b"}


def test_long_tables_and_large_deletions_are_answered_in_full(served: Served) -> None:
    def fill() -> None:
        for index in range(300):
            obj = {"metadata": {"name": f"c{index:03}"}}
            served.registry.create(served.registry.kinds.find("v1", "ConfigMap"), obj, "default")

    served.thread.call(fill)
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    rows = served.http.get(CONFIG_MAPS, headers={"accept": accept}).json()["rows"]
    assert [rows[0]["cells"][0], rows[-1]["cells"][0], len(rows)] == ["c000", "c299", 300]
    named = served.http.get(f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc007&limit=1").json()
    assert [item["metadata"]["name"] for item in named["items"]] == ["c007"]
    assert served.http.get(f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Dnone").json()["items"] == []
    assert len(served.http.delete(CONFIG_MAPS).json()["items"]) == 300
    assert served.http.get(CONFIG_MAPS).json()["items"] == []


def test_a_deletion_of_many_may_be_refused(served: Served) -> None:
    served.create_config_map("c")
    answer = served.http.request("DELETE", CONFIG_MAPS, json={"preconditions": {"uid": "other"}})
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")


def test_warnings_come_as_headers_and_refusals_as_400(served: Served) -> None:
    old = version("v1beta1", storage=False, deprecated=True, deprecationWarning='use "v1"')
    served.http.post(DEFINITIONS, json=definition(version(), old)).raise_for_status()
    widgets = WIDGETS.replace("/v1/", "/v1beta1/")
    body = widget(colour="red") | {"apiVersion": "example.com/v1beta1"}
    warned = served.http.post(widgets, json=body)
    assert warned.headers.get_list("warning") == [r'299 - "use \"v1\""', r'299 - "unknown field \"spec.colour\""']
    assert warned.json()["spec"] == {"size": "s", "count": 3}
    silent = served.http.put(
        f"{WIDGETS}/w?fieldValidation=Ignore", json=warned.json() | {"apiVersion": "example.com/v1"}
    )
    assert (silent.status_code, "warning" in silent.headers) == (200, False)
    assert served.http.post(f"{WIDGETS}?fieldValidation=Strict", json=widget("x", colour="red")).status_code == 400


def test_a_warning_that_no_header_can_hold_is_left_out(served: Served) -> None:
    served.http.post(DEFINITIONS, json=definition()).raise_for_status()
    answer = served.http.post(WIDGETS, json=widget(**{"a\nb": 1, "色": 1}))
    assert answer.status_code == 201
    (warning,) = (value for name, value in answer.headers.raw if name.lower() == b"warning")
    assert warning.decode() == r'299 - "unknown field \"spec.色\""'


def test_reviews_are_made_by_posting_them_and_health_needs_no_token(served: Served) -> None:
    url = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    made = served.http.post(url, json={"spec": {"resourceAttributes": {"verb": "get"}}})
    assert (made.status_code, made.json()["status"]["allowed"]) == (201, True)
    assert served.http.get(url).status_code == 405
    assert served.http.head("/readyz", headers={"authorization": ""}).status_code == 200
    assert served.http.post("/apis").status_code == 405
    aggregated = {"accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    answer = served.http.get("/apis", headers=aggregated)
    assert (answer.json()["kind"], answer.headers["content-type"]) == ("APIGroupDiscoveryList", aggregated["accept"])
