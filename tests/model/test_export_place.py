"""The hub gets an export in one commit, privately, and the same again changes nothing; tested on a small hub."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from huggingface_hub import constants

from scaletrain.config_model import LoraSection
from scaletrain.errors import AccessError, ConfigError, StorageError
from scaletrain.model.export import export_run
from scaletrain.model.export_place import publish_folder
from tiny import tiny_run

TOKEN = "hf_test"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload needs; every file is a regular one. State is the server's."""

    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            asked = orjson.loads(body)
            is_new = not self.server.repositories
            self.server.repositories.append(asked)
            self._answer(
                200 if is_new else 409, {"url": f"{constants.ENDPOINT}/me/mine", "error": "You already created it"}
            )
        elif "/preupload/" in self.path:
            files = orjson.loads(body)["files"]
            modes = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": self._oid(each["path"])}
                for each in files
            ]
            self._answer(200, {"files": modes})
        elif self.path == "/api/validate-yaml":  # of the model card
            self._answer(200, {"errors": [], "warnings": []})
        else:
            self._commit([orjson.loads(line) for line in body.splitlines()])

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            files = [{"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
                     for path, data in self.server.files.items()]  # fmt: skip
            self._answer(200, files)
        else:
            siblings = [{"rfilename": path} for path in self.server.files]
            self._answer(200, {"id": "me/mine", "sha": "0" * 40, "siblings": siblings})

    def _oid(self, path: str) -> str | None:
        data = self.server.files.get(path)
        return git_oid(data) if data is not None else None

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del self.server.files[value["path"]]
        self.server.commits.append(next(line["value"]["summary"] for line in lines if line["key"] == "header"))
        self._answer(200, {"commitUrl": f"{constants.ENDPOINT}/me/mine/commit/{'1' * 40}", "commitOid": "1" * 40})

    def _answer(self, status: int, body: Any) -> None:
        data = orjson.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run the small hub and let huggingface_hub talk to it."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.commits, server.repositories = {}, [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_run_goes_to_the_hub_in_one_commit(hub: Any, tmp_path: Path) -> None:
    """Private where it is new; the folder beside it holds the same files, and the same again makes no commit."""
    run, _ = tiny_run(str(tmp_path))
    folder = Path(export_run(run, str(tmp_path / "out"), push_to="hub:me/mine"))
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.repositories[0]["visibility"] == "private"
    assert hub.commits == ["run at step 10"]
    export_run(run, "hub:me/mine")
    assert len(hub.commits) == 1


def test_weights_of_an_earlier_export_go_with_the_commit(hub: Any, tmp_path: Path) -> None:
    """What people wrote beside the model stays."""
    hub.files = {"model-00001-of-00002.safetensors": b"old", "NOTES.md": b"mine"}
    run, _ = tiny_run(str(tmp_path))
    export_run(run, "hub:me/mine")
    assert [name for name in hub.files if name.endswith(".safetensors")] == ["model.safetensors"]
    assert hub.files["NOTES.md"] == b"mine"


def test_a_gguf_file_goes_to_the_hub_with_its_card(hub: Any, tmp_path: Path) -> None:
    """The hub shows a README; a folder gets the file alone."""
    run, _ = tiny_run(str(tmp_path))
    export_run(run, str(tmp_path / "m.gguf"), form="gguf", push_to="hub:me/mine")
    assert sorted(hub.files) == ["README.md", "m.gguf"]
    assert "llama-cli -m m.gguf" in hub.files["README.md"].decode()


def test_a_token_that_may_not_write_is_told(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, not the token; nothing is pushed."""
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(AccessError, match=r"Invalid credentials.*HF_TOKEN") as caught:
        publish_folder(tmp_path / "out", "hub:me/mine", commit="config.json", message="m")
    assert "hf_other" not in str(caught.value)
    assert hub.files == {}


def test_a_hub_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other store."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(StorageError, match="cannot be reached"):
        publish_folder(tmp_path, "hub:me/mine", commit="config.json", message="m")


def test_every_wrong_name_is_told_before_any_work(tmp_path: Path) -> None:
    """Also that a run without adapters has none to export."""
    run, _ = tiny_run(str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        export_run(run, "hub:mine", dtype="fp16", push_to="hub:")
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="trains all weights and has no adapter"):
        export_run(run, str(tmp_path / "out"), form="adapter")


def test_an_adapter_is_exported_alone(tmp_path: Path) -> None:
    """PEFT puts it on the base model that it names, and the two compute what the run's model did."""
    import torch
    from peft import AutoPeftModelForCausalLM

    run, trained = tiny_run(str(tmp_path), lora=LoraSection(rank=4))
    folder = Path(export_run(run, str(tmp_path / "adapter"), form="adapter"))
    assert not (folder / "config.json").exists()
    assert not list(folder.glob("model*.safetensors"))
    loaded = AutoPeftModelForCausalLM.from_pretrained(str(folder))
    ids = torch.arange(30)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, trained(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    card = (folder / "README.md").read_text()
    assert "library_name: peft" in card
    assert "AutoPeftModelForCausalLM" in card
