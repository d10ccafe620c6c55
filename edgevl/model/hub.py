"""Where models are: the bundled one, the user's folders, the registry, and the hub that `fetch` brings them from.

The only module that may use the network, and it does so in `look_up` and `fetch` alone. The hub's address, tokens,
proxies and the offline mode are those of huggingface_hub.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from edgevl.errors import ChecksumMismatch, DownloadError, ModelNotFound
from edgevl.machine import expanded, known, own_folder
from edgevl.model import manifest

BUNDLED = "edgevl-tiny"
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RegistryEntry:
    """A published model: its repository on the Hugging Face hub, and what `edgevl pull` finds there.

    `form` is "onnx" for graphs that run as they are, "gguf" for llama.cpp's pair of files, whose vision half becomes a
    graph, "checkpoint" for what has to be exported. Without a `revision` it is the newest; `digests`, if there are any,
    then say which files are taken, and their SHA-256. `download_bytes` is what is fetched, of a checkpoint all of its
    weights; `disk_bytes` what the model folder takes afterwards; `memory_bytes` what answering about one picture takes.
    All three are estimated from the parameters, at the precisions that `edgevl pull` and `edgevl export` take by
    themselves; `edgevl pull` asks the hub for the exact size first.
    """

    name: str
    repo: str
    revision: str | None
    form: Literal["onnx", "gguf", "checkpoint"]
    licence: str
    n_parameters: int
    download_bytes: int
    disk_bytes: int
    memory_bytes: int
    note: str
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its path with forward slashes, its length, and its SHA-256 or else git's SHA-1 of it."""

    path: str
    n_bytes: int
    digest: str


@dataclass(frozen=True)
class Repository:
    """A repository at one revision, which is 40 hexadecimal digits."""

    repo: str
    revision: str
    files: tuple[RemoteFile, ...]


def installed_folder() -> Path:
    """Return the folder of the data that comes with edgevl."""
    return Path(str(files("edgevl.models")))


def user_folder() -> Path:
    """Return where the user's model folders live: EDGEVL_MODELS_DIR, else the platform's data folder.

    Raises InputError where no home folder is known.
    """
    return known(own_folder("EDGEVL_MODELS_DIR", "data", "models"), "EDGEVL_MODELS_DIR")


def find(name_or_dir: str | Path | None) -> Path:
    """Return a model's folder: a path, a name in the user's folder, a bundled name; None is the bundled model.

    A folder of the same name in the working directory comes first if it is a model folder, and last otherwise.
    Raises ModelNotFound that says where was looked.
    """
    if name_or_dir is None:
        return installed_folder() / BUNDLED
    name, path = str(name_or_dir), expanded(name_or_dir)
    if not name:
        raise ModelNotFound("the model's name is empty; `edgevl models` lists what is here")
    places = [path]
    if _is_name(name) and not (path / manifest.FILE_NAME).is_file():
        places += [user_folder() / name, installed_folder() / name]
    for place in places:
        if (place / manifest.FILE_NAME).is_file():
            return place
    if path.is_dir():
        return path  # its reader will say what it lacks
    if path.is_file():
        raise ModelNotFound(f"{name}: is a file; give the folder of a model (`edgevl import` makes one of GGUF files)")
    if len(places) == 1:
        raise ModelNotFound(f"{name}: no such model folder; `edgevl models` lists what is here")
    if name in (entry.name for entry in registry()):
        raise ModelNotFound(f"{name}: is not here yet; get it with: edgevl pull {name}")
    raise ModelNotFound(
        f"{name}: no model of this name in {places[1].parent} or among the bundled; `edgevl models` lists what is here"
    )


def local() -> Iterator[Path]:
    """Yield every model folder that `find` knows by name, the user's first."""
    for parent in (user_folder(), installed_folder()):
        try:
            found = sorted(parent.iterdir())
        except OSError:  # none is there, or it may not be looked into
            continue
        yield from (path for path in found if not path.name.startswith(".") and _may_be_model(path))


def _may_be_model(path: Path) -> bool:
    """Return whether a folder is a model's, or cannot be looked into: whoever reads it says so."""
    try:
        return (path / manifest.FILE_NAME).is_file()
    except OSError:
        return True


def registry() -> list[RegistryEntry]:
    """Return the registry of published models, which comes with edgevl."""
    raw = json.loads((installed_folder() / "registry.json").read_text(encoding="utf-8"))
    return [RegistryEntry(**entry) for entry in raw]


def _is_name(text: str) -> bool:
    return "/" not in text and "\\" not in text and text not in (".", "..")


