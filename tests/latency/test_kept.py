"""Profiles on disk: kept per machine, model, threads and versions; whatever is wrong with a file, nothing is raised."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from edgevl import machine
from edgevl.engine import openvino
from edgevl.latency import kept
from tests.latency.test_profile import PROFILE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "cache" / "profiles"))
    return tmp_path / "cache" / "profiles"


def key(model: str = "ab", threads: int | None = None) -> kept.Key:
    return kept.key_of(model, device="auto", threads=threads)


def test_a_profile_is_kept_under_its_key(folder: Path) -> None:
    assert kept.read(key()) is None
    assert kept.write(key(), PROFILE)
    assert kept.read(key()) == PROFILE
    assert kept.read(key("cd")) is None
    assert kept.read(key(threads=77)) is None
    again = replace(PROFILE, encode_s=9.0)
    assert kept.write(key(), again)
    assert kept.read(key()) == again
    assert len(list(folder.iterdir())) == 1
    kept.forget(key())
    kept.forget(key())
    assert kept.read(key()) is None


def test_another_machine_or_version_has_another_profile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write(key(), PROFILE)
    about = machine.describe()
    for other in (
        replace(about, cpu="another"),
        replace(about, n_usable=about.n_usable + 1),
        replace(about, features=None),
        replace(about, versions={**about.versions, "onnxruntime": "99"}),
    ):
        monkeypatch.setattr(machine, "describe", lambda other=other: other)
        assert kept.read(key()) is None


@pytest.mark.parametrize("engine", ["openvino", "llama.cpp"])
def test_what_an_engine_added_since_runs_has_another_profile(
    engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = kept.installed
    monkeypatch.setattr(kept, "installed", lambda name: None if name == engine else installed(name))
    kept.write(key(), PROFILE)
    assert kept.read(key()) == PROFILE
    monkeypatch.setattr(kept, "installed", lambda name: "99" if name == engine else installed(name))
    assert kept.read(key()) is None


@pytest.mark.skipif(not openvino.is_present(), reason="needs openvino")
def test_an_engine_that_is_loaded_is_the_same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's module names its build too."""
    module = ModuleType("openvino")
    module.__spec__ = find_spec("openvino")
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    before = key()
    module.__version__ = "2026.4.1-22982-releases"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", module)
    assert key() == before


def test_the_default_number_of_threads_is_that_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "describe", lambda: machine.Machine("", None, 6, 12, None, "", "", {}))
    assert key(threads=None) == key(threads=6) != key(threads=12)


@pytest.mark.skipif(os.name == "nt", reason="modes of this kind are POSIX")
def test_only_the_owner_may_look(folder: Path) -> None:
    kept.write(key(), PROFILE)
    [file] = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        raw = json.loads(text)
        change(raw)
        return json.dumps(raw)

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:50],
        lambda text: "\0" * len(text),
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: "3",
        edited(lambda raw: raw.update(edgevl_measured=1)),
        edited(lambda raw: raw.update(measured=None)),
        edited(lambda raw: raw.pop("measured")),
        edited(lambda raw: raw.pop("key")),
        edited(lambda raw: raw.update(key={"model": "another"})),
        edited(lambda raw: raw["measured"].update(encode_s=-1)),  # type: ignore[attr-defined]
        edited(lambda raw: raw["measured"].update(encode_s=10**400)),  # type: ignore[attr-defined]
        edited(lambda raw: raw["measured"].update(encode_s=1e308)),  # type: ignore[attr-defined]
        edited(lambda raw: raw["measured"].pop("encode_s")),  # type: ignore[attr-defined]
    ],
)
def test_a_damaged_file_is_no_profile(damage: Callable[[str], str], folder: Path) -> None:
    kept.write(key(), PROFILE)
    [file] = folder.iterdir()
    file.write_text(damage(file.read_text()))
    assert kept.read(key()) is None
    assert kept.write(key(), PROFILE)
    assert kept.read(key()) == PROFILE


def test_bytes_and_a_folder_in_its_place_are_no_profile(folder: Path) -> None:
    kept.write(key(), PROFILE)
    [file] = folder.iterdir()
    file.write_bytes(b"\xff\xfe\x00")
    assert kept.read(key()) is None
    file.unlink()
    file.mkdir()
    assert kept.read(key()) is None
    assert not kept.write(key(), PROFILE)
    assert list(folder.iterdir()) == [file], "nothing is left behind"


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGEVL_PROFILE_DIR", str(tmp_path / "file" / "profiles"))
    assert not kept.write(key(), PROFILE)
    assert kept.read(key()) is None
    kept.forget(key())


def test_the_default_folder_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEVL_PROFILE_DIR")
    assert kept.folder().parts[-2:] == ("edgevl", "profiles") or os.name == "nt"
    assert kept.folder().name == "profiles"
