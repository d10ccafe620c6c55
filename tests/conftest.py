"""Fixtures that several test folders share."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("edgevl", deadline=None)  # a busy machine is not a failure
settings.load_profile("edgevl")

SLOW = (
    "benchmarks",
    "engine/test_ahead.py",
    "engine/test_forks.py",
    "engine/native/test_graphs.py",
    "engine/native/test_hostile.py",
    "engine/native/test_library.py",
    "engine/native/test_systems.py",
    "engine/test_gguf.py",
    "export",
    "image/test_bad_images.py",
    "model/test_gguf.py",
    "model/test_prompt.py",
    "recipe",
    "store/test_trouble.py",
    "test_cli.py",
    "test_generate.py",
    "test_parity.py",
    "test_pipeline.py",
    "test_speculation.py",
    "test_start.py",
    "test_stores.py",
)
"""What is marked `slow`: folders and modules in which PyTorch, an export or a new process computes along."""

SHARED = Path(os.environ.get("EDGEVL_SHARED") or Path(__file__).parents[2] / "shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(SLOW):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with photos and hostile files that the repository does not hold; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared folder at {SHARED}; set EDGEVL_SHARED to its path")
    return SHARED


@pytest.fixture(scope="session")
def smolvlm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SmolVLM-shaped checkpoint with random weights: tiles of 64 pixels, 4 tokens each. Do not write into it."""
    from tests.checkpoints import make_smolvlm

    return make_smolvlm(tmp_path_factory.mktemp("smolvlm") / "checkpoint")


@pytest.fixture(scope="session")
def smolvlm_model_dir(smolvlm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 export of `smolvlm_checkpoint`. Do not write into it."""
    from edgevl.export import export_model

    out = tmp_path_factory.mktemp("exported") / "smolvlm"
    export_model(smolvlm_checkpoint, out, vision="fp32", decoder="fp32")
    return out


@pytest.fixture(scope="session")
def smolvlm_int4_dir(smolvlm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of `smolvlm_checkpoint`, an int8 encoder and an int4 decoder with a graph for prompts. Do not write
    into it."""
    from edgevl.export import export_model

    out = tmp_path_factory.mktemp("int4") / "smolvlm"
    export_model(smolvlm_checkpoint, out, vision="int8", decoder="int4", prefill=True)
    return out


@pytest.fixture(scope="session")
def smolvlm_gguf_dir(
    smolvlm_checkpoint: Path, smolvlm_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`smolvlm_model_dir` with its decoder as GGUF in float16; skips without llama-cpp-python. Do not write into it."""
    from tests.mixed import with_gguf

    return with_gguf(smolvlm_model_dir, smolvlm_checkpoint, tmp_path_factory.mktemp("mixed") / "smolvlm")


@pytest.fixture(scope="session")
def smolvlm_layout(smolvlm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`smolvlm_checkpoint` as transformers.js has it, decoder weights in a file of their own. Do not write into it."""
    from tests.published import write_layout

    return write_layout(smolvlm_checkpoint, tmp_path_factory.mktemp("layout") / "smolvlm", beside=True)


@pytest.fixture(scope="session")
def smolvlm_merged_dir(smolvlm_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`smolvlm_layout` as a model folder. Do not write into it."""
    from edgevl.export.published import describe

    out = Path(shutil.copytree(smolvlm_layout, tmp_path_factory.mktemp("merged") / "smolvlm"))
    describe(out)
    return out


@pytest.fixture(scope="session")
def bundled_gguf_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with its decoder as GGUF in float16; skips without llama-cpp-python. Do not write into it."""
    from tests.mixed import with_gguf

    bundled = Path(__file__).parents[1] / "models" / "edgevl-tiny"
    return with_gguf(bundled, bundled / "checkpoint", tmp_path_factory.mktemp("mixed") / "edgevl-tiny")


@pytest.fixture(scope="session")
def damaged_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with its token embeddings in another order: another model. Do not write into it."""
    import numpy as np

    from edgevl.model import hub, manifest

    source, copy = hub.find(None), tmp_path_factory.mktemp("damaged") / "model"
    copy.mkdir()
    spec = manifest.read(source)
    for name in spec.files:
        shutil.copyfile(source / name, copy / name)
    path = copy / "embeddings.npy"
    np.save(path, np.random.default_rng(0).permutation(np.load(path)))
    raw = json.loads((source / manifest.FILE_NAME).read_text("utf-8"))
    raw["files"][path.name] = {"n_bytes": path.stat().st_size, "sha256": manifest.sha256(path)}
    (copy / manifest.FILE_NAME).write_text(json.dumps(raw), "utf-8")
    return copy


@pytest.fixture
def as_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let decoders be computed as graphs, be they described or not."""
    monkeypatch.setenv("EDGEVL_NATIVE", "off")


@pytest.fixture(scope="session", autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' store and profiles away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEVL_STORE_DIR", str(tmp_path_factory.mktemp("store")))
        patch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path_factory.mktemp("profiles")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Let no test of this process reach another machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return connect(self, address)
        raise AssertionError(f"a test tried to reach {address}; tests need no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield
