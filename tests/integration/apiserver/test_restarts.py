"""What lasts and what does not: a token that expires, kinds that were defined before a restart."""

from __future__ import annotations

from pathlib import Path

import kubernetes
import pytest

from airflow_llmtune.controlplane import ControlPlane
from definitions import definition, widget
from waiting import wait_for


def namespaces(kubeconfig: Path) -> list[str]:
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    with kubernetes.client.ApiClient(configuration) as client:
        return [one.metadata.name for one in kubernetes.client.CoreV1Api(client).list_namespace().items]


def test_after_a_rotation_only_a_kubeconfig_written_anew_works(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with ControlPlane(state_dir=tmp_path / "state") as plane:
        plane.write_kubeconfig(old)
        assert "default" in namespaces(old)
        plane.rotate_token()
        plane.write_kubeconfig(new)
        with pytest.raises(kubernetes.client.ApiException) as raised:
            namespaces(old)
        assert raised.value.status == 401
        assert "default" in namespaces(new)
        token = plane.token
    with ControlPlane(state_dir=tmp_path / "state") as again:
        assert again.token == token


def test_kinds_and_their_objects_are_there_after_a_restart(tmp_path: Path) -> None:
    def custom(plane: ControlPlane) -> kubernetes.client.CustomObjectsApi:
        plane.write_kubeconfig(tmp_path / "kubeconfig")
        configuration = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(str(tmp_path / "kubeconfig"), client_configuration=configuration)
        return kubernetes.client.CustomObjectsApi(kubernetes.client.ApiClient(configuration))

    definitions = ("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    where = ("example.com", "v1", "default", "widgets")
    with ControlPlane(state_dir=tmp_path / "state") as plane:
        client = custom(plane)
        client.create_cluster_custom_object(*definitions, definition())
        created = client.create_namespaced_custom_object(*where, widget())
    with ControlPlane(state_dir=tmp_path / "state") as plane:
        client = custom(plane)
        assert client.get_namespaced_custom_object(*where, "w") == created
        with pytest.raises(kubernetes.client.ApiException, match=r"spec\.size"):
            client.create_namespaced_custom_object(*where, widget("x", size="xl"))
        client.delete_cluster_custom_object(*definitions, "widgets.example.com")
        wait_for(lambda: plane.registry.kinds.custom() == ())
