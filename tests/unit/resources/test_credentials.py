"""Connections become a Secret and references to it; what is secret in them is told nowhere else."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_llmtune.resources.credentials import (
    AWS,
    ENDPOINT,
    ENDPOINT_TOKEN,
    HUB,
    Credentials,
    read_connection,
)
from airflow_llmtune.resources.own_name import fill_in
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.trainer_spec import TrainerSpec

SECRET = "hf_SECRET"


def connection(**given: Any) -> Any:
    fields = dict.fromkeys(("host", "schema", "port", "login", "password"))
    return SimpleNamespace(**{**fields, "extra_dejson": {}, **given})


def read(argument: str, **fields: Any) -> tuple[Credentials, str]:
    """Return what is read, and the mistakes in one text."""
    problems = Problems()
    found = read_connection(argument, "mine", connection(**fields), problems)
    return found, "\n".join(map(str, problems.errors))


def test_the_hubs_password_is_the_token() -> None:
    assert read(HUB, password=SECRET) == (Credentials({"HF_TOKEN": SECRET}), "")


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"host": "https://hub.example"}, "https://hub.example"),
        ({"host": "https://hub.example/"}, "https://hub.example"),
        ({"host": "hub.example"}, "https://hub.example"),
        ({"host": "hub.example", "schema": "http", "port": 8080}, "http://hub.example:8080"),
        ({"host": "http://hub.example", "port": 8080}, "http://hub.example:8080"),
    ],
)
def test_the_address_of_another_hub_is_no_secret(fields: dict[str, Any], address: str) -> None:
    found, mistakes = read(HUB, password=SECRET, **fields)
    assert (found.settings, mistakes) == ({"HF_ENDPOINT": address}, "")


def test_an_address_with_a_password_in_it_is_a_secret() -> None:
    found, _ = read(HUB, password=SECRET, host=f"https://me:{SECRET}@hub.example")
    assert found.secrets.keys() == {"HF_TOKEN", "HF_ENDPOINT"}
    assert found.settings == {}


def test_the_token_of_an_endpoint_need_not_be_there() -> None:
    assert read(ENDPOINT, password=f"{SECRET}\n") == (Credentials({ENDPOINT_TOKEN: SECRET}), "")
    assert read(ENDPOINT) == (Credentials(), "")


KEYS = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "s3/SECRET+"}
EXTRA = {"region_name": "eu-west-1", "endpoint_url": "http://minio:9000"}
SETTINGS = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://minio:9000"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"login": "AKIA1", "password": "s3/SECRET+"}, Credentials(KEYS)),
        ({"login": "AKIA1", "password": "s3/SECRET+", "extra_dejson": EXTRA}, Credentials(KEYS, SETTINGS)),
        (
            {"extra_dejson": {"aws_access_key_id": "AKIA1", "aws_secret_access_key": "s3/SECRET+"}},
            Credentials(KEYS),
        ),
        (
            {"login": "AKIA1", "password": "s3/SECRET+", "extra_dejson": {"aws_session_token": "t0ken"}},
            Credentials({**KEYS, "AWS_SESSION_TOKEN": "t0ken"}),
        ),
        ({"login": "AKIA1", "password": "s3/SECRET+", "extra_dejson": ["no", "mapping"]}, Credentials(KEYS)),
        ({"login": " AKIA1\n", "password": "s3/SECRET+\r\n"}, Credentials(KEYS)),
    ],
)
def test_an_aws_connection_gives_keys_and_settings(fields: dict[str, Any], expected: Credentials) -> None:
    assert read(AWS, **fields) == (expected, "")


@pytest.mark.parametrize(
    ("argument", "fields", "expected"),
    [
        (HUB, {}, ["`hub_conn_id`='mine' is a connection without password. Fix: enter the Hub's token there"]),
        (HUB, {"password": " "}, ["without password"]),
        (HUB, {"password": f"{SECRET} {SECRET}"}, ["whose password has blanks"]),
        (HUB, {"password": f"{SECRET}\n{SECRET}"}, ["whose password has blanks, line breaks"]),
        (HUB, {"password": f"{SECRET}é"}, ["whose password has"]),
        (HUB, {"password": f"{SECRET}\x00"}, ["whose password has"]),
        (ENDPOINT, {"password": f"{SECRET}\n{SECRET}"}, ["`endpoint_conn_id`='mine'"]),
        (AWS, {}, ["without login", "without password"]),
        (AWS, {"login": "AKIA1"}, ["name their `service_account_name` in `job_options`"]),
        (
            AWS,
            {"login": f"{SECRET} ", "password": SECRET, "extra_dejson": {"endpoint_url": f"{SECRET}:9000"}},
            ["whose extra.endpoint_url is no URL"],
        ),
    ],
)
def test_mistakes_name_the_connection_and_the_fix_and_no_value(
    argument: str, fields: dict[str, Any], expected: list[str]
) -> None:
    _, mistakes = read(argument, **fields)
    for line, words in zip(mistakes.splitlines(), expected, strict=True):
        assert words in line
    assert SECRET not in mistakes


def test_no_value_is_shown() -> None:
    found = Credentials({**KEYS, "HF_TOKEN": SECRET}, SETTINGS)
    for text in (repr(found), str(found), f"{found}", f"{[found]}"):
        assert "HF_TOKEN" in text
        assert not any(value in text for value in found.values.values())


OWNER = {"metadata": {"name": "dag-tune-1", "labels": {"dag_id": "dag"}, "uid": "1"}}


def test_the_secret_is_named_and_labelled_as_its_owner() -> None:
    secret = Credentials({"HF_TOKEN": SECRET}, SETTINGS).to_secret(OWNER)
    encoded = base64.b64encode(SECRET.encode()).decode()
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "dag-tune-1-credentials", "labels": {"dag_id": "dag"}},
        "type": "Opaque",
        "data": {"HF_TOKEN": encoded},
    }


def trainer(**changes: Any) -> TrainerSpec:
    problems = Problems()
    spec = TrainerSpec.from_args(model="org/base", dataset="org/rows", problems=problems, **changes)
    assert problems.errors == []
    return spec


def test_pods_refer_to_the_secret_of_their_object_and_get_settings_as_they_are() -> None:
    problems = Problems()
    spec = trainer(env={"A": "1"}).with_credentials(Credentials({"HF_TOKEN": SECRET}, SETTINGS), problems)
    assert problems.errors == []
    manifest = fill_in({"spec": [{"env": dict(spec.env)}]}, "dag-tune-1")
    reference = {"secretKeyRef": {"name": "dag-tune-1-credentials", "key": "HF_TOKEN"}}
    assert manifest == {"spec": [{"env": {"HF_TOKEN": reference, **SETTINGS, "A": "1"}}]}
    assert SECRET not in json.dumps(manifest)


def test_a_key_that_gets_a_session_token_later_changes_nothing_of_the_manifest() -> None:
    """So a running object is adopted, and its next pods have the token."""
    before, after = Credentials(KEYS), Credentials({**KEYS, "AWS_SESSION_TOKEN": "t0ken"})
    assert before.references == after.references
    assert before.references["AWS_SESSION_TOKEN"]["secretKeyRef"]["optional"] is True
    assert "AWS_SESSION_TOKEN" not in before.to_secret(OWNER)["data"]


def test_a_setting_of_the_author_goes_before_the_connections() -> None:
    problems = Problems()
    own = {"AWS_ENDPOINT_URL": "http://minio.inside:9000"}
    spec = trainer(env=own).with_credentials(Credentials(KEYS, SETTINGS), problems)
    assert problems.errors == []
    assert spec.env["AWS_ENDPOINT_URL"] == "http://minio.inside:9000"
    assert spec.env["AWS_DEFAULT_REGION"] == "eu-west-1"


@pytest.mark.parametrize(
    ("name", "argument"),
    [("HF_TOKEN", HUB), ("AWS_SECRET_ACCESS_KEY", AWS), ("AWS_SESSION_TOKEN", AWS)],
)
def test_a_secret_given_twice_is_a_mistake(name: str, argument: str) -> None:
    problems = Problems()
    spec = trainer(env={name: {"secretKeyRef": {"name": "other", "key": "key"}}})
    spec.with_credentials(Credentials({**KEYS, "HF_TOKEN": SECRET}), problems)
    (mistake,) = map(str, problems.errors)
    assert f"`env.{name}`" in mistake
    assert f"is also given by `{argument}`" in mistake
