"""The clients people use, unmodified."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes.dynamic
import kubernetes_asyncio
import pytest

from definitions import definition, widget
from objects import CONFIG_MAPS, experiment_manifest, pod

Served = Any  # the fixture's type lives in conftest, which cannot be imported


def test_the_python_client_does_everything(client: kubernetes.client.ApiClient) -> None:
    core = kubernetes.client.CoreV1Api(client)
    custom = kubernetes.client.CustomObjectsApi(client)
    where = ("kubeflow.org", "v1beta1", "default", "experiments")
    assert kubernetes.client.VersionApi(client).get_code().major == "1"
    assert "kubeflow.org" in {group.name for group in kubernetes.client.ApisApi(client).get_api_versions().groups}
    created = custom.create_namespaced_custom_object(*where, experiment_manifest("x"))
    assert created["metadata"]["uid"]
    custom.patch_namespaced_custom_object(*where, "x", {"spec": {"maxTrialCount": 7}})
    custom.patch_namespaced_custom_object_status(*where, "x", {"status": {"trials": 1}})
    read = custom.get_namespaced_custom_object(*where, "x")
    assert (read["spec"]["maxTrialCount"], read["status"]["trials"]) == (7, 1)
    with pytest.raises(kubernetes.client.ApiException) as raised:
        custom.create_namespaced_custom_object(*where, experiment_manifest("x"))
    assert json.loads(raised.value.body)["reason"] == "AlreadyExists"
    custom.delete_namespaced_custom_object(*where, "x")
    assert custom.list_namespaced_custom_object(*where)["items"] == []
    secret = kubernetes.client.V1Secret(
        metadata={"name": "s"}, data={"k": base64.b64encode(b"v").decode()}, type="Opaque"
    )
    core.create_namespaced_secret("default", secret)
    assert core.read_namespaced_secret("s", "default").data == {"k": "dg=="}
    assert core.list_secret_for_all_namespaces(limit=1).items[0].metadata.name == "s"
    core.create_namespaced_pod("default", pod("p"))
    assert core.delete_namespaced_pod("p", "default").metadata.name == "p"


def test_the_python_clients_watch_recovers_from_an_expired_version(
    served: Served, client: kubernetes.client.ApiClient
) -> None:
    core = kubernetes.client.CoreV1Api(client)
    for name in ("a", "b"):
        served.create_config_map(name)
    served.faults.add(cut_watch="expire", cut_after_events=1)
    watch = kubernetes.watch.Watch()
    seen = []
    for event in watch.stream(core.list_namespaced_config_map, "default"):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 2:
            watch.stop()
    assert seen == [("ADDED", "a"), ("ADDED", "b")]


async def test_kubernetes_asyncio_lists_and_watches(serve: Any, tmp_path: Path) -> None:
    served = await asyncio.to_thread(serve, tmp_path)
    configuration = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(
        str(served.kubeconfig), client_configuration=configuration, persist_config=False
    )
    async with kubernetes_asyncio.client.ApiClient(configuration) as api_client:
        custom = kubernetes_asyncio.client.CustomObjectsApi(api_client)
        where = ("kubeflow.org", "v1beta1", "default", "experiments")
        await custom.create_namespaced_custom_object(*where, experiment_manifest("x"))
        listed = await custom.list_namespaced_custom_object(*where)
        version = listed["metadata"]["resourceVersion"]
        seen = []

        async def follow() -> None:
            async with kubernetes_asyncio.watch.Watch() as watch:
                stream = watch.stream(
                    custom.list_namespaced_custom_object, *where, resource_version=version, timeout_seconds=5
                )
                async for event in stream:
                    seen.append((event["type"], event["object"]["metadata"]["name"]))
                    if len(seen) == 2:
                        return

        following = asyncio.create_task(follow())
        await custom.create_namespaced_custom_object(*where, experiment_manifest("y"))
        await custom.delete_namespaced_custom_object(*where, "x")
        await asyncio.wait_for(following, 5)
        assert seen == [("ADDED", "y"), ("DELETED", "x")]
    await asyncio.to_thread(served.stop)


def test_the_dynamic_client_finds_kinds_and_uses_them(served: Served, client: kubernetes.client.ApiClient) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(client)
    definitions = dynamic.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    definitions.create(body=definition())
    dynamic.resources.invalidate_cache()
    widgets = dynamic.resources.get(api_version="example.com/v1", kind="Widget")
    widgets.create(body=widget(), namespace="default")
    watched = widgets.watch(namespace="default", timeout=1)
    assert [event["object"].metadata.name for event in watched] == ["w"]
    patched = widgets.patch(
        body={"spec": {"count": 5}}, name="w", namespace="default", content_type="application/merge-patch+json"
    )
    assert patched.spec.count == 5
    applied = widgets.server_side_apply(
        body=widget(count=6), name="w", namespace="default", field_manager="me", force_conflicts=True
    )
    assert [one.manager for one in applied.metadata.managedFields] == ["me", "before-first-apply"]
    status = widgets.status.patch(
        body={"status": {"phase": "Done"}},
        name="w",
        namespace="default",
        content_type="application/merge-patch+json",
    )
    assert status.status.phase == "Done"
    assert widgets.get(namespace="default", label_selector="a=b").items == []
    with pytest.raises(kubernetes.dynamic.exceptions.UnprocessibleEntityError):
        widgets.create(body=widget("x", size="xl"), namespace="default")
    widgets.delete(name="w", namespace="default")


def test_an_informer_follows_by_bookmarks_and_starts_over_after_410(served: Served) -> None:
    """What client-go's reflector sends: a watch that lists, bookmarks, and a new list when it is told to."""
    served.create_config_map("a")
    watching = "watch=1&allowWatchBookmarks=1&timeoutSeconds=1"
    initial = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion="
    listed = _events(served, f"{watching}{initial}")
    assert [event["type"] for event in listed] == ["ADDED", "BOOKMARK", "BOOKMARK"]
    mark = listed[1]["object"]["metadata"]
    assert mark["annotations"] == {"k8s.io/initial-events-end": "true"}
    served.create_config_map("b")
    later = _events(served, f"{watching}&resourceVersion={mark['resourceVersion']}")
    assert [event["type"] for event in later] == ["ADDED", "BOOKMARK"]
    served.thread.call(served.registry.store.compact)
    (expired,) = _events(served, f"{watching}&resourceVersion={mark['resourceVersion']}")
    assert (expired["type"], expired["object"]["code"]) == ("ERROR", 410)
    assert served.http.get(f"{CONFIG_MAPS}?{watching}&sendInitialEvents=true").status_code == 422
    assert served.http.get(f"{CONFIG_MAPS}?{watching}&resourceVersion=99999999").status_code == 504


def _events(served: Served, query: str) -> list[dict[str, Any]]:
    answer = served.http.get(f"{CONFIG_MAPS}?{query}")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]
