"""Keys and what they may ask for: the file, the limits, and what a client without a good key gets."""

import stat
from pathlib import Path

import httpx
import pytest

from scaletrain.errors import ConfigError
from scaletrain.serve import keys as keys_module
from scaletrain.serve.api_errors import ApiError
from scaletrain.serve.keys import Key, KeyRing, add_key, read_keys, revoke_key
from scaletrain.serve.limits import Limits
from scaletrain.serve.protocol import Piece
from serving import ScriptedEngine, said, scripted, served

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 5}


def test_a_key_is_kept_as_its_hash_alone(tmp_path: Path) -> None:
    """The file has no key in it, is its owner's alone, and knows the key again."""
    path = tmp_path / "keys.json"
    secret = add_key(path, "website", requests_per_minute=60)
    assert secret not in path.read_text()
    assert secret.rpartition("-")[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = KeyRing(path).find(secret)
    assert found is not None
    assert (found.name, found.requests_per_minute, found.admin) == ("website", 60, False)
    assert KeyRing(path).find(secret + "x") is None


def test_what_is_wrong_with_a_key_is_said_at_once(tmp_path: Path) -> None:
    """A name twice and limits of nothing are refused, all in one error; the file stays as it was."""
    path = tmp_path / "keys.json"
    add_key(path, "website")
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        add_key(path, "website", requests_per_minute=0, tokens_per_minute=-1)
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="there is website"):
        revoke_key(path, "nobody")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": 1, "keys": [{"id": "x"}]}', '{"version": 9}'])
def test_a_file_that_holds_no_keys_is_named(content: str, tmp_path: Path) -> None:
    """Whatever is in it, the error is one sentence that names the file."""
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        read_keys(path)


def test_a_revoked_key_stops_working_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring sees that its file was replaced; one that becomes unreadable leaves the keys as they were."""
    monkeypatch.setattr(keys_module, "_LOOK_EVERY_S", 0.0)
    path = tmp_path / "keys.json"
    first, second = add_key(path, "first"), add_key(path, "second")
    ring = KeyRing(path)
    revoke_key(path, "first")
    assert ring.find(first) is None
    path.write_text("{")
    assert ring.find(second) is not None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_key(*, requests: int | None = None, tokens: int | None = None) -> Key:
    return Key("id", "name", "hash", "now", requests_per_minute=requests, tokens_per_minute=tokens)


def test_requests_a_minute_are_held_and_come_back() -> None:
    """After the last one the error says when to ask again, and then it is right."""
    clock = Clock()
    limits, key = Limits(clock), make_key(requests=2)
    for _ in range(2):
        with limits.charged(key, tokens=1):
            pass
    with pytest.raises(ApiError) as caught, limits.charged(key, tokens=1):
        pass
    assert caught.value.status == 429
    assert caught.value.headers()["retry-after"] == "30"
    clock.now = 30.0
    with limits.charged(key, tokens=1):
        pass


def test_tokens_are_set_aside_and_what_is_left_is_given_back() -> None:
    """Two at once cannot have more than the limit; one that used less leaves room for the next."""
    limits, key = Limits(Clock()), make_key(tokens=100)
    with limits.charged(key, tokens=80) as charge:
        with pytest.raises(ApiError), limits.charged(key, tokens=80):
            pass
        charge.used_tokens = 10
    with limits.charged(key, tokens=90):
        pass


def test_a_request_that_never_fits_is_told_so_and_not_to_come_again() -> None:
    """The official client looks at x-should-retry."""
    with (
        pytest.raises(ApiError, match="lower max_tokens") as caught,
        Limits(Clock()).charged(make_key(tokens=10), tokens=11),
    ):
        pass
    assert caught.value.headers() == {"x-should-retry": "false"}


def test_the_api_asks_for_a_key(tmp_path: Path) -> None:
    """No key and a wrong one are 401, a plain one has no way to the metrics, and no metric has a key in it."""
    path = tmp_path / "keys.json"
    plain, admin = add_key(path, "plain", requests_per_minute=2), add_key(path, "admin", admin=True)

    def bearer(secret: str) -> dict[str, str]:
        return {"authorization": f"Bearer {secret}"}

    with served(scripted(ScriptedEngine(said("Hi"))), keys=path) as server, httpx.Client(base_url=server.url) as client:
        for headers, code in ({}, "missing_api_key"), (bearer("sk-wrong"), "invalid_api_key"):
            for answer in (
                client.post("/v1/chat/completions", json=HELLO, headers=headers),
                client.post("/v1/completions", json={"prompt": "x"}, headers=headers),
                client.get("/v1/models", headers=headers),
                client.post("/admin/reload", headers=headers),
                client.get("/metrics", headers=headers),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        assert client.get("/v1/scaletrain/settings").json()["keys"] is True
        statuses = [client.post("/v1/chat/completions", json=HELLO, headers=bearer(plain)) for _ in range(3)]
        assert [each.status_code for each in statuses] == [200, 200, 429]
        assert statuses[2].headers["retry-after"] == "30"
        assert client.get("/metrics", headers=bearer(plain)).status_code == 403
        metrics = client.get("/metrics", headers=bearer(admin)).text
        assert 'scaletrain_requests_total{method="POST",route="/v1/chat/completions",status="429"} 1.0' in metrics
        assert plain not in metrics + statuses[2].text


def test_a_request_that_names_no_length_takes_what_its_key_has_left(tmp_path: Path) -> None:
    """And is not refused because the model's context is longer than a minute's tokens; next to none left is a 429."""
    path = tmp_path / "keys.json"
    headers = {"authorization": f"Bearer {add_key(path, 'website', tokens_per_minute=100)}"}
    request = {name: value for name, value in HELLO.items() if name != "max_tokens"}
    engine = ScriptedEngine([Piece(text="Hi", tokens=60), *said("!")])
    with served(scripted(engine), keys=path) as server, httpx.Client(base_url=server.url, headers=headers) as client:
        answers = [client.post("/v1/chat/completions", json=request) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 429]
