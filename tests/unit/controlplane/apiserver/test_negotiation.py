"""Bodies: what is read, and what must not take the server down."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.negotiation import Body, accepts_aggregated_discovery, received

YAML = "application/yaml"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"a: 1", {"a": 1}),
        (b'{"a": 1}', {"a": 1}),
        (b"{a: 1}", {"a": 1}),
        (b"when: 2026-11-22", {"when": "2026-11-22"}),
        (b"glob: 'a*b'", {"glob": "a*b"}),
        (b"1: {true: x}", {"1": {"true": "x"}}),
        (b"a:\n" + b"".join(b"- n%d: 1\n" % index for index in range(1000)), None),
    ],
)
async def test_yaml_is_read_as_json_knows_it(raw: bytes, value: Any) -> None:
    parsed = (await received(raw, YAML)).value()
    assert parsed == value or (value is None and len(parsed["a"]) == 1000)


@pytest.mark.parametrize(
    "raw",
    [
        b"a: [",
        b"a: &x [1]\nb: *x",
        b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]",
        b"!!python/object:os.system {}",
        b"{" + b"{a: " * 2000,
        b"[" * 100_000,
        b"- " * 100_000,
        b"a: !!set {x}",
        b"a: .nan",
    ],
)
async def test_yaml_that_is_broken_or_grows_when_read_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError) as raised:
        await received(raw, YAML)
    assert raised.value.code == 400


@pytest.mark.parametrize(
    ("raw", "header", "code"),
    [(b"{", "", 400), (b'{"a": NaN}', "application/json", 400), (b"[]", "", 400), (b"{}", "text/plain", 415)],
)
def test_json_that_is_none_is_refused(raw: bytes, header: str, code: int) -> None:
    with pytest.raises(ApiError) as raised:
        Body(raw, header).object()
    assert raised.value.code == code


def test_the_options_of_a_delete_may_be_missing() -> None:
    assert Body(b" ").options() == {}
    assert Body(b'{"dryRun": ["All"]}').options() == {"dryRun": ["All"]}


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", True),
        ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_aggregated_discovery_is_for_who_asks_for_it(accept: str, wanted: bool) -> None:
    assert accepts_aggregated_discovery(accept) is wanted
