"""The Jobs and the Service that a JobSet is made of. Pure."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import JOB_SET
from airflow_llmtune.controlplane.controllers.runtime import owner_reference

Object = dict[str, Any]

PREFIX = "jobset.sigs.k8s.io/"
NAME = f"{PREFIX}jobset-name"
REPLICATED_JOB = f"{PREFIX}replicatedjob-name"
RESTART = f"{PREFIX}restart-attempt"


def job_name(job_set: Object, replicated: Object, index: int) -> str:
    return f"{job_set['metadata']['name']}-{replicated['name']}-{index}"


def subdomain(job_set: Object) -> str:
    return str((job_set["spec"].get("network") or {}).get("subdomain") or job_set["metadata"]["name"])


def job(job_set: Object, replicated: Object, index: int) -> Object:
    template = copy.deepcopy(replicated["template"])
    spec, marks = template["spec"], _marks(job_set, replicated, index)
    pod_template = spec["template"]
    pod_template["metadata"] = _marked(pod_template.get("metadata"), marks)
    if job_set["spec"]["network"]["enableDNSHostnames"]:
        pod_template["spec"]["subdomain"] = subdomain(job_set)
    spec["suspend"] = bool(job_set["spec"].get("suspend"))
    metadata = _marked(template.get("metadata"), marks)
    metadata.update(
        name=job_name(job_set, replicated, index),
        namespace=job_set["metadata"]["namespace"],
        ownerReferences=[owner_reference(JOB_SET, job_set)],
    )
    return {"metadata": metadata, "spec": spec}


def _marked(metadata: Object | None, marks: dict[str, str]) -> Object:
    """The same words are labels and annotations."""
    own = metadata or {}
    return {
        "labels": {**(own.get("labels") or {}), **marks},
        "annotations": {**(own.get("annotations") or {}), **marks},
    }


def _marks(job_set: Object, replicated: Object, index: int) -> dict[str, str]:
    metadata, jobs = job_set["metadata"], job_set["spec"]["replicatedJobs"]
    group = [one for one in jobs if one["groupName"] == replicated["groupName"]]
    key = f"{metadata['namespace']}/{job_name(job_set, replicated, index)}"
    marks = {
        NAME: metadata["name"],
        f"{PREFIX}jobset-uid": metadata["uid"],
        REPLICATED_JOB: replicated["name"],
        RESTART: str(job_set.get("status", {}).get("restarts", 0)),
        f"{PREFIX}replicatedjob-replicas": str(replicated["replicas"]),
        f"{PREFIX}global-replicas": str(sum(one["replicas"] for one in jobs)),
        f"{PREFIX}job-index": str(index),
        f"{PREFIX}job-key": hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest(),
        f"{PREFIX}job-global-index": str(_before(jobs, replicated) + index),
        f"{PREFIX}group-name": replicated["groupName"],
        f"{PREFIX}group-replicas": str(sum(one["replicas"] for one in group)),
        f"{PREFIX}job-group-index": str(_before(group, replicated) + index),
    }
    lead = job_set["spec"].get("coordinator")
    if lead is not None:
        pod = f"{metadata['name']}-{lead['replicatedJob']}-{lead.get('jobIndex', 0)}-{lead.get('podIndex', 0)}"
        marks[f"{PREFIX}coordinator"] = f"{pod}.{subdomain(job_set)}"
    return marks


def _before(jobs: list[Object], replicated: Object) -> int:
    names = [one["name"] for one in jobs]
    return sum(one["replicas"] for one in jobs[: names.index(replicated["name"])])


def service(job_set: Object) -> Object:
    """Headless: it gives the pods their names, ``<job set>-<replicated job>-<job>-<pod>.<service>``."""
    metadata = job_set["metadata"]
    return {
        "metadata": {
            "name": subdomain(job_set),
            "namespace": metadata["namespace"],
            "ownerReferences": [owner_reference(JOB_SET, job_set)],
        },
        "spec": {
            "clusterIP": "None",
            "selector": {NAME: metadata["name"]},
            "publishNotReadyAddresses": job_set["spec"]["network"]["publishNotReadyAddresses"],
        },
    }


def resumed(child: Object, replicated: Object) -> Object:
    """A suspended Job set going, with what a queue has decided meanwhile about its pods' place."""
    made = copy.deepcopy(child)
    made["spec"]["suspend"] = False
    template, source = made["spec"]["template"], replicated["template"]["spec"]["template"]
    for field in ("labels", "annotations"):
        added = (source.get("metadata") or {}).get(field) or {}
        if added:
            metadata = template.setdefault("metadata", {})
            metadata[field] = {**(metadata.get(field) or {}), **added}
    if source["spec"].get("nodeSelector"):
        own = template["spec"].get("nodeSelector") or {}
        template["spec"]["nodeSelector"] = {**own, **source["spec"]["nodeSelector"]}
    for field in ("tolerations", "schedulingGates"):
        own = template["spec"].get(field) or []
        missing = [one for one in source["spec"].get(field) or () if one not in own]
        if missing:
            template["spec"][field] = [*own, *missing]
    return made
