"""Tests that no secret of a command line or a URL reaches a text, and that everything else stays as it was typed."""

import pytest

from inference.flags import known_to_beam
from models import secrets

SECRET = "hunter2/+x=="
HIDDEN = [
    ["--s3_secret_access_key", SECRET],
    [f"--s3_secret_access_key={SECRET}"],
    [f"--s3_access_key_id={SECRET}"],
    ["--s3_session_token", SECRET],
    ["--azure_connection_string", f"AccountName=a;AccountKey={SECRET};EndpointSuffix=b"],
    ["--experiments", f"use_runner_v2,my_token={SECRET}"],
    [f"--dataflow_service_options=api-key={SECRET}"],
    ["--profiler_extra_env_vars", f"DB_PASSWORD={SECRET}"],
    ["--job_server_jvm_properties", f"-Djavax.net.ssl.keyStorePassword={SECRET}"],
    ["--environment_config", f'{{"env": {{"HF_TOKEN": "{SECRET}"}}}}'],
    ["--maven_repository_url", f"https://me:{SECRET.replace('/', '')}@maven.example/x"],
    ["--s3_endpoint_url", f"https://example.com/x?sig={SECRET}"],
    ["--label", f"Authorization: Bearer {SECRET}"],
]
SHOWN = [
    ["--model", "models/trained/ai", "--max_tokens", "128", "--keep_fields", "key,token"],
    ["--dataflow_kms_key", "projects/p/locations/l/keyRings/r/cryptoKeys/k"],
    ["--input", "gs://bucket/a@b/*.jsonl", "--output", "s3://bucket/run:1"],
    ["--dataflow_service_options", "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"],
    ["--experiments=use_runner_v2,max_tokens=5", "--no_auth", "--id_field="],
    ["--gcp_oauth_scopes", "https://www.googleapis.com/auth/cloud-platform"],
]


@pytest.mark.parametrize("argv", HIDDEN, ids=lambda argv: argv[0])
def test_a_secret_is_masked_and_the_text_says_so(argv: list[str]) -> None:
    text = secrets.command("python -m label", [*argv, "--output", "runs/a"])
    assert "hunter2" not in text
    assert "x==" not in text
    assert "***" in text
    assert "--output runs/a" in text
    assert text.endswith("  # type the values for *** again")
    assert argv[0].partition("=")[0] in text


@pytest.mark.parametrize("argv", SHOWN, ids=lambda argv: argv[0])
def test_what_is_no_secret_stays_as_it_was_typed(argv: list[str]) -> None:
    assert secrets.command("python -m label", argv) == f"python -m label {' '.join(argv)}".replace(
        "gs://bucket/a@b/*.jsonl", "'gs://bucket/a@b/*.jsonl'"
    ).replace("worker_accelerator", "'worker_accelerator").replace("nvidia-driver", "nvidia-driver'")


def test_the_flags_of_beam_that_take_a_secret() -> None:
    """A new Beam may bring others; look at each, then name it here."""
    masked = {flag for flag, takes_value in known_to_beam().items() if takes_value and secrets.is_secret(flag)}
    assert masked == {
        "--azure_connection_string",
        "--s3_access_key_id",
        "--s3_secret_access_key",
        "--s3_session_token",
    }
    suspicious = ("secret", "password", "token", "key", "credential", "connection")
    assert {flag for flag, takes_value in known_to_beam().items() if takes_value and any(
        word in flag for word in suspicious)} - masked == {"--dataflow_kms_key"}  # fmt: skip


def test_a_url_keeps_its_host() -> None:
    assert secrets.masked("https://me:pw@host/a?x=1") == "https://***@host/a?x=1"
    assert secrets.masked("https://host/a.csv?X-Goog-Signature=abc") == "https://host/a.csv?X-Goog-Signature=***"
    assert secrets.masked("hf://datasets/org/name@main/train.csv") == "hf://datasets/org/name@main/train.csv"
