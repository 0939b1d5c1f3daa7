"""`scaletrain serve` and `scaletrain keys` as a user starts them."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from commands import kill_everything, run, start, wait_for
from scaletrain.errors import ConfigError
from scaletrain.listening import bind
from tiny import tiny_model_folder, tiny_run

HELLO = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8, "temperature": 0}


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Start the command on a free port; yields its URL and its process, when it answers."""
    process = start("serve", *arguments, "--port", "0", "--device", "cpu")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://\S+)/v1 serves", line)
        assert found is not None, line + process.communicate(timeout=60)[1]
        yield found[1], process
    finally:
        if process.poll() is None:
            kill_everything(process.pid)
        process.communicate()


def test_a_run_is_served_and_its_newer_checkpoint_takes_over(tmp_path: Path) -> None:
    """Found by its name, swapped while it is asked, ended by SIGTERM with exit code 0; another model beside it."""
    root = str(tmp_path / "bucket")
    tiny_run(root, step=10)
    folder = str(tiny_model_folder(tmp_path / "model"))
    with serving("run", "--root", root, "--model", f"other={folder}", "serve.reload_s=0.2") as (url, process):
        models = {each["id"]: each for each in httpx.get(f"{url}/v1/models").json()["data"]}
        assert list(models) == ["run", "other"]
        before = httpx.post(f"{url}/v1/chat/completions", json=HELLO, timeout=60).json()
        tiny_run(root, step=20)

        def newer() -> bool:
            asked = httpx.post(f"{url}/v1/chat/completions", json=HELLO, timeout=60)
            assert asked.status_code == 200
            return httpx.get(f"{url}/v1/models/run").json()["version"] != models["run"]["version"]

        wait_for(newer, "the newer checkpoint takes over", limit_s=60)
        after = httpx.post(f"{url}/v1/chat/completions", json=HELLO, timeout=60).json()
        assert after["choices"][0]["message"]["content"] != before["choices"][0]["message"]["content"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_another_address_without_keys_is_refused() -> None:
    """Exit code 2, at once, with what to do; and every other problem with it."""
    errors = run("serve", "run", "--host", "0.0.0.0", "serve.max_running=0", exit_code=2)
    assert "max_running" in errors
    errors = run("serve", "run", "--host", "0.0.0.0", exit_code=2)
    assert "scaletrain keys add NAME" in errors
    assert "Traceback" not in errors


def test_mistakes_on_the_command_line_are_listed(tmp_path: Path) -> None:
    """Names twice, options without a name, settings of other sections, and keys that are not there."""
    for arguments, words in (
        (["run", "--model", "run=x"], "the name of two models"),
        (["run", "--model", "x", "--model", "=y"], "2 problems"),
        (["run", "train.steps=5"], "only serve.KEY=VALUE"),
        (["run", "--replicas", "few"], "MIN-MAX"),
        (["run", "--keys", str(tmp_path / "none.json")], "scaletrain keys add"),
    ):
        assert words in run("serve", *arguments, exit_code=2)


def test_a_port_that_is_taken_is_said_before_anything_is_loaded() -> None:
    """The message names the address and the option."""
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ConfigError, match="--port"):
            bind("127.0.0.1", taken.getsockname()[1])


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    """The key is on stdout alone, once; the list has names and limits."""
    keys = ["--keys", str(tmp_path / "keys.json")]
    secret = run("keys", "add", "website", "--requests-per-minute", "60", *keys).strip()
    assert secret.startswith("sk-scaletrain-")
    listed = run("keys", "list", "--json", *keys)
    assert '"website"' in listed
    assert secret not in listed
    assert "revoked" in run("keys", "revoke", "website", *keys)
    assert "there is none" in run("keys", "revoke", "website", *keys, exit_code=2)
