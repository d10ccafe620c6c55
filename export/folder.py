"""Build a model folder aside and put it in place in one step, so that no half folder is ever seen.

Everything is written into a sibling `.<name>.export`, under a lock; the end is a rename. What a killed export left
behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgevl.errors import ExportError
from edgevl.machine import expanded
from edgevl.model.manifest import FILE_NAME


@contextlib.contextmanager
def building(out: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends well, and vanishes when it does not.

    Raises ExportError if `out` exists (unless `force` is set and it is a model folder, which is then replaced), if it
    cannot be written, or while another export into it is running.
    """
    out = expanded(out).absolute()
    if out.is_dir():
        out = out.resolve()  # what a link leads to is replaced, not the link
    temporary, replaced = out.with_name(f".{out.name}.export"), out.with_name(f".{out.name}.replaced")
    _check_target(out, force=force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out.parent}: cannot be made ({error.strerror}); choose another place") from error
    with _locked(out):
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


def _check_target(out: Path, *, force: bool) -> None:
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


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
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
    """Rename `temporary` to `out`; an `out` that is in the way is set aside."""
    if out.exists():
        out.rename(replaced)
    temporary.rename(out)
