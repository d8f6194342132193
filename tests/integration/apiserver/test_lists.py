"""Lists and tables over HTTPS."""

from __future__ import annotations

import json
from typing import Any

from objects import CONFIG_MAPS, EXPERIMENTS, experiment_manifest

Served = Any  # the fixture's type lives in conftest, which cannot be imported


def test_a_list_is_filtered_by_labels_and_fields(served: Served) -> None:
    for name, label in (("a", "x"), ("b", "y"), ("c", "x")):
        served.http.post(CONFIG_MAPS, json={"metadata": {"name": name, "labels": {"l": label}}})

    def names(query: str) -> list[str]:
        return [item["metadata"]["name"] for item in served.http.get(f"{CONFIG_MAPS}?{query}").json()["items"]]

    assert names("labelSelector=l%3Dx") == ["a", "c"]
    assert names("labelSelector=l%20in%20(x,y),l!%3Dx") == ["b"]
    assert names("fieldSelector=metadata.name%3Dc") == ["c"]
    assert served.http.get(f"{CONFIG_MAPS}?labelSelector=%3D%3D").status_code == 400
    assert served.http.get(f"{CONFIG_MAPS}?fieldSelector=data.x%3D1").status_code == 400


def test_pages_show_the_state_of_the_first_page(served: Served) -> None:
    for index in range(5):
        served.create_config_map(f"c{index}", v="old")
    first = served.http.get(f"{CONFIG_MAPS}?limit=2").json()
    assert first["metadata"]["remainingItemCount"] == 3
    served.http.delete(f"{CONFIG_MAPS}/c2")
    served.create_config_map("c9")
    served.http.patch(
        f"{CONFIG_MAPS}/c3",
        content='{"data":{"v":"new"}}',
        headers={"content-type": "application/merge-patch+json"},
    )
    token = first["metadata"]["continue"]
    second = served.http.get(f"{CONFIG_MAPS}?limit=2&continue={token}").json()
    third = served.http.get(f"{CONFIG_MAPS}?limit=2&continue={second['metadata']['continue']}").json()
    items = [*first["items"], *second["items"], *third["items"]]
    assert [item["metadata"]["name"] for item in items] == ["c0", "c1", "c2", "c3", "c4"]
    assert {item["data"]["v"] for item in items} == {"old"}
    assert "continue" not in third["metadata"]
    assert {page["metadata"]["resourceVersion"] for page in (first, second, third)} == {
        first["metadata"]["resourceVersion"]
    }


def test_a_page_whose_state_is_forgotten_is_410(served: Served) -> None:
    for index in range(3):
        served.create_config_map(f"c{index}")
    token = served.http.get(f"{CONFIG_MAPS}?limit=1").json()["metadata"]["continue"]
    served.create_config_map("c9")
    served.thread.call(served.registry.store.compact)
    answer = served.http.get(f"{CONFIG_MAPS}?limit=1&continue={token}")
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
    rest = served.http.get(f"{CONFIG_MAPS}?continue={answer.json()['metadata']['continue']}").json()["items"]
    assert [item["metadata"]["name"] for item in rest] == ["c1", "c2", "c9"]
    assert served.http.get(f"{CONFIG_MAPS}?continue=rubbish").status_code == 400


def test_resource_versions_of_lists(served: Served) -> None:
    old = served.create_config_map("a")["metadata"]["resourceVersion"]
    served.create_config_map("b")

    def names(query: str) -> list[str]:
        return [item["metadata"]["name"] for item in served.http.get(f"{CONFIG_MAPS}?{query}").json()["items"]]

    assert names("resourceVersion=0") == ["a", "b"]
    assert names(f"resourceVersion={old}") == ["a", "b"]
    assert names(f"resourceVersion={old}&resourceVersionMatch=Exact") == ["a"]
    future = served.http.get(f"{CONFIG_MAPS}?resourceVersion=999999")
    assert (future.status_code, future.headers["retry-after"]) == (504, "1")
    for unreadable in ("x", "-1", "²", "9" * 5000):
        assert served.http.get(f"{CONFIG_MAPS}?resourceVersion={unreadable}").status_code == 400


def test_a_long_list_is_compressed_for_who_accepts_it(served: Served) -> None:
    served.create_config_map("c", text="a" * 200_000)
    compressed = served.http.get(CONFIG_MAPS, headers={"accept-encoding": "gzip"})
    assert compressed.headers["content-encoding"] == "gzip"
    plain = served.http.get(CONFIG_MAPS, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json() == compressed.json()


def test_delete_collection_takes_what_the_selector_names(served: Served) -> None:
    for name, label in (("a", "x"), ("b", "y")):
        served.http.post(CONFIG_MAPS, json={"metadata": {"name": name, "labels": {"l": label}}})
    answer = served.http.delete(f"{CONFIG_MAPS}?labelSelector=l%3Dx")
    assert [item["metadata"]["name"] for item in answer.json()["items"]] == ["a"]
    left = served.http.get(CONFIG_MAPS).json()["items"]
    assert [item["metadata"]["name"] for item in left] == ["b"]


def test_kubectl_tables_have_katibs_columns(served: Served) -> None:
    obj = served.http.post(EXPERIMENTS, json=experiment_manifest("x")).json()
    conditions = [{"type": "Created", "status": "True"}, {"type": "Running", "status": "True"}]
    obj["status"] = {"conditions": conditions}
    served.http.put(f"{EXPERIMENTS}/x/status", json=obj)
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    for path in (EXPERIMENTS, f"{EXPERIMENTS}/x"):
        table = served.http.get(path, headers={"accept": accept}).json()
        assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Type", "Status", "Age"]
        assert table["rows"][0]["cells"][:3] == ["x", "Running", "True"]
        assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    watched = served.http.get(f"{EXPERIMENTS}?watch=1&timeoutSeconds=1", headers={"accept": accept})
    assert json.loads(watched.text.splitlines()[0])["object"]["rows"][0]["cells"][1] == "Running"


def test_what_cannot_be_served_is_406(served: Served) -> None:
    answer = served.http.get(EXPERIMENTS, headers={"accept": "application/vnd.kubernetes.protobuf"})
    assert answer.status_code == 406
    both = "application/vnd.kubernetes.protobuf,application/json"
    assert served.http.get(EXPERIMENTS, headers={"accept": both}).status_code == 200
