"""Credentials that a store takes no more: the run ends with what to do, and goes on with new ones."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faulty_store import Store, after_commit, assert_done
from invariants import assert_recovered

from fault_proxy import Request
from scaletrain import checkpoint
from scaletrain.errors import AccessError
from scaletrain.layout import RunLayout

pytestmark = pytest.mark.long

_XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>Injected.</Message></Error>'


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "ExpiredToken", "the credentials have expired (ExpiredToken); run `aws configure` or `aws sso login`"),
        (403, "AccessDenied", "access denied (AccessDenied); the identity in use needs s3:GetObject, s3:PutObject"),
    ],
)
def test_credentials_that_expire(s3: Store, undisturbed: RunLayout, status: int, code: str, message: str) -> None:
    """The save ends the run, on all workers, with what to do."""
    name = f"refused-{status}"
    is_late = lambda request: "/step-00000006/" in request.path and request.method == "PUT"  # noqa: E731
    refused = s3.proxy.inject("answer", is_late, times=10**6, status=status, body=_XML.format(code).encode())
    for ended in s3.attempt(name):
        assert isinstance(ended.error, AccessError)
        assert "step-00000006" in str(ended.error) and message in str(ended.error)
    refused.times = 0
    newest = checkpoint.latest(RunLayout(s3.prepared.root, name))
    assert newest is not None and newest.step == 3
    assert_done(s3.attempt(name))
    assert_recovered(s3.prepared, name, undisturbed)


def test_credentials_of_google_that_expire(gcs: Store, undisturbed: RunLayout, tmp_path: Path) -> None:
    """The store takes a service account's token no more, and its key gives no new one: the same."""
    key = tmp_path / "key.json"
    key.write_text(json.dumps(_service_account(token_uri=f"{gcs.proxy.url}/token")))
    with_key = replace(gcs, options={}, environment={"GOOGLE_APPLICATION_CREDENTIALS": str(key)})
    run = RunLayout(gcs.prepared.root, "revoked")
    is_late = after_commit(run, step=3)
    told = {"headers": {"Content-Type": "application/json"}, "times": 10**6}
    token = b'{"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}'
    refusal = b'{"error": "invalid_grant", "error_description": "The key was revoked."}'
    faults = [
        gcs.proxy.inject(
            "answer", lambda asked: _asks_for_token(asked) and is_late(asked), status=400, body=refusal, **told
        ),
        gcs.proxy.inject("answer", _asks_for_token, status=200, body=token, **told),
        gcs.proxy.inject("answer", is_late, status=401, body=b"{}", **told),
    ]
    for ended in with_key.attempt("revoked", arm=_forget_emulator):
        assert isinstance(ended.error, AccessError)
        assert "no usable credentials (RefreshError); run `gcloud auth application-default login`" in str(ended.error)
    assert all(fault.times < 10**6 for fault in faults)
    for fault in faults:
        fault.times = 0
    assert_done(gcs.attempt("revoked"))
    assert_recovered(gcs.prepared, "revoked", undisturbed)


def _forget_emulator(worker: Any, job: Any) -> None:
    os.environ.pop("STORAGE_EMULATOR_HOST", None)  # which would do without credentials


def _service_account(*, token_uri: str) -> dict[str, str]:
    """What Google puts into the file of a service account's key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "test",
        "client_email": "trainer@test.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": private_key.decode(),
        "token_uri": token_uri,
    }


def _asks_for_token(request: Request) -> bool:
    return request.path == "/token"
