"""Published models become model folders, seen whole or not at all, from a hub on this machine."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevl
from edgevl.cli import run
from edgevl.errors import BackendMissing, DownloadError, EdgeVLError, ExportError
from edgevl.export import pull_model
from edgevl.export.folder import locked
from edgevl.model import hub as hub_module
from edgevl.model import manifest
from edgevl.verify import verify
from tests.hub_server import Hub, serving

REPO = "somebody/small"
DATA = "onnx/decoder_model_merged.onnx_data"
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, which does not exist yet."""
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def hub(models: Path, smolvlm_layout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a model that runs as it is."""
    with serving(monkeypatch) as server:
        server.add_folder(REPO, smolvlm_layout, OLD)
        yield server


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


def refused(*_: object) -> None:
    """Make no link, as disks do that have none."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


class TestLayout:
    def test_it_answers_as_the_one_that_was_described_by_hand(
        self, hub: Hub, models: Path, smolvlm_merged_dir: Path
    ) -> None:
        files = hub.repos[REPO][OLD]
        more = {"onnx/decoder_model_merged_fp16.onnx": b"x" * 9000, "model.safetensors": b"x" * 9000}
        hub.add(REPO, {**files, **more}, NEW)
        told: list[tuple[str, float]] = []
        folder, made = pull_model(f"hf:{REPO}", progress=lambda stage, done: told.append((stage, done)))
        assert folder == models / "small"
        assert (made.name, made.source.checkpoint) == ("small", f"{REPO}@{NEW}")
        assert {request.path for request in hub.requests} == set(files), "only what is needed is fetched"
        assert hidden(models) == []
        assert sorted(path.name for path in (folder / "onnx").iterdir()) == [
            "decoder_model_merged.onnx",
            "decoder_model_merged.onnx_data",
            "vision_encoder.onnx",
        ]
        assert [done for _, done in told] == sorted(done for _, done in told)
        assert told[-1] == ("done", 1.0)
        assert verify(folder).ok
        picture = np.arange(90 * 80 * 3, dtype=np.uint8).reshape(90, 80, 3)
        answers = []
        for model in ("small", smolvlm_merged_dir):
            with edgevl.load(model, store=False) as vlm:
                answers.append(vlm.ask(picture, "what?", max_tokens=8).token_ids)
        assert answers[0] == answers[1]

    def test_without_hard_links_the_files_are_its_own(
        self, hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "link", refused)
        folder, _ = pull_model(f"hf:{REPO}")
        assert hidden(models) == []
        assert not any(path.is_symlink() for path in folder.rglob("*"))
        assert verify(folder).ok

    def test_a_name_of_the_registry_is_pulled_in_its_revision(
        self, hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.add(REPO, {}, NEW)
        entry = hub_module.RegistryEntry("tiny", REPO, OLD, "onnx", "MIT", 1, 1, 1, 1, "")
        monkeypatch.setattr(hub_module, "registry", lambda: [entry])
        folder, made = pull_model("tiny")
        assert (folder, made.source.checkpoint) == (models / "tiny", f"{REPO}@{OLD}")
        assert hub_module.find("tiny") == folder

    def test_what_has_arrived_is_not_fetched_again(self, hub: Hub, models: Path) -> None:
        hub.cut[DATA] = [70_000, 0]
        assert failing().endswith("the same command goes on where it was")
        assert seen(models) == []
        assert hidden(models) == [f".small.{OLD[:12]}.download"]
        assert next(hub_module.local()).parent != models
        hub.requests.clear()
        pull_model(f"hf:{REPO}@{OLD}")
        assert hub.fetched(DATA) == [70_000]
        assert hub.fetched("config.json") == []
        assert (seen(models), hidden(models)) == (["small"], [])

    def test_another_revision_begins_anew(self, hub: Hub, models: Path, smolvlm_layout: Path) -> None:
        hub.cut[DATA] = [70_000, 0]
        failing()
        hub.add_folder(REPO, smolvlm_layout, NEW)
        pull_model(f"hf:{REPO}")
        assert hub.fetched(DATA)[-1] == 0
        assert hidden(models) == []

    def test_a_model_of_this_name_is_replaced_only_by_force(
        self, hub: Hub, models: Path, smolvlm_merged_dir: Path
    ) -> None:
        models.mkdir()
        (models / "small").mkdir()
        (models / "small" / manifest.FILE_NAME).write_text("{}")
        assert "exists; choose another" in failing(kind=ExportError)
        assert hub.requests == []
        pull_model(f"hf:{REPO}", force=True)
        assert manifest.read(models / "small").name == "small"
        assert hidden(models) == []

    def test_one_that_cannot_be_used_is_refused_before_the_long_part(self, hub: Hub, models: Path) -> None:
        files = hub.repos[REPO][OLD]
        hub.add(REPO, {**files, "config.json": json.dumps({"model_type": "bert"}).encode()}, NEW)
        assert "model_type: 'bert' cannot be exported" in failing(kind=edgevl.UnsupportedFamily)
        assert hub.fetched("onnx/vision_encoder.onnx") == []
        assert seen(models) == []

    def test_one_that_does_not_run_is_not_fetched_again(self, hub: Hub, models: Path) -> None:
        hub.add(REPO, {**hub.repos[REPO][OLD], "onnx/vision_encoder.onnx": b"no graph" * 1000}, NEW)
        assert "cannot load it" in failing(kind=edgevl.GraphError)
        assert seen(models) == []
        hub.requests.clear()
        failing(kind=edgevl.GraphError)
        assert hub.requests == []


class TestRefused:
    def test_what_holds_nothing_to_run_is_told_how_to_export_it(self, hub: Hub, models: Path) -> None:
        hub.add("somebody/plain", {"model.safetensors": b"x", "config.json": b"{}"})
        assert failing("hf:somebody/plain") == (
            "somebody/plain: holds no graphs and no pair of GGUF files that run as they are; if it is a checkpoint: "
            f"hf download somebody/plain --local-dir DIR, then edgevl export DIR -o {models / 'plain'}"
        )

    def test_a_precision_that_is_not_there(self, hub: Hub) -> None:
        assert failing(kind=ExportError, decoder="q4") == (
            "onnx/decoder_model_merged: is not there in the precision q4; choose one of fp32"
        )

    def test_a_name_that_the_registry_does_not_have(self) -> None:
        assert failing("small") == (
            "small: is not in the registry that `edgevl models` lists; give another as hf:owner/name"
        )

    def test_a_name_that_is_empty_or_bundled(self) -> None:
        assert failing("") == "the name is empty; `edgevl models` lists what can be pulled"
        assert failing("edgevl-tiny").startswith("edgevl-tiny: comes with edgevl, so there is nothing to fetch")

    @pytest.mark.parametrize("name", ["../small", ".small", "a/b"])
    def test_a_name_that_is_no_folder(self, name: str) -> None:
        assert failing(name=name) == f"{name!r} is no name for a model; choose another with --name"


class TestPairs:
    FILES = ("mmproj-small-f16.gguf", "small-f16.gguf", "small-Q8_0.gguf")

    def test_the_extras_are_asked_for_before_anything_is_fetched(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.add("somebody/pair", dict.fromkeys(self.FILES, b"x" * 3000))
        monkeypatch.setattr("edgevl.export.find_spec", lambda name: None if name == "onnx" else object())
        assert failing("hf:somebody/pair", BackendMissing).endswith("pip install 'edgevl[gguf]'")
        assert hub.requests == []

    def test_weights_that_are_not_there(self, hub: Hub) -> None:
        hub.add("somebody/pair", dict.fromkeys(self.FILES, b"x"))
        assert failing("hf:somebody/pair", decoder="q4_0") == (
            "somebody/pair: has no decoder in q4_0; choose one of q8_0, f16"
        )

    def test_of_known_files_only_those_are_chosen_from_and_only_as_they_were(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.add("somebody/pair", dict.fromkeys(self.FILES, b"x" * 3000))
        digests = {file.path: file.digest for file in hub_module.look_up("somebody/pair").files}
        known = {path: digests[path] for path in self.FILES[:2]}  # without Q8_0, which would come first
        entry = hub_module.RegistryEntry("small", "somebody/pair", None, "gguf", "MIT", 1, 1, 1, 1, "", known)
        monkeypatch.setattr(hub_module, "registry", lambda: [entry])
        assert failing("small", decoder="q8_0") == "somebody/pair: has no decoder in q8_0; choose one of f16"
        known["small-f16.gguf"] = "0" * 64
        assert failing("small") == (
            "somebody/pair/small-f16.gguf: is no longer the file that this version of edgevl knows; to take it as it "
            "is now: edgevl pull hf:somebody/pair"
        )

    def test_a_pair_becomes_a_model(
        self, hub: Hub, models: Path, smolvlm_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it comes with the extra gguf")
        from tests.pairs import written

        files = written(models.parent, smolvlm_checkpoint)
        content = {"mmproj-small-f16.gguf": files.mmproj.read_bytes(), "small-f16.gguf": files.decoder.read_bytes()}
        hub.add("somebody/pair", content)
        hub.cut["small-f16.gguf"] = [50_000, 0]
        failing("hf:somebody/pair", vision="fp32")
        assert seen(models) == []
        with locked(models / f".pair.{'1' * 12}.download"):
            said = failing("hf:somebody/pair", ExportError, vision="fp32")
        assert "another export into this folder is running" in said
        folder, made = pull_model("hf:somebody/pair", vision="fp32")
        assert hub.fetched("small-f16.gguf") == [0, 50_000, 50_000]
        assert (made.name, made.decoder.kind, made.source.checkpoint) == ("pair", "gguf", f"somebody/pair@{'1' * 40}")
        assert manifest.read(folder) == made
        assert hidden(models) == []
        assert "exists; choose another name" in failing("hf:somebody/pair", ExportError, vision="fp32")
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", refused)
            folder, _ = pull_model("hf:somebody/pair", vision="fp32", name="other")
        assert hidden(models) == []
        assert not (folder / "decoder.gguf").is_symlink()
        assert verify(folder).ok


class TestCommand:
    def test_it_says_what_was_made(self, hub: Hub, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["pull", f"hf:{REPO}", "--name", "mine"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"{models / 'mine'}: mine, ")
        assert DATA in err.splitlines()
        assert run(["models"]) == 0
        assert "vision fp32, decoder merged fp32" in capsys.readouterr().out

    def test_ctrl_c_says_what_is_kept(
        self, hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(hub_module, "_receive", stop)
        assert run(["pull", f"hf:{REPO}"]) == 130
        assert "note: what has arrived is kept; the same command goes on from there" in capsys.readouterr().err
        assert seen(models) == []

    def test_the_hubs_address_and_the_offline_mode_are_those_of_the_environment(
        self, hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("somebody/plain", {"config.json": b"{}"})
        code = "import sys; from edgevl.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "pull", "hf:somebody/plain"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "somebody/plain: holds no graphs" in done.stderr
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        told = "error: somebody/plain: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it"
        assert done.stderr.splitlines()[-1] == told