def look_up(repo: str, revision: str | None = None) -> Repository:
    """Ask the hub for the files of `repo` ("owner/name") at `revision` (None: the newest).

    Raises DownloadError where there is no such repository or revision, or the hub cannot be asked.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise DownloadError(f"{repo!r} is not the name of a repository, such as hf:owner/name")
    from huggingface_hub import HfApi

    with _explained(repo, revision):
        found = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S)
        listed = [_remote_file(repo, sibling) for sibling in found.siblings or ()]
    return Repository(repo, str(found.sha), tuple(sorted(listed, key=lambda file: file.path)))


def fetch(
    source: Repository, names: Sequence[str], folder: Path, progress: Callable[[str, float], None], spare_bytes: int = 0
) -> None:
    """Bring the files called `names` into `folder`, which exists; those that are there stay, begun ones go on.

    `progress` is told a name and the share of all bytes, 0 to 1. `spare_bytes` must stay free on the disk.
    Raises DownloadError, with the remedy, where there is no room or the hub does not give them, and ChecksumMismatch
    for a file that arrives with another content than the hub names.
    """
    by_path = {file.path: file for file in source.files}
    wanted = [by_path[name] for name in names]
    n_total = sum(file.n_bytes for file in wanted)
    _check_room(source.repo, folder, n_total - sum(_n_there(folder, file) for file in wanted) + spare_bytes)
    n_done = 0
    for file in wanted:

        def tell(n_bytes: int, before: int = n_done, path: str = file.path) -> None:
            progress(path, (before + n_bytes) / max(n_total, 1))

        if not (folder / file.path).exists():
            with _explained(source.repo, source.revision):
                _fetch_file(source, file, folder, tell)
        n_done += file.n_bytes


def _fetch_file(source: Repository, file: RemoteFile, folder: Path, tell: Callable[[int], None]) -> None:
    """Bring one file, going on where an earlier try ended, and again while a broken connection brought something."""
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    while (before := _size(part)) < file.n_bytes:
        try:
            _receive(source, file, part, tell)
        except OSError:  # refused, or the disk; what the connection raises is none
            raise
        except Exception:
            if _size(part) <= before:
                raise
        if _size(part) <= before:
            raise DownloadError(
                f"{source.repo}/{file.path}: ends at {before} of {file.n_bytes} bytes; run the same command again later"
            )
    part.touch()  # an empty file is never asked for
    if _digest(part, file) != file.digest:
        part.unlink()
        raise ChecksumMismatch(
            f"{source.repo}/{file.path}: arrived with another content than the hub names; run the same command again"
        )
    part.replace(target)


def _receive(source: Repository, file: RemoteFile, part: Path, tell: Callable[[int], None]) -> None:
    """Append to `part` what is missing of a file."""
    from huggingface_hub import get_session, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = f"{_page(source.repo)}/resolve/{source.revision}/{quote(file.path)}"
    n_there = _size(part)
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if n_there:
        headers["Range"] = f"bytes={n_there}-"
    with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
        hf_raise_for_status(response)
        with part.open("ab" if response.status_code == 206 else "wb") as out:
            for piece in response.iter_raw():
                out.write(piece)
                tell(out.tell())
                if out.tell() > file.n_bytes:
                    break


def _remote_file(repo: str, sibling: Any) -> RemoteFile:
    path, n_bytes = str(sibling.rfilename), sibling.size
    digest = sibling.lfs["sha256"] if sibling.lfs else sibling.blob_id
    if not _can_be_kept(path) or not isinstance(n_bytes, int) or not isinstance(digest, str):
        raise DownloadError(f"{repo}: the hub lists {path!r} in a form that this version does not know")
    return RemoteFile(path, n_bytes, digest)


def _can_be_kept(path: str) -> bool:
    """Return whether a path from the hub can be a file's in the folder that it is put in, on every system."""
    return manifest.is_inside(path) and not set(path) & set('*?"<>|')


def _digest(path: Path, file: RemoteFile) -> str:
    """Return the hash of the file at `path` of the kind that `file` has."""
    if len(file.digest) == 64:
        return manifest.sha256(path)
    content = path.read_bytes()  # git's own files are small
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _n_there(folder: Path, file: RemoteFile) -> int:
    target = folder / file.path
    return min(file.n_bytes, _size(target) or _size(target.with_name(f"{target.name}.part")))


def _check_room(repo: str, folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise DownloadError(
            f"{folder}: has {free / 1e9:.1f} GB free, {repo} needs {n_bytes / 1e9:.1f} GB more; "
            "free some space or let EDGEVL_MODELS_DIR name another place"
        )


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's library raises into one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except (DownloadError, ChecksumMismatch):
        raise
    except errors.OfflineModeIsEnabled as error:
        raise DownloadError(f"{repo}: HF_HUB_OFFLINE is set, so nothing is downloaded; unset it") from error
    except errors.GatedRepoError as error:
        raise DownloadError(
            f"{repo}: its owner gives it to those who asked; ask on {_page(repo)}, then run: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(f"{repo}: has no revision {revision}; see {_page(repo)}") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(f"{repo}: there is no {_page(repo)}; if it is private, run: hf auth login") from error
    except errors.HfHubHTTPError as error:
        raise DownloadError(_refused(repo, error)) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DownloadError(f"{error.filename or repo}: the disk is full; free some space, then go on") from error
        if error.errno is not None:
            raise
        raise DownloadError(_unreachable(repo, error)) from error
    except Exception as error:
        raise DownloadError(_unreachable(repo, error)) from error


def _page(repo: str) -> str:
    from huggingface_hub import HfApi

    return f"{HfApi().endpoint}/{repo}"


def _refused(repo: str, error: Any) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return f"{repo}: {_page(repo)} may not be read ({status}); run: hf auth login"
    if status == 404:
        return f"{repo}: a file is not there any more (404); see {_page(repo)}"
    return f"{repo}: {_page(repo)} cannot be had now ({status}); run the same command again later"


def _unreachable(repo: str, error: Exception) -> str:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return f"{repo}: {_page(repo)} cannot be reached ({why}); the same command goes on where it was"
