"""A published model from the hub to the user's folder of models: what runs as it is first, then llama.cpp's pairs.

What has arrived is kept in a hidden folder beside the model's until all is done, so that a broken download goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgevl.errors import DownloadError, ExportError
from edgevl.model import hub
from edgevl.model.hub import Repository
from edgevl.model.manifest import FILE_NAME, Manifest
from edgevl.model.pairs import Pair, pairs

from . import check_gguf, checkpoint, import_gguf, published
from .folder import building, link, locked
from .published import SETTINGS, Layout

Progress = Callable[[str, float], None]
_DOWNLOADED = 0.9
"""The share of the work that is done when everything has arrived."""


@dataclass(frozen=True)
class Wanted:
    """What the caller chose; see `pull_model`."""

    name: str | None
    vision: str | None
    decoder: str | None
    force: bool


def pull(what: str, wanted: Wanted, progress: Progress) -> tuple[Path, Manifest]:
    """Fetch a model and make a folder of it; see `pull_model`."""
    repo, revision, name, digests = _address(what)
    out = hub.user_folder() / (wanted.name or name)
    if out.name != (wanted.name or name) or out.name.startswith("."):
        raise DownloadError(f"{wanted.name or name!r} is no name for a model; choose another with --name")
    progress("asking the hub", 0.0)
    source = _known(hub.look_up(repo, revision), digests)
    names = [file.path for file in source.files]
    layout = published.find(names, vision=wanted.vision, decoder=wanted.decoder)
    if layout is not None:
        return out, _pull_layout(source, layout, out, wanted, progress)
    if found := pairs(names):
        return out, _pull_pair(source, _chosen(source, found, wanted.decoder), out, wanted, progress)
    at = f" --revision {revision}" if revision else ""
    raise DownloadError(
        f"{repo}: holds no graphs and no pair of GGUF files that run as they are; if it is a checkpoint: "
        f"hf download {repo}{at} --local-dir DIR, then edgevl export DIR -o {out}"
    )


def _address(what: str) -> tuple[str, str | None, str, Mapping[str, str]]:
    """Return the repository, the revision and the name of a model of the registry or of hf:owner/repo[@revision].

    And what is known of its files: the SHA-256 of each; empty if nothing is.
    """
    if not what:
        raise DownloadError("the name is empty; `edgevl models` lists what can be pulled")
    if what == hub.BUNDLED:
        raise DownloadError(
            f"{what}: comes with edgevl, so there is nothing to fetch; it is the default of every command"
        )
    if what.startswith("hf:"):
        repo, _, revision = what.removeprefix("hf:").partition("@")
        return repo, revision or None, repo.rpartition("/")[2], {}
    for entry in hub.registry():
        if entry.name == what:
            return entry.repo, entry.revision, entry.name, entry.digests
    raise DownloadError(f"{what}: is not in the registry that `edgevl models` lists; give another as hf:owner/name")


def _known(source: Repository, digests: Mapping[str, str]) -> Repository:
    """Leave of a repository the files whose digests are known, where any are; raise DownloadError if one is another."""
    if not digests:
        return source
    there = {file.path: file.digest for file in source.files}
    for path, digest in digests.items():
        if there.get(path) != digest:
            raise DownloadError(
                f"{source.repo}/{path}: is no longer the file that this version of edgevl knows; to take it as it is "
                f"now: edgevl pull hf:{source.repo}"
            )
    return replace(source, files=tuple(file for file in source.files if file.path in digests))


def _pull_layout(source: Repository, layout: Layout, out: Path, wanted: Wanted, progress: Progress) -> Manifest:
    """Make the model folder `out` of graphs that run as they are."""
    names = [file.path for file in source.files]
    settings = [name for name in names if name in SETTINGS]
    graphs = layout.files(names)
    embeddings = [file.n_bytes for file in source.files if file.path.startswith(layout.embeddings.file)]
    with building(out, force=wanted.force) as target:
        arrived = _arrived(source, out)
        hub.fetch(source, settings, arrived, lambda name, _: progress(name, 0.0))
        checkpoint.read_settings(arrived)  # a model that cannot be used is refused before the long part
        hub.fetch(source, [*settings, *graphs], arrived, _share(progress), spare_bytes=sum(embeddings))
        for name in (*settings, *graphs):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            link(arrived / name, target / name)
        progress("trying it", _DOWNLOADED)
        origin = f"{source.repo}@{source.revision}"
        manifest = published.describe(
            target, name=out.name, origin=origin, vision=wanted.vision, decoder=wanted.decoder
        )
        for name in graphs:
            if name not in manifest.files:  # the graph of embeddings, whose table is read out
                (target / name).unlink()
        _own(target)
    _forget(out)
    progress("done", 1.0)
    return manifest


def _pull_pair(source: Repository, pair: Pair, out: Path, wanted: Wanted, progress: Progress) -> Manifest:
    """Make the model folder `out` of a decoder that runs as it is and an mmproj that becomes a graph."""
    vision = wanted.vision or "int8"
    check_gguf(vision)
    if out.exists() and any(out.iterdir()) and not wanted.force:
        raise ExportError(f"{out}: exists; choose another name, or replace it with --force")
    arrived = _arrived(source, out)
    with locked(arrived):  # two that fetch it would write into one file
        hub.fetch(source, [pair.decoder, pair.mmproj], arrived, _share(progress))
        manifest = import_gguf(
            arrived / pair.decoder,
            arrived / pair.mmproj,
            out,
            vision=vision,
            name=out.name,
            progress=lambda stage, done: progress(stage, _DOWNLOADED + (1 - _DOWNLOADED) * done),
            force=wanted.force,
        )
        _own(out)
        manifest = replace(manifest, source=replace(manifest.source, checkpoint=f"{source.repo}@{source.revision}"))
        written = arrived / FILE_NAME
        written.write_text(manifest.to_json(), encoding="utf-8", newline="\n")
        written.replace(out / FILE_NAME)
        _forget(out)
    return manifest


def _chosen(source: Repository, found: Sequence[Pair], weights: str | None) -> Pair:
    """Return the best pair, or the one whose decoder has such `weights`."""
    if weights is None:
        return found[0]
    for pair in found:
        if pair.weights == weights.lower():
            return pair
    known = ", ".join(pair.weights or pair.decoder for pair in found)
    raise DownloadError(f"{source.repo}: has no decoder in {weights}; choose one of {known}")


def _arrived(source: Repository, out: Path) -> Path:
    """Return the hidden folder where files of this revision arrive, made if need be."""
    folder = out.with_name(f".{out.name}.{source.revision[:12]}.download")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _own(folder: Path) -> None:
    """Move the files that a model folder has but symbolic links to into it: where they arrived is removed."""
    for path in list(folder.rglob("*")):
        if path.is_symlink():
            path.resolve().replace(path)


def _forget(out: Path) -> None:
    """Remove what arrived for `out`, in this revision and in others that were never finished."""
    for folder in out.parent.glob(f".{out.name}.*.download"):
        shutil.rmtree(folder, ignore_errors=True)


def _share(progress: Progress) -> Progress:
    return lambda name, done: progress(name, done * _DOWNLOADED)
