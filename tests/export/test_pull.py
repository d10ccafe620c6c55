"""Models are fetched from a hub on this machine, whole or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import _socket
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest

import edgevl
from edgevl.cli import run
from edgevl.errors import BackendMissing, ChecksumMismatch, DownloadError, EdgeVLError, ExportError
from edgevl.export import pull_model
from edgevl.model import hub as hub_module
from edgevl.model import manifest
from edgevl.verify import verify
from tests.hub_server import Hub, serving

REPO = "somebody/small"
DATA = "onnx/decoder_model_merged.onnx_data"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let these tests reach this machine, and no other."""

    def connect(self: socket.socket, address: Any) -> None:
        assert address[0] in ("127.0.0.1", "::1"), f"a test tried to reach {address}"
        _socket.socket.connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        yield server


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, which does not exist yet."""
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "models"


@pytest.fixture
def published(hub: Hub, models: Path, smolvlm_layout: Path) -> Hub:
    """A hub with a model that runs as it is."""
    hub.add_folder(REPO, smolvlm_layout, OLD)
    return hub


def failing(what: str = f"hf:{REPO}", kind: type[EdgeVLError] = DownloadError, **options: Any) -> str:
    """Return the one line with which pulling fails."""
    with pytest.raises(kind) as caught:
        pull_model(what, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def seen(models: Path) -> list[str]:
    """Return what a user sees in the folder of models."""
    return sorted(path.name for path in models.iterdir() if not path.name.startswith(".")) if models.exists() else []


def hidden(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if path.name.startswith("."))


class TestLayout:
    def test_it_answers_as_the_one_that_was_described_by_hand(
        self, published: Hub, models: Path, smolvlm_merged_dir: Path
    ) -> None:
        folder, made = pull_model(f"hf:{REPO}")
        assert folder == models / "small"
        assert (made.name, made.source.checkpoint) == ("small", f"{REPO}@{OLD}")
        assert hidden(models) == []
        assert sorted(path.name for path in (folder / "onnx").iterdir()) == [
            "decoder_model_merged.onnx",
            "decoder_model_merged.onnx_data",
            "vision_encoder.onnx",
        ]
        assert verify(folder).ok
        picture = np.arange(90 * 80 * 3, dtype=np.uint8).reshape(90, 80, 3)
        answers = []
        for model in ("small", smolvlm_merged_dir):
            with edgevl.load(model, store=False) as vlm:
                answers.append(vlm.ask(picture, "what?", max_tokens=8).token_ids)
        assert answers[0] == answers[1]

    def test_the_newest_revision_or_the_one_that_is_asked_for(self, published: Hub, smolvlm_layout: Path) -> None:
        published.add_folder(REPO, smolvlm_layout, NEW)
        assert pull_model(f"hf:{REPO}")[1].source.checkpoint == f"{REPO}@{NEW}"
        assert pull_model(f"hf:{REPO}@{OLD}", name="old")[1].source.checkpoint == f"{REPO}@{OLD}"

    def test_a_name_of_the_registry_is_pulled_in_its_revision(
        self, published: Hub, models: Path, monkeypatch: pytest.MonkeyPatch, smolvlm_layout: Path
    ) -> None:
        published.add_folder(REPO, smolvlm_layout, NEW)
        entry = hub_module.RegistryEntry("tiny", REPO, OLD, "onnx", "MIT", None, None, "")
        monkeypatch.setattr(hub_module, "registry", lambda: [entry])
        with pytest.raises(edgevl.ModelNotFound, match="tiny: is not here yet; get it with: edgevl pull tiny"):
            hub_module.find("tiny")
        folder, made = pull_model("tiny")
        assert (folder, made.source.checkpoint) == (models / "tiny", f"{REPO}@{OLD}")
        assert hub_module.find("tiny") == folder

    def test_only_what_is_needed_is_fetched(self, published: Hub, smolvlm_layout: Path) -> None:
        more = {"onnx/decoder_model_merged_fp16.onnx": b"x" * 9000, "model.safetensors": b"x" * 9000}
        files = published.repos[REPO][OLD]
        published.add(REPO, {**files, **more}, NEW)
        pull_model(f"hf:{REPO}", decoder="fp32")
        paths = {request.path for request in published.requests}
        assert paths == set(files)

    def test_progress_ends_at_one_and_never_falls(self, published: Hub) -> None:
        told: list[tuple[str, float]] = []
        pull_model(f"hf:{REPO}", progress=lambda stage, done: told.append((stage, done)))
        shares = [done for _, done in told]
        assert shares == sorted(shares)
        assert told[-1] == ("done", 1.0)
        assert DATA in [stage for stage, _ in told]

    def test_a_model_of_this_name_is_replaced_only_by_force(self, published: Hub, models: Path) -> None:
        pull_model(f"hf:{REPO}")
        assert "exists; choose another" in failing(kind=ExportError)
        (models / "small" / "mine.txt").write_text("mine")
        pull_model(f"hf:{REPO}", force=True)
        assert not (models / "small" / "mine.txt").exists()
        assert hidden(models) == []

    def test_a_model_that_cannot_be_used_is_refused_before_the_long_part(
        self, published: Hub, models: Path, smolvlm_layout: Path
    ) -> None:
        files = published.repos[REPO][OLD]
        published.add(REPO, {**files, "config.json": json.dumps({"model_type": "bert"}).encode()}, NEW)
        assert "model_type: 'bert' cannot be exported" in failing(kind=edgevl.UnsupportedFamily)
        assert published.fetched("onnx/vision_encoder.onnx") == []
        assert seen(models) == []


class TestInterrupted:
    def test_a_cut_connection_goes_on_by_itself(self, published: Hub) -> None:
        published.cut[DATA] = [70_000, 1000]
        pull_model(f"hf:{REPO}")
        assert published.fetched(DATA) == [0, 70_000, 71_000]

    def test_what_has_arrived_is_not_fetched_again(self, published: Hub, models: Path) -> None:
        published.cut[DATA] = [70_000, 0]
        assert failing().startswith(f"{REPO}: {published.url}/{REPO} cannot be reached (")
        assert seen(models) == []
        n_before = len(published.requests)
        pull_model(f"hf:{REPO}")
        again = published.requests[n_before:]
        assert [request.start for request in again if request.path == DATA] == [70_000]
        assert "config.json" not in [request.path for request in again]
        assert hidden(models) == []

    def test_ctrl_c_leaves_what_has_arrived(self, published: Hub, models: Path) -> None:
        def stop(stage: str, done: float) -> None:
            if stage == DATA:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pull_model(f"hf:{REPO}", progress=stop)
        assert seen(models) == []
        [kept] = hidden(models)
        assert kept == f".small.{OLD[:12]}.download"
        assert list(hub_module.local())[0].parent != models
        pull_model(f"hf:{REPO}")
        assert seen(models) == ["small"]

    def test_another_revision_begins_anew(self, published: Hub, models: Path, smolvlm_layout: Path) -> None:
        published.cut[DATA] = [70_000, 0]
        failing()
        published.add_folder(REPO, smolvlm_layout, NEW)
        pull_model(f"hf:{REPO}")
        assert published.fetched(DATA)[-1] == 0
        assert hidden(models) == []

    def test_a_server_that_cannot_go_on_sends_it_all(self, published: Hub) -> None:
        published.cut[DATA] = [70_000]
        published.ignores_ranges = True
        pull_model(f"hf:{REPO}")
        assert published.fetched(DATA) == [0, 0]

    def test_a_model_that_does_not_run_is_not_fetched_again(self, published: Hub, models: Path) -> None:
        files = dict(published.repos[REPO][OLD])
        files["onnx/vision_encoder.onnx"] = b"no graph" * 1000
        published.add(REPO, files, NEW)
        assert "cannot load it" in failing(kind=edgevl.GraphError)
        assert seen(models) == []
        n_before = len(published.requests)
        failing(kind=edgevl.GraphError)
        assert len(published.requests) == n_before


class TestRefused:
    @pytest.mark.parametrize("path", [DATA, "config.json"])
    def test_a_file_with_another_content(self, published: Hub, models: Path, path: str) -> None:
        published.damaged.add(path)
        assert failing(kind=ChecksumMismatch) == (
            f"{REPO}/{path}: arrived with another content than the hub names; run the same command again"
        )
        assert seen(models) == []
        published.damaged.clear()
        pull_model(f"hf:{REPO}")
        assert published.fetched(path) == [0, 0]

    def test_a_repository_that_is_not_there(self, published: Hub, models: Path) -> None:
        assert failing("hf:somebody/none") == (
            f"somebody/none: there is no {published.url}/somebody/none; if it is private, run: hf auth login"
        )
        assert seen(models) == []

    def test_a_revision_that_is_not_there(self, published: Hub) -> None:
        assert failing(f"hf:{REPO}@{NEW}") == f"{REPO}: has no revision {NEW}; see {published.url}/{REPO}"

    def test_a_file_that_is_not_there_any_more(self, published: Hub) -> None:
        published.gone.add("tokenizer.json")
        assert failing() == f"{REPO}: a file is not there any more (404); see {published.url}/{REPO}"

    def test_a_gated_repository(self, published: Hub, models: Path) -> None:
        published.gated.add(REPO)
        assert failing() == (
            f"{REPO}: its owner gives it to those who asked; ask on {published.url}/{REPO}, then run: hf auth login"
        )
        assert seen(models) == []

    @pytest.mark.parametrize("status", [403, 500, 503])
    def test_a_hub_that_refuses(self, published: Hub, status: int) -> None:
        published.status = status
        told = failing()
        assert f"({status}); run" in told
        assert ("hf auth login" in told) == (status == 403)

    def test_no_network(self, published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        told = failing()
        assert told.startswith(f"{REPO}: {url}/{REPO} cannot be reached (")
        assert told.endswith("); the same command goes on where it was")

    def test_no_room(self, published: Hub, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
        assert "free some space or let EDGEVL_MODELS_DIR name another place" in failing()
        assert published.requests == []
        assert seen(models) == []

    def test_what_holds_nothing_to_run_is_told_how_to_export_it(self, published: Hub, models: Path) -> None:
        published.add("somebody/plain", {"model.safetensors": b"x", "config.json": b"{}"})
        assert failing("hf:somebody/plain") == (
            "somebody/plain: holds no graphs and no pair of GGUF files that run as they are; if it is a checkpoint: "
            f"hf download somebody/plain --local-dir DIR, then edgevl export DIR -o {models / 'plain'}"
        )

    @pytest.mark.parametrize("path", ["../evil.gguf", "/etc/evil", "a/../../evil", "c:evil", "a\\evil"])
    def test_a_path_that_leads_outside(self, published: Hub, path: str) -> None:
        published.add("somebody/evil", {path: b"x"})
        assert "in a form that this version does not know" in failing("hf:somebody/evil")

    @pytest.mark.parametrize("what", ["hf:small", "hf:a/b/c", "hf:a b/c"])
    def test_what_is_no_repository(self, what: str) -> None:
        assert "is not the name of a repository, such as hf:owner/name" in failing(what)

    def test_a_name_that_the_registry_does_not_have(self) -> None:
        assert failing("small") == (
            "small: is not in the registry that `edgevl models` lists; give another as hf:owner/name"
        )

    @pytest.mark.parametrize("name", ["../small", ".small", "a/b"])
    def test_a_name_that_is_no_folder(self, published: Hub, name: str) -> None:
        assert failing(name=name) == f"{name!r} is no name for a model; choose another with --name"


class TestPairs:
    FILES = ("mmproj-small-f16.gguf", "small-f16.gguf", "small-Q8_0.gguf")

    def test_the_extras_are_asked_for_before_anything_is_fetched(
        self, published: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        published.add("somebody/pair", dict.fromkeys(self.FILES, b"x" * 3000))
        monkeypatch.setattr("edgevl.export.find_spec", lambda name: None if name == "torch" else object())
        assert failing("hf:somebody/pair", BackendMissing).endswith("pip install 'edgevl[export,gguf]'")
        assert published.requests == []

    def test_weights_that_are_not_there(self, published: Hub) -> None:
        published.add("somebody/pair", dict.fromkeys(self.FILES, b"x"))
        assert failing("hf:somebody/pair", decoder="q4_0") == (
            "somebody/pair: has no decoder in q4_0; choose one of q8_0, f16"
        )

    def test_a_pair_becomes_a_model(self, published: Hub, models: Path, smolvlm_checkpoint: Path) -> None:
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it comes with the extra gguf")
        from tests.pairs import written

        files = written(models.parent, smolvlm_checkpoint)
        content = {"mmproj-small-f16.gguf": files.mmproj.read_bytes(), "small-f16.gguf": files.decoder.read_bytes()}
        published.add("somebody/pair", content)
        published.cut["small-f16.gguf"] = [50_000, 0]
        failing("hf:somebody/pair", vision="fp32")
        assert seen(models) == []
        folder, made = pull_model("hf:somebody/pair", vision="fp32")
        assert published.fetched("small-f16.gguf") == [0, 50_000, 50_000]
        assert (made.name, made.decoder.kind, made.source.checkpoint) == ("pair", "gguf", f"somebody/pair@{'1' * 40}")
        assert manifest.read(folder) == made
        assert hidden(models) == []
        assert verify(folder).ok


def test_the_token_goes_to_the_hub_alone(published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull_model(f"hf:{REPO}")
    with_token = {request.path for request in published.requests if request.with_token}
    assert "processor_config.json" in with_token
    assert DATA not in with_token


class TestCommand:
    def test_it_says_what_was_made(self, published: Hub, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["pull", f"hf:{REPO}", "--name", "mine"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"{models / 'mine'}: mine, ")
        assert DATA in err.splitlines()
        assert run(["models"]) == 0
        assert "vision fp32, decoder merged fp32" in capsys.readouterr().out

    def test_the_hubs_address_and_the_offline_mode_are_those_of_the_environment(
        self, published: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", published.url)
        code = "import sys; from edgevl.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "pull", f"hf:{REPO}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, seen(models)) == (0, ["small"])
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        done = subprocess.run([*command, "--force"], capture_output=True, text=True)
        assert done.returncode == 1
        told = f"error: {REPO}: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it"
        assert done.stderr.splitlines()[-1] == told
        assert seen(models) == ["small"]
