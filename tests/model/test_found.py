from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgevl.errors import ModelNotFound
from edgevl.model.found import Found, found, from_ollama

MODEL, PROJECTOR = "application/vnd.ollama.image.model", "application/vnd.ollama.image.projector"
OTHERS = ("application/vnd.ollama.image.template", "application/vnd.ollama.image.params")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, in which no program has anything."""
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    return tmp_path


def ollama(home: Path, name: str, *kinds: str, root: str = "ollama") -> list[Path]:
    """Put a model into Ollama's folder, with a blob for each kind of layer; return the blobs."""
    folder, layers, paths = home / root, [], []
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for number, kind in enumerate((*kinds, *OTHERS)):
        digest = f"{abs(hash((name, number))):064x}"
        paths.append(folder / "blobs" / f"sha256-{digest}")
        paths[-1].write_bytes(kind.encode())
        layers.append({"mediaType": kind, "digest": f"sha256:{digest}", "size": len(kind)})
    path = folder / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return paths


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")


class TestOllama:
    @pytest.mark.parametrize(
        ("place", "name"),
        [
            ("registry.ollama.ai/library/llava/7b", "llava:7b"),
            ("registry.ollama.ai/library/llava/latest", "llava"),
            ("registry.ollama.ai/library/llava/latest", "llava:latest"),
            ("registry.ollama.ai/somebody/see/v2", "somebody/see:v2"),
            ("hf.co/ggml-org/SmolVLM-256M-Instruct-GGUF/Q8_0", "hf.co/ggml-org/SmolVLM-256M-Instruct-GGUF:Q8_0"),
        ],
    )
    def test_a_name_is_that_of_its_manifest(self, home: Path, place: str, name: str) -> None:
        blobs = ollama(home, place, MODEL, PROJECTOR)
        pair = from_ollama(name)
        assert (pair.decoder, pair.mmproj, pair.program) == (blobs[0], blobs[1], "Ollama")
        assert pair.n_bytes == len(MODEL) + len(PROJECTOR)

    def test_a_name_that_is_not_there(self, home: Path) -> None:
        ollama(home, "registry.ollama.ai/library/llava/7b", MODEL, PROJECTOR)
        with pytest.raises(ModelNotFound) as caught:
            from_ollama("llava:13b")
        assert str(caught.value) == (
            f"ollama:llava:13b: Ollama has no model of this name ({home / 'ollama'}); "
            "`edgevl models --found` lists those here"
        )

    def test_without_ollama(self) -> None:
        with pytest.raises(ModelNotFound, match="none of Ollama's folders is here"):
            from_ollama("llava")

    def test_a_model_without_an_mmproj(self, home: Path) -> None:
        ollama(home, "registry.ollama.ai/library/text/latest", MODEL)
        with pytest.raises(ModelNotFound) as caught:
            from_ollama("text")
        assert str(caught.value) == (
            "ollama:text: has no mmproj file of its own, so that only Ollama can run its vision half; "
            "`edgevl models --found` lists those that have one"
        )
        assert list(found()) == []

    @pytest.mark.parametrize("name", ["", ":", "a/b/c/d", "../x/y", "a/..:b", "x:../../y", "a\\b"])
    def test_what_is_no_name(self, home: Path, name: str) -> None:
        ollama(home, "registry.ollama.ai/library/x/y", MODEL, PROJECTOR)
        with pytest.raises(ModelNotFound, match=r"is no name of a model of Ollama's, such as ollama:NAME:TAG"):
            from_ollama(name)

    @pytest.mark.parametrize(
        "content", [b"", b"\xff", b"[]", b"{}", b'{"layers": 3}', b'{"layers": [{"mediaType": 1}]}', b"[" * 100_000]
    )
    def test_a_damaged_manifest_is_left_out(self, home: Path, content: bytes) -> None:
        ollama(home, "registry.ollama.ai/library/good/latest", MODEL, PROJECTOR)
        ollama(home, "registry.ollama.ai/library/bad/latest", MODEL, PROJECTOR)
        (home / "ollama/manifests/registry.ollama.ai/library/bad/latest").write_bytes(content)
        assert [pair.name for pair in found()] == ["ollama:good:latest"]
        with pytest.raises(ModelNotFound, match=r"^ollama:bad: .*latest is damaged; run: ollama pull bad$"):
            from_ollama("bad")

    def test_a_digest_cannot_lead_outside(self, home: Path) -> None:
        put(home / "secret", home / "other")
        path = home / "ollama/manifests/registry.ollama.ai/library/evil/latest"
        put(path)
        layers: list[Any] = [
            {"mediaType": MODEL, "digest": "../../secret"},
            {"mediaType": PROJECTOR, "digest": "/other"},
        ]
        path.write_text(json.dumps({"layers": layers}))
        assert list(found()) == []

    def test_blobs_that_are_not_there_any_more(self, home: Path) -> None:
        ollama(home, "registry.ollama.ai/library/llava/latest", MODEL, PROJECTOR)[1].unlink()
        assert list(found()) == []
        with pytest.raises(ModelNotFound, match=r"^ollama:llava: lacks .*; run: ollama pull llava$"):
            from_ollama("llava")

    def test_the_users_folder_unless_another_is_named(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ollama(home, "registry.ollama.ai/library/mine/latest", MODEL, PROJECTOR, root=".ollama/models")
        assert list(found()) == []
        monkeypatch.delenv("OLLAMA_MODELS")
        assert "ollama:mine:latest" in [pair.name for pair in found()]


class TestOthers:
    def test_lm_studio(self, home: Path) -> None:
        folder = home / ".lmstudio" / "models" / "somebody" / "small-GGUF"
        decoder, mmproj = folder / "small-Q4_K_M.gguf", folder / "mmproj-small-F16.gguf"
        put(decoder, mmproj, folder / "notes.txt", folder.parent / "text-GGUF" / "text-Q4_K_M.gguf")
        [pair] = found()
        assert pair == Found(str(decoder), "LM Studio", decoder, mmproj)
        assert pair.sources == (str(decoder), str(mmproj), "-o", "small-Q4_K_M")

    @pytest.mark.parametrize(
        ("platform", "folder", "variable"),
        [
            ("linux", ".cache/llama.cpp", None),
            ("linux", "elsewhere/llama.cpp", "XDG_CACHE_HOME"),
            ("darwin", "Library/Caches/llama.cpp", None),
            ("win32", "AppData/Local/llama.cpp", None),
            ("win32", "elsewhere/llama.cpp", "LOCALAPPDATA"),
            ("linux", "elsewhere", "LLAMA_CACHE"),
        ],
    )
    def test_llama_cpps_cache(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, platform: str, folder: str, variable: str | None
    ) -> None:
        monkeypatch.setattr(sys, "platform", platform)
        if variable:
            monkeypatch.setenv(variable, str(home / "elsewhere"))
        put(home / folder / "org_small_x-Q8_0.gguf", home / folder / "org_small_mmproj-x-Q8_0.gguf")
        [pair] = found()
        assert (pair.program, pair.decoder.name) == ("llama.cpp", "org_small_x-Q8_0.gguf")

    @pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
    def test_links_are_followed_once_and_capitals_do_not_count(self, home: Path) -> None:
        elsewhere, folder = home / "large-disk", home / ".lmstudio" / "models"
        put(elsewhere / "small" / "small-Q4_0.GGUF", elsewhere / "small" / "mmproj-small.gguf")
        folder.mkdir(parents=True)
        (folder / "somebody").symlink_to(elsewhere, target_is_directory=True)
        (elsewhere / "round").symlink_to(folder, target_is_directory=True)
        [pair] = found()
        assert (pair.decoder, pair.mmproj.name) == (folder / "somebody/small/small-Q4_0.GGUF", "mmproj-small.gguf")

    def test_a_folder_that_may_not_be_looked_into_hides_no_other(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, is_dir = home / ".lmstudio" / "models", Path.is_dir
        put(folder / "small.gguf", folder / "mmproj-small.gguf")

        def refusing(path: Path) -> bool:
            if path == home / "ollama":
                raise PermissionError(13, "Permission denied")
            return is_dir(path)

        monkeypatch.setattr(Path, "is_dir", refusing)
        assert [pair.program for pair in found()] == ["LM Studio"]

    def test_nothing_is_there(self) -> None:
        assert list(found()) == []
