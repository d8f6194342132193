"""The few protobuf bodies that kubectl insists on; the bytes are put together by hand, field by field."""

from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.protobuf import decode


def chunk(number: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    size, head = len(raw), b""
    while size > 0x7F:
        head += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + head + bytes([size]) + raw


def envelope(kind: str, message: bytes, api_version: str = "v1") -> bytes:
    type_meta = chunk(1, chunk(1, api_version) + chunk(2, kind))
    return b"k8s\0" + type_meta + chunk(2, message) + chunk(3, "") + chunk(4, "")


def pair(number: int, key: str, value: bytes | str) -> bytes:
    return chunk(number, chunk(1, key) + chunk(2, value))


METADATA = chunk(1, chunk(1, "n") + chunk(3, "") + chunk(8, "") + pair(11, "l", "v") + pair(12, "a", "w"))
READ = {"name": "n", "labels": {"l": "v"}, "annotations": {"a": "w"}}


def test_a_config_map_with_long_text() -> None:
    text = "x" * 300
    body = METADATA + pair(2, "k", text) + pair(3, "b", b"\x00\xff") + b"\x20\x01"
    assert decode(envelope("ConfigMap", body)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": READ,
        "data": {"k": text},
        "binaryData": {"b": "AP8="},
        "immutable": True,
    }


def test_a_secrets_bytes_become_base64() -> None:
    read = decode(envelope("Secret", METADATA + pair(2, "token", b"xyz") + chunk(3, "Opaque")))
    assert (read["data"], read["type"]) == ({"token": "eHl6"}, "Opaque")


def test_a_service_account_with_its_references() -> None:
    read = decode(envelope("ServiceAccount", METADATA + chunk(2, chunk(3, "s")) + chunk(3, chunk(1, "pull"))))
    assert (read["secrets"], read["imagePullSecrets"]) == ([{"name": "s"}], [{"name": "pull"}])


def test_a_namespace_keeps_only_what_a_client_may_set() -> None:
    assert decode(envelope("Namespace", METADATA + chunk(2, chunk(1, "kubernetes")))) == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": READ,
    }


def test_a_service_has_numbers_and_ports_that_are_either() -> None:
    named = chunk(1, chunk(1, "http") + b"\x18\x50" + chunk(4, b"\x08\x01" + chunk(3, "web")))
    numbered = chunk(1, b"\x18\x51" + chunk(4, b"\x08\x00\x10\x90\x3f"))
    read = decode(envelope("Service", METADATA + chunk(2, named + numbered)))
    assert read["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "web"},
        {"port": 81, "targetPort": 8080},
    ]


def test_a_job_is_read_down_to_its_containers() -> None:
    container = chunk(2, chunk(1, "c") + chunk(2, "busybox") + chunk(3, "echo") + chunk(3, "hi"))
    spec = b"\x38\x02" + chunk(6, chunk(2, container + chunk(3, "Never")))
    read = decode(envelope("Job", METADATA + chunk(2, spec), "batch/v1"))
    pod = {"containers": [{"name": "c", "image": "busybox", "command": ["echo", "hi"]}], "restartPolicy": "Never"}
    assert read["spec"] == {"backoffLimit": 2, "template": {"spec": pod}}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", 400),
        (b"k8s\0", 400),
        (envelope("ConfigMap", METADATA)[:-30], 400),
        (b"k8s\0\xff", 400),
        (b"k8s\0\x0b", 400),
        (envelope("Pod", METADATA), 415),
        (envelope("ConfigMap", METADATA, "v2"), 415),
    ],
)
def test_other_bodies_are_refused(body: bytes, code: int) -> None:
    with pytest.raises(ApiError) as raised:
        decode(body)
    assert raised.value.code == code
