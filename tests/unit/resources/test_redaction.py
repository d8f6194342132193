from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.redaction import carries_secret, looks_secret, shown

SECRET = "hf_SECRET"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "HF_TOKENS", "hf_token", "hfToken", "HFTOKEN", "HF_TOKEN2", "HF_AUTH", "AWS_SESSION_TOKEN",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OPENAI_KEY", "OPENAI_KEY_2", "OPENAI_KEYS", "KAGGLE_KEY",
        "WANDB_API_KEY", "WANDB_APIKEY", "SSH_PRIVATE_KEY", "KEY", "STORAGE_PASS", "DB_PASSWORD", "PGPASSWORD",
        "DB_PWD", "GPG_PASSPHRASE", "AZURE_CLIENT_SECRET", "MY_SECRET_1", "GITHUB_PAT", "SERVICE_JWT", "S3_CREDS",
        "SENTRY_DSN", "GOOGLE_APPLICATION_CREDENTIALS_JSON", "DATABASE_URL", "SQLALCHEMY_DATABASE_URI",
        "SLACK_WEBHOOK_URL", "AZURE_STORAGE_CONNECTION_STRING",
    ],
)  # fmt: skip
def test_a_name_of_a_secret_is_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "MAX_OUTPUT_TOKENS", "max_new_tokens", "PROMPT_TOKENS",
        "TOKENS_PER_BATCH", "pad_token", "eos_token_id", "add_special_tokens", "KEYBOARD", "MONKEY", "PUBLIC_KEY",
        "PRIMARY_KEY", "PASSES", "PASS_THROUGH", "COMPASS", "PATH", "PWD", "OLDPWD", "AUTHOR", "AUTH_MODE", "SECRETARY",
        "HF_TOKEN_PATH", "AWS_WEB_IDENTITY_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "SECRET_NAME",
        "OAUTH_TOKEN_URL", "AWS_ENDPOINT_URL", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HOME", "",
    ],
)  # fmt: skip
def test_a_harmless_name_is_none_of_a_secret(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    ("text", "carries"),
    [
        ("s3://key:secret@bucket/x", True),
        ("s3://key:sec/ret+x@bucket/x", True),
        ("https://token@host/x", True),
        ("redis://:password@host:6379/0", True),
        ("see https://me:pw@host", True),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII", True),
        ("hf://org/name@v1.0", False),
        ("http://host:8080/a@b", False),
        ("me@example.org", False),
        ("s3://bucket/x", False),
        ("", False),
    ],
)
def test_a_text_can_carry_a_secret(text: str, carries: bool) -> None:
    assert carries_secret(text) is carries


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (8, "8"),
        (0.5, "0.5"),
        ("gpt2", "'gpt2'"),
        ("x" * 121, "'" + "x" * 119 + "…'"),
        ({}, "{}"),
        ({"A": SECRET, "B": 1}, "{'A': …, 'B': …}"),
        ({f"HF_TOKEN={SECRET}": 1}, "{'HF_TOKEN***': …}"),
        (dict.fromkeys(range(11)), "{" + "".join(f"{key}: …, " for key in range(10)) + "…}"),
        ([], "[0 items]"),
        ([SECRET], "[1 item]"),
        ((SECRET, SECRET), "[2 items]"),
        (SECRET.encode(), "<bytes>"),
        ({SECRET}, "<set>"),
        (Problems(), "<Problems>"),
        (f"s3://key:{SECRET}@bucket/x", "'s3://***@bucket/x'"),
        (f"HF_TOKEN={SECRET}", "'HF_TOKEN***'"),
        (f'[{{"name": "HF_TOKEN", "value": "{SECRET}"}}]', """'[{"name": "HF_TOKEN***'"""),
    ],
)
def test_a_value_is_shown_without_what_may_be_secret(value: Any, text: str) -> None:
    assert shown("argument", value) == text


@pytest.mark.parametrize("argument", ["env", "env.A", "job_options.pod_template.env[0]", "algorithm_settings.api_key"])
def test_what_an_argument_says_of_its_value_counts_too(argument: str) -> None:
    assert shown(argument, SECRET) == shown(argument, 123456) == "***"
    assert shown(argument, None) == "None"


def test_a_manifest_in_a_wrong_place_is_not_printed() -> None:
    containers = [{"name": "main", "env": [{"name": "HF_TOKEN", "value": SECRET}]}]
    pod = {"template": {"spec": {"containers": containers}}}
    manifest = {"spec": {"trialTemplate": {"trialSpec": [pod], "primaryContainerName": pod}, "parameters": pod}}
    problems = Problems()
    problems.add("experiment", [manifest], "is no manifest", "give one")
    experiment.check_manifest([manifest], problems)
    experiment.check_manifest(manifest, problems)
    assert len(problems.errors) > 5
    assert SECRET not in " ".join(map(str, problems.errors))
