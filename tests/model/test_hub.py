from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevl.errors import ModelNotFound
from edgevl.model import hub, manifest


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the user's folder ("user"), the bundled data ("installed") and the working directory ("here"), all empty."""
    for name in ("user", "installed", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(tmp_path / "user"))
    monkeypatch.setattr(hub, "installed_folder", lambda: tmp_path / "installed")
    (tmp_path / "installed" / "registry.json").write_text("[]")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / manifest.FILE_NAME).write_text("{}", encoding="utf-8")
    return folder


def test_none_is_the_bundled_model(folders: Path) -> None:
    assert hub.find(None) == folders / "installed" / hub.BUNDLED


def test_a_path_is_that_folder(folders: Path) -> None:
    made = make(folders / "here" / "my" / "model")
    assert hub.find(made) == made
    assert hub.find(str(made)) == made
    assert hub.find("my/model").resolve() == made
    assert hub.find(Path("my") / "model").resolve() == made


def test_a_folder_without_a_manifest_is_left_to_its_reader(folders: Path) -> None:
    (folders / "here" / "empty").mkdir()
    assert hub.find("empty").resolve() == folders / "here" / "empty"
    with pytest.raises(ModelNotFound, match=r"holds no edgevl\.json, so it is not a model folder"):
        manifest.read(hub.find("empty"))


def test_home_is_known(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folders / "home"))
    monkeypatch.setenv("USERPROFILE", str(folders / "home"))
    made = make(folders / "home" / "model")
    assert hub.find("~/model") == made


def test_a_name_is_looked_for_here_then_with_the_user_then_among_the_bundled(folders: Path) -> None:
    bundled = make(folders / "installed" / "small")
    assert hub.find("small") == bundled
    users = make(folders / "user" / "small")
    assert hub.find("small") == users
    (folders / "here" / "small").mkdir()  # a folder of this name that is no model hides none
    assert hub.find("small") == users
    (folders / "here" / "small").rmdir()
    make(folders / "here" / "small")
    assert hub.find("small") == Path("small")


@pytest.mark.parametrize("name", ["nothing", "edgevl.json"])
def test_an_unknown_name_says_where_was_looked(folders: Path, name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        hub.find(name)
    assert str(caught.value) == (
        f"{name}: no model of this name in {folders / 'user'} or among the bundled; `edgevl models` lists what is here"
    )


@pytest.mark.parametrize("path", ["no/such/folder", "../nothing", "/no/such/folder"])
def test_a_path_that_is_not_there_is_named(path: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        hub.find(path)
    assert str(caught.value) == f"{path}: no such model folder; `edgevl models` lists what is here"


def test_the_empty_name_is_no_model(folders: Path) -> None:
    (folders / "here" / manifest.FILE_NAME).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelNotFound, match="the model's name is empty"):
        hub.find("")


def test_a_name_cannot_leave_its_folder(folders: Path) -> None:
    make(folders / "secret")
    if os.name != "nt":  # there it is a path
        with pytest.raises(ModelNotFound):
            hub.find("..\\secret")
    assert hub.find("../secret") == Path("../secret")  # a path may: it is the caller's own


def test_local_lists_the_users_models_first_and_skips_what_is_none(folders: Path) -> None:
    make(folders / "user" / ".half")  # one that is being made
    made = [make(folders / "user" / name) for name in ("a", "b")] + [make(folders / "installed" / "c")]
    (folders / "user" / "notes").mkdir()
    (folders / "user" / "file.txt").write_text("x", encoding="utf-8")
    assert list(hub.local()) == made


def test_what_may_not_be_looked_into_hides_nothing_else(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [make(folders / "user" / name) for name in ("a", "b")]
    is_file, iterdir = Path.is_file, Path.iterdir

    def refusing(path: Path) -> bool:
        if path.parent == made[0]:
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    assert list(hub.local()) == made  # whoever reads the first one says what is wrong

    def refused(path: Path) -> Iterator[Path]:
        if path == folders / "user":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    assert list(hub.local()) == []


def test_local_without_a_users_folder(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(folders / "missing"))
    made = make(folders / "installed" / "c")
    assert list(hub.local()) == [made]


def test_the_users_folder_is_the_platforms_unless_chosen(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.user_folder() == folders / "user"
    monkeypatch.setenv("EDGEVL_MODELS_DIR", "~/vision")
    assert hub.user_folder() == Path("~/vision").expanduser()
    monkeypatch.delenv("EDGEVL_MODELS_DIR")
    assert hub.user_folder().parts[-2:] == ("edgevl", "models")


def test_the_registry_lists_published_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    entries = hub.registry()
    assert [(entry.name, entry.form) for entry in entries] == [
        ("smolvlm-256m", "onnx"),
        ("smolvlm-500m", "onnx"),
        ("smolvlm-2.2b", "onnx"),
        ("smolvlm2-256m-video", "onnx"),
        ("smolvlm2-500m-video", "onnx"),
        ("internvl3-1b", "gguf"),
        ("internvl3-1b-hf", "checkpoint"),
        ("internvl3-2b", "gguf"),
        ("llava-1.5-7b", "checkpoint"),
        ("idefics3-8b", "checkpoint"),
    ]
    assert len({entry.repo for entry in entries}) == len(entries)
    # Which files are meant is known of all but one, which has a fixed revision beside it.
    assert [entry.name for entry in entries if not (entry.revision or entry.digests)] == ["internvl3-1b"]
    for entry in entries:
        assert entry.repo.count("/") == 1
        assert entry.licence in ("Apache-2.0", "Llama-2")
        assert entry.revision is None or re.fullmatch("[0-9a-f]{40}", entry.revision)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in entry.digests.values())
        assert entry.note.endswith(".")
        assert entry.n_parameters / 4 < entry.disk_bytes <= entry.download_bytes < 5 * entry.n_parameters
        assert entry.disk_bytes < entry.memory_bytes


def test_a_name_of_the_registry_that_is_not_here_is_told_how_to_get_it(folders: Path) -> None:
    (folders / "installed" / "registry.json").write_text(
        '[{"name": "small", "repo": "a/b", "revision": null, "form": "onnx", "licence": "MIT", "n_parameters": 9,'
        ' "download_bytes": 5, "disk_bytes": 5, "memory_bytes": 8, "note": ""}]'
    )
    with pytest.raises(ModelNotFound) as caught:
        hub.find("small")
    assert str(caught.value) == "small: is not here yet; get it with: edgevl pull small"


def test_the_data_that_comes_along_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert (hub.installed_folder() / "registry.json").is_file()
