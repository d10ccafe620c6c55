"""Entries on disk, each in a file of its own: written whole or not at all, checked when read, the oldest dropped.

Several processes may share a folder: a file appears under its name only once it is complete, and whoever reads an
entry that another process drops has it open already. Nothing here raises for a disk that is full, slow, read-only or
damaged: an entry that cannot be read whole is not there, one that cannot be written is not kept.

Versions of edgevl whose entries differ share a folder too, each with a folder of its own in it. None reads what another
one wrote, but all of it counts for the size limit and is dropped like one's own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import mmap
import os
import re
import stat
import struct
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevl.errors import InputError
from edgevl.machine import expanded, own_folder

VERSION = "v1"
"""Name of the folder that holds entries as they are written here; another form of them gets another number.

What the others go by stays: an entry lies at `v<number>/<kind>/<SHA-256>.bin`, and its date is that of its last use.
"""
DEFAULT_MAX_BYTES = 2_000_000_000
MAX_WAITING_BYTES = 512 << 20
"""What may wait to be written; more than that is not kept."""
MAPPED_BYTES = 1 << 20
"""An entry of this size or more is mapped, which takes one of the process's open files; smaller ones are read."""
OF_IMAGES = ("tiles", "prefixes")
KINDS = (*OF_IMAGES, "graphs")
OTHERS = "other_versions"
"""The kind of entries that another version wrote, whatever they are."""

_MAGIC = b"edgevl 1"
_HEAD = struct.Struct("<8s32sI")  # magic, SHA-256 of what follows, length of the description
_VERSIONS = re.compile(r"v[0-9]+")
_NAMES = re.compile(r"[0-9a-f]{64}\.bin|tmp\w{8}\.part")  # of entries, and of half-written ones by `tempfile`
_ALIGN = 64
_DTYPES = ("float32", "float16", "uint8")
_TRIES = 5
_MOST_DIGITS = 12
_COUNTS = 50
"""How often a process counts the folder, at least, while it writes as much as the limit: others may write there too."""
_STALE_S = 3600.0
"""After this long, a half-written file belongs to a process that was killed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One file of the store: its kind or OTHERS, path, size, and when it was last used (seconds since the epoch)."""

    kind: str
    path: Path
    n_bytes: int
    used_s: float


def default_folder() -> Path | None:
    """Return where the store lies: EDGEVL_STORE_DIR, else in the platform's cache folder; None where no home is known.

    Raises InputError.
    """
    return own_folder("EDGEVL_STORE_DIR", "cache", "store")


def default_max_bytes() -> int:
    """Return the size limit: EDGEVL_STORE_MB (megabytes), else 2 GB. Raises InputError for what is no number."""
    chosen = os.environ.get("EDGEVL_STORE_MB")
    if not chosen:
        return DEFAULT_MAX_BYTES
    if not chosen.isascii() or not chosen.isdigit() or len(chosen) > _MOST_DIGITS:
        raise InputError(f"EDGEVL_STORE_MB is {chosen[:60]!r}; it must be a whole number of megabytes")
    return int(chosen) * 1_000_000


def open_disk(choice: bool | str | Path) -> Disk | None:
    """Return the store's folder: the default one for True, if there is any, none for False, or the one named.

    Raises InputError for what is neither.
    """
    if choice is False:
        return None
    if choice == "":
        raise InputError("the store's folder is empty; give a path, True or False")
    folder = default_folder() if choice is True else expanded(choice)
    if folder is None:
        return None
    with suppress(OSError):  # the folder that this process is in has gone
        folder = folder.absolute()
    return Disk(folder, default_max_bytes())


