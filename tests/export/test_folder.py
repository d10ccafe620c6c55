"""A model folder appears whole or not at all."""

from __future__ import annotations

import json
import shutil
from itertools import count
from pathlib import Path

import pytest

from edgevl.errors import ExportError, InputError
from edgevl.export.folder import building, check_space
from edgevl.model.manifest import FILE_NAME
from tests import interrupting


def write(folder: Path, text: str) -> None:
    (folder / FILE_NAME).write_text(text)


def build(out: Path, *, force: bool = False, error: type[BaseException] | None = None) -> None:
    """Build a folder whose manifest says "new", or fail with `error` half-way."""
    with building(out, force=force) as folder:
        write(folder, "new")
        if error is not None:
            raise error


def test_the_folder_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    with building(out, force=False) as folder:
        write(folder, "new")
        assert not out.exists()
    assert (out / FILE_NAME).read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(InputError, match="the home folder that ~ stands for is not known here"):
        build(Path("~nobody-here/model"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_stays_after_an_interruption(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        build(tmp_path / "model", error=error)
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    write(out, "old")
    with pytest.raises(KeyboardInterrupt):
        build(out, force=True, error=KeyboardInterrupt)
    assert (out / FILE_NAME).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("n_renamed", "kept"), [(1, "old"), (2, "new")])
def test_an_interruption_of_the_replacement_keeps_one_of_the_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_renamed: int, kept: str
) -> None:
    out = tmp_path / "model"
    out.mkdir()
    write(out, "old")
    rename, done = Path.rename, count(1)

    def interrupted(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if next(done) == n_renamed:
            raise KeyboardInterrupt
        return renamed

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(out, force=True)
    assert (out / FILE_NAME).read_text() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_replacement_that_is_refused_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    write(out, "old")
    with pytest.raises(FileNotFoundError), building(out, force=True) as folder:
        shutil.rmtree(folder)
    assert (out / FILE_NAME).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".model.export"
    left.mkdir()
    (left / "vision.onnx").write_text("half")
    with building(tmp_path / "model", force=False) as folder:
        assert list(folder.iterdir()) == []
        write(folder, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_replacement_that_was_cut_short_is_undone(tmp_path: Path) -> None:
    aside = tmp_path / ".model.replaced"
    aside.mkdir()
    write(aside, "old")
    with pytest.raises(ExportError, match="exists"):
        build(tmp_path / "model")
    assert (tmp_path / "model" / FILE_NAME).read_text() == "old"


def test_an_existing_folder_needs_force(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    write(out, "old")
    with pytest.raises(ExportError, match="exists; choose another place, or replace it with --force"):
        build(out)
    build(out, force=True)
    assert (out / FILE_NAME).read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    build(tmp_path / "model")
    assert (tmp_path / "model" / FILE_NAME).read_text() == "new"


def test_other_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("text")
    with pytest.raises(ExportError, match=r"is not a model folder \(it has no edgevl\.json\), so it is not replaced"):
        build(tmp_path / "thesis", force=True)
    (tmp_path / "file").write_text("text")
    with pytest.raises(ExportError, match="exists and is not a folder"):
        build(tmp_path / "file", force=True)


def test_what_is_read_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "model"
    (out / "deep").mkdir(parents=True)
    write(out, "old")
    (tmp_path / "other").symlink_to(out, target_is_directory=True)
    for source in (out, out / "deep" / "decoder.gguf", tmp_path / "other" / "mmproj.gguf"):
        with (
            pytest.raises(ExportError, match=r"is read, and would be lost where .*model is replaced; choose another"),
            building(out, force=True, sources=[tmp_path / "elsewhere", source]),
        ):
            pass
    assert (out / FILE_NAME).read_text() == "old"


def test_what_is_not_the_models_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "model"
    (out / "onnx").mkdir(parents=True)
    described = json.dumps({"files": {"onnx/vision.onnx": {}}})
    for name, content in ((FILE_NAME, described), ("onnx/vision.onnx", ""), ("README.md", ""), (".DS_Store", "")):
        (out / name).write_text(content)
    (out / "onnx" / "model.safetensors").write_text("a long download")
    with pytest.raises(ExportError, match=r"holds onnx/model.safetensors, which is not the model's, so it is not repl"):
        build(out, force=True)
    assert (out / FILE_NAME).read_text() == described
    (out / "onnx" / "model.safetensors").unlink()
    build(out, force=True)
    assert (out / FILE_NAME).read_text() == "new"


def test_an_empty_folder_stays_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    out.mkdir()  # a disk may be mounted here, which cannot be renamed
    before = out.stat().st_ino
    monkeypatch.chdir(out)
    build(Path())
    assert (out.stat().st_ino, (Path.cwd() / FILE_NAME).read_text()) == (before, "new")
    with pytest.raises(ExportError, match="cannot be replaced, a disk is mounted there or this runs in it; empty it"):
        build(Path(), force=True)


def test_an_interruption_while_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    out.mkdir()
    monkeypatch.setattr(shutil, "move", interrupting.at_call(2, shutil.move))

    def build_several() -> None:
        with building(out, force=False) as folder:
            for name in ("a", FILE_NAME, "b"):
                (folder / name).write_text("new")

    with pytest.raises(KeyboardInterrupt):
        build_several()
    assert list(out.iterdir()) == []


def test_a_whole_disk_is_no_place() -> None:
    with pytest.raises(ExportError, match="is a whole disk; choose a folder on it"):
        build(Path(Path.cwd().anchor))


def test_a_link_goes_on_to_lead_to_the_model(tmp_path: Path) -> None:
    real, out = tmp_path / "disk" / "model", tmp_path / "model"
    build(real)
    write(real, "old")
    out.symlink_to(real, target_is_directory=True)
    for _ in range(2):
        build(out, force=True)
        assert out.is_symlink()
        assert (real / FILE_NAME).read_text() == "new"
    assert [sorted(path.name for path in folder.iterdir()) for folder in (tmp_path, real.parent)] == [
        ["disk", "model"],
        ["model"],
    ]


def test_two_exports_into_one_folder(tmp_path: Path) -> None:
    with building(tmp_path / "model", force=False) as folder:
        write(folder, "first")
        with pytest.raises(ExportError, match="another export into this folder is running"):
            build(tmp_path / "model")
        assert folder.is_dir()
    assert (tmp_path / "model" / FILE_NAME).read_text() == "first"


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(ExportError, match="cannot be made"):
        build(tmp_path / "file" / "model")


def test_disk_space(tmp_path: Path) -> None:
    check_space(tmp_path / "not" / "there", 1000)
    with pytest.raises(ExportError, match=r"GB free, the export needs up to 1000000\.0 GB"):
        check_space(tmp_path, 10**15)
