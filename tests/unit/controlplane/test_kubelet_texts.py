"""What the kubelet does to the texts of a pod: references, mount paths, addresses, image names."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_llmtune.controlplane.kubelet.environment import expand, to_loopback, told_of_pod
from airflow_llmtune.controlplane.kubelet.images import without_tag
from airflow_llmtune.controlplane.kubelet.volumes import Mount, rewrite


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$$.pid", "$$.pid"),
        ("$(NONE)", "$(NONE)"),
        ("$A $", "$A $"),
        ("$(A)$(B)", "1two"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "two"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/mnt/model", "/local"),
        ("--dir=/mnt/model/x", "--dir=/local/x"),
        ("1>/mnt/model/log 2>&1", "1>/local/log 2>&1"),
        ("file:///mnt/model/x", "file:///local/x"),
        ("/mnt/models", "/mnt/models"),
        ("/other/mnt/model", "/other/mnt/model"),
        ("/mnt/model/deep/x", "/inner/x"),
        ("a,/mnt/model,/mnt/model", "a,/local,/local"),
    ],
)
def test_only_paths_that_begin_with_a_mount_are_rewritten(text: str, expected: str) -> None:
    mounts = [Mount("/mnt/model/", Path("/local")), Mount("/mnt/model/deep", Path("/inner"))]
    assert rewrite(text, mounts) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job-master-0", "127.0.0.1"),
        ("job-master-0:29500", "127.0.0.1:29500"),
        ("http://job-master-0:80/x", "http://127.0.0.1:80/x"),
        ("job-master-01", "job-master-01"),
        ("use job-master-0 here", "use job-master-0 here"),
    ],
)
def test_addresses_of_services_become_loopback(text: str, expected: str) -> None:
    assert to_loopback(text, {"job-master-0": "127.0.0.1"}) == expected


@pytest.mark.parametrize(
    ("image", "name"),
    [("a", "a"), ("a:1", "a"), ("reg:5000/a/b", "reg:5000/a/b"), ("reg:5000/a:1", "reg:5000/a"), ("a@sha256:0", "a")],
)
def test_an_images_tag_is_not_part_of_its_name(image: str, name: str) -> None:
    assert without_tag(image) == name


def test_what_a_pod_is_told_of_itself_is_no_address() -> None:
    own = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    secret = {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
    env = [{"name": "A", **own}, {"name": "B", "value": "job"}, {"name": "C", **own}, {"name": "C", "value": "job"}]
    assert told_of_pod({"env": [*env, {"name": "D", **secret}]}) == {"A"}
    assert told_of_pod({}) == set()
