"""Build a model folder aside and put it in place in one step, so that no half folder is ever seen.

Everything is written into a sibling `.<name>.export`, under a lock; the end is a rename, or the filling of an empty
folder. What a killed export left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgevl.errors import ExportError
from edgevl.machine import expanded
from edgevl.model.manifest import FILE_NAME

from .published import SETTINGS


@contextlib.contextmanager
def building(out: Path, *, force: bool, sources: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends well, and vanishes when it does not.

    Raises ExportError if `out` exists (unless it is empty, or `force` is set and it is a model folder with nothing else
    in it, which is then replaced), if one of the `sources` is or lies in it, if it cannot be written, or while another
    export into it is running.
    """
    out = expanded(out).absolute()
    if out.is_dir():
        out = out.resolve()  # what a link leads to is replaced, not the link
    _check_sources(out, sources)
    _check_target(out, force=force)
    temporary, replaced = out.with_name(f".{out.name}.export"), out.with_name(f".{out.name}.replaced")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out.parent}: cannot be made ({error.strerror}); choose another place") from error
    with locked(out):
        _clean(out, temporary, replaced)
        _check_target(out, force=force)
        try:
            _make(temporary)
            yield temporary
            _put(temporary, out, replaced)
        finally:
            _clean(out, temporary, replaced, ignore_errors=True)


def check_space(parent: Path, n_bytes: int) -> None:
    """Raise ExportError unless the disk of `parent` has `n_bytes` free."""
    place = expanded(parent).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < n_bytes:
        raise ExportError(
            f"{place}: has {free / 1e9:.1f} GB free, the export needs up to {n_bytes / 1e9:.1f} GB while it works; "
            "free some space or choose another place with -o"
        )


def link(source: Path, target: Path) -> None:
    """Put a file into a model folder without a copy where the disk allows that; it is never written to."""
    for place in (os.link, os.symlink):  # the second across disks, and for files of another user
        with contextlib.suppress(OSError):
            place(source.resolve(), target)
            return
    shutil.copyfile(source, target)


def _check_sources(out: Path, sources: Iterable[Path]) -> None:
    for source in sources:
        if expanded(source).resolve().is_relative_to(out):
            raise ExportError(f"{source}: is read, and would be lost where {out} is replaced; choose another place")


def _check_target(out: Path, *, force: bool) -> None:
    if not out.name:
        raise ExportError(f"{out}: is a whole disk; choose a folder on it")
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise ExportError(f"{out}: exists and is not a folder; choose another place")
    if not any(out.iterdir()):
        return
    if not force:
        raise ExportError(f"{out}: exists; choose another place, or replace it with --force")
    if not (out / FILE_NAME).is_file():
        raise ExportError(f"{out}: is not a model folder (it has no {FILE_NAME}), so it is not replaced")
    if others := _others(out):
        raise ExportError(f"{out}: holds {others[0]}, which is not the model's, so it is not replaced; move that first")
    if out.is_mount() or _is_current(out):
        raise ExportError(f"{out}: cannot be replaced, a disk is mounted there or this runs in it; empty it first")


def _others(folder: Path) -> list[str]:
    """Return the files of a model folder that nothing says are its own; none where its description is not readable."""
    try:
        own = {FILE_NAME, *SETTINGS, *json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in found if path.as_posix() not in own and not path.name.startswith("."))


def _is_current(folder: Path) -> bool:
    try:
        return folder.samefile(Path.cwd())
    except OSError:  # it has gone
        return False


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes out of what makes `out`; raise ExportError where one is at it."""
    from filelock import FileLock, Timeout

    path = out.with_name(f".{out.name}.export.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ExportError(f"{out}: another export into this folder is running; wait for it to end") from error
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # on Windows a lock file cannot be removed while it is held
            path.unlink()
        lock.release()


def _clean(out: Path, temporary: Path, replaced: Path, *, ignore_errors: bool = False) -> None:
    """Remove what an export left; bring back a folder whose replacement was cut short."""
    if replaced.exists():
        if out.exists():
            shutil.rmtree(replaced, ignore_errors)
        else:
            replaced.rename(out)
    if temporary.exists():
        shutil.rmtree(temporary, ignore_errors)


def _make(folder: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise ExportError(f"{folder}: cannot be made ({error.strerror}); choose another place") from error


def _put(temporary: Path, out: Path, replaced: Path) -> None:
    """Rename `temporary` to `out`; a model that is in the way is set aside, an empty folder is filled."""
    if out.exists() and not any(out.iterdir()):
        _fill(out, temporary)
        return
    if out.exists():
        out.rename(replaced)
    temporary.rename(out)


def _fill(out: Path, temporary: Path) -> None:
    """Move everything into an empty folder: a disk may be mounted there, or a shell be in it.

    What makes it a model folder comes last.
    """
    try:
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == FILE_NAME):
            shutil.move(path, out / path.name)
    except BaseException:
        for path in out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