class Disk:
    """A folder of arrays by kind and key, up to `max_bytes`; the longest unused are dropped first."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = folder / VERSION
        self.max_bytes = max_bytes
        self._room = 0  # bytes that may be written before the folder is counted
        self._told = False
        self._begin()
        _open.add(self)
        self._refused = _foreign(folder) or _foreign(self.folder)
        if self._refused:
            self._tell("it belongs to another user")

    def _begin(self) -> None:
        """Begin with nothing to write."""
        self._turn = threading.Condition()  # for what follows; may be entered again within
        self._puts: deque[tuple[str, str, NDArray[Any]]] = deque()
        self._waiting = 0
        self._is_writing = False

    def keeps(self, n_bytes: int) -> bool:
        """Return whether an entry of so many bytes is likely to be kept: it may be, and no other one has failed."""
        return not self._told and n_bytes <= self.max_bytes

    def get(self, kind: str, key: str) -> NDArray[Any] | None:
        """Return the array under `key`, read-only; None if it is not there, is damaged, or cannot be read."""
        if self._refused:
            return None
        path = self._path(kind, key)
        try:
            data = _read(path)
        except OSError:
            return None
        array = _decode(data, key)
        del data  # Windows removes no file that is mapped
        if array is None:
            log.info("%s: damaged, dropped", path)
            _remove(path)
            return None
        _touch(path)
        return array

    def has(self, kind: str, key: str) -> bool:
        """Return whether there is a file for `key`, whatever is in it; False where that cannot be told."""
        try:
            return not self._refused and self._path(kind, key).exists()
        except OSError:  # the folder may not be looked into
            return False

    def put(self, kind: str, key: str, array: NDArray[Any]) -> None:
        """Keep `array` (float32, float16 or uint8), in the background; it must not change any more."""
        if self._refused or array.nbytes > self.max_bytes:
            return
        # A thread, and no pool: those take nothing more once the main thread has ended.
        thread, begins = threading.Thread(target=self._write_all, name="edgevl-store", daemon=False), False
        try:
            with self._turn:
                if self._waiting + array.nbytes > MAX_WAITING_BYTES:
                    return
                self._waiting += array.nbytes
                self._puts.append((kind, key, array))
                begins, self._is_writing = not self._is_writing, True
            if begins:
                self._start(thread)
        except BaseException:  # Ctrl-C: what waits is written with what comes next
            if begins and thread.ident is None:
                self._stop_writing()
            raise

    def _start(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:  # the process may have no more of them
            self._write_all()

    def _stop_writing(self) -> None:
        with self._turn:
            self._is_writing = False
            self._turn.notify_all()

    def flush(self) -> None:
        """Wait until everything that was put has been written, or given up."""
        with self._turn:
            self._turn.wait_for(lambda: not self._is_writing)

    def entries(self) -> Iterator[Entry]:
        """Yield what is there, in no order; what other versions wrote too."""
        for kind, path, status in self._files():
            if path.suffix == ".bin":
                yield Entry(kind, path, status.st_size, status.st_mtime)

    def clear(self, kinds: Iterable[str] = (*KINDS, OTHERS)) -> int:
        """Delete what there is of `kinds`, by default everything, other versions' too; return the bytes freed.

        Raises InputError where something could not be deleted, or the folder may not be looked into.
        """
        self.check()
        wanted = frozenset(kinds)
        found = [(path, status) for kind, path, status in self._files() if kind in wanted]
        dropped = [self._drop(path) for path, _ in found]
        freed = sum(status.st_size for (_, status), was_there in zip(found, dropped, strict=True) if was_there)
        self._room = 0
        if left := sum(not was_there and _is_stuck(path) for (path, _), was_there in zip(found, dropped, strict=True)):
            raise InputError(f"{self.folder.parent}: {left} entries could not be deleted; change their permissions")
        return freed

    def check(self) -> None:
        """Raise InputError where the folder is there and may not be looked into."""
        for folder in (self.folder.parent, self.folder, *(self.folder / kind for kind in KINDS)):
            if os.path.lexists(folder) and not os.access(folder, os.R_OK | os.X_OK):
                raise InputError(f"{folder}: may not be looked into; change its permissions")

    def _write_all(self) -> None:
        """Write what waits, and what comes meanwhile."""
        while (put := self._next()) is not None:
            self._write(*put)

    def _next(self) -> tuple[str, str, NDArray[Any]] | None:
        """Take the first of what waits; where nothing does, this thread's writing has ended."""
        with self._turn:
            if self._puts:
                return self._puts.popleft()
            self._stop_writing()
            return None

    def _write(self, kind: str, key: str, array: NDArray[Any]) -> None:
        """Write one entry, unless it is there; tell of a failure."""
        try:
            path = self._path(kind, key)
            if not path.exists():
                self._write_to(path, key, array)
        except Exception as error:  # noqa: BLE001 - of any kind, or what waits would wait for ever
            self._tell(getattr(error, "strerror", None) or type(error).__name__)
        finally:
            with self._turn:
                self._waiting -= array.nbytes

    def _write_to(self, path: Path, key: str, array: NDArray[Any]) -> None:
        """Write one entry, again where another process cleared the store meanwhile, or dropped an empty folder."""
        for _ in range(_TRIES - 1):
            with suppress(FileNotFoundError, FileExistsError):  # the latter of a folder that goes while it is made
                return self._write_once(path, key, array)
        return self._write_once(path, key, array)

    def _write_once(self, path: Path, key: str, array: NDArray[Any]) -> None:
        """Write one entry beside its place, then move it there. Leaves nothing half-written where that fails."""
        _make_private(self.folder.parent, self.folder, path.parent)
        handle, name = tempfile.mkstemp(suffix=".part", dir=path.parent)  # readable by its owner only
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                n_bytes = _encode(file, key, array)
            self._make_room(n_bytes)
            part.replace(path)
        except BaseException:
            _remove(part)
            raise

    def _make_room(self, n_bytes: int) -> None:
        """Drop the longest unused entries where there may be no room for `n_bytes` more; the folder is counted then."""
        if n_bytes > self._room:
            wanted = max(n_bytes, self.max_bytes // _COUNTS)
            self._drop_stale()
            entries = sorted(self.entries(), key=_age_s, reverse=True)
            total = sum(entry.n_bytes for entry in entries)
            for entry in entries:
                if total + wanted <= self.max_bytes:
                    break
                total -= entry.n_bytes if self._drop(entry.path) else 0
            self._room = wanted
        self._room -= n_bytes

    def _drop_stale(self) -> None:
        for kind, path, status in list(self._files()):
            if path.suffix == ".part" and _age_s(Entry(kind, path, status.st_size, status.st_mtime)) > _STALE_S:
                self._drop(path)

    def _drop(self, path: Path) -> bool:
        """Drop a file, and with another version's last one its folders; return whether it was there."""
        was_there = _remove(path)
        kind, version = path.parent, path.parent.parent
        if was_there and version != self.folder:
            with suppress(OSError):  # something is left in one, as is most often the case, or another process was first
                kind.rmdir()
                version.rmdir()
        return was_there

    def _files(self) -> Iterator[tuple[str, Path, os.stat_result]]:
        """Yield the kind, path and status of this version's files, and of other versions' entries."""
        for kind in KINDS:
            for path, status in _files(self.folder / kind):
                yield kind, path, status
        for path, status in self._others():
            yield OTHERS, path, status

    def _others(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield what is named as entries are in other versions' folders; nothing else there is touched."""
        for version in _folders(self.folder.parent):
            if version.name != self.folder.name and _VERSIONS.fullmatch(version.name):
                for folder in _folders(version):
                    yield from (found for found in _files(folder) if _NAMES.fullmatch(found[0].name))

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.bin"

    def _tell(self, why: str) -> None:
        """Say once that nothing can be kept; the answers are the same without."""
        if not self._told:
            self._told = True
            log.warning("the store in %s is not used (%s); --no-store silences this", self.folder.parent, why)


def _begin_anew() -> None:
    """Let a child of a fork write: its parent writes what waits, and the thread that does so is not in the child."""
    for disk in list(_open):
        disk._begin()


_open: weakref.WeakSet[Disk] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def _age_s(entry: Entry) -> float:
    """Return how long ago an entry was used; without end for a date that is to come: a clock was wrong."""
    age_s = time.time() - entry.used_s
    return age_s if age_s > -_STALE_S else math.inf


def _read(path: Path) -> memoryview:
    """Return a file's bytes, in memory that may be written to: OpenVINO wants such, and runs graphs there uncopied.

    Raises OSError, also for a file of another user.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if _is_foreign(status):
            raise PermissionError(f"{path}: belongs to another user")
        if status.st_size < MAPPED_BYTES:
            return memoryview(bytearray(file.read()))
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def _encode(file: Any, key: str, array: NDArray[Any]) -> int:
    """Write one entry: head, description, padding, the array's bytes. Returns the length."""
    array = np.ascontiguousarray(array)
    described = json.dumps({"key": key, "dtype": array.dtype.name, "shape": array.shape}).encode()
    described += b" " * (-(_HEAD.size + len(described)) % _ALIGN)
    payload = array.data.cast("B") if array.size else b""
    digest = hashlib.sha256(described)
    digest.update(payload)
    file.write(_HEAD.pack(_MAGIC, digest.digest(), len(described)))
    file.write(described)
    file.write(payload)
    return _HEAD.size + len(described) + len(payload)


def _decode(data: memoryview, key: str) -> NDArray[Any] | None:
    """Return the array of an entry's bytes, without a copy; None unless every bit is as it was written under `key`."""
    if len(data) < _HEAD.size:
        return None
    magic, digest, length = _HEAD.unpack_from(data)
    if magic != _MAGIC or hashlib.sha256(data[_HEAD.size :]).digest() != digest:
        return None
    try:
        described = json.loads(bytes(data[_HEAD.size : _HEAD.size + length]))
        dtype, shape = described["dtype"], tuple(described["shape"])
    except (ValueError, KeyError, TypeError):
        return None
    payload = data[_HEAD.size + length :]
    if described["key"] != key or dtype not in _DTYPES or math.prod(shape) * np.dtype(dtype).itemsize != len(payload):
        return None
    array = np.frombuffer(payload, dtype).reshape(shape)
    array.flags.writeable = False
    return array


def _foreign(folder: Path) -> bool:
    """Return whether a folder belongs to another user, who could put wrong entries into it."""
    try:
        return _is_foreign(folder.stat())
    except OSError:
        return False


def _is_foreign(status: os.stat_result) -> bool:
    return hasattr(os, "getuid") and status.st_uid != os.getuid()


def _make_private(*folders: Path) -> None:
    """Make folders that only their owner may read; the first one's parents as the system makes them."""
    folders[0].parent.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        with os.scandir(folder) as found:
            for item in found:
                try:
                    yield Path(item.path), item.stat(follow_symlinks=False)
                except OSError:  # another process has just dropped it
                    continue
    except OSError:
        return


def _folders(folder: Path) -> Iterator[Path]:
    """Yield the folders in a folder, but no links, and none of another user."""
    for path, status in _files(folder):
        if stat.S_ISDIR(status.st_mode) and not _foreign(path):
            yield path


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)


def _is_stuck(path: Path) -> bool:
    """Return whether a file cannot be removed; another process may have been first, and may write it again."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return True
    return False


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
