"""Models that other programs keep on this disk: Ollama's, LM Studio's and llama.cpp's pairs of GGUF files.

Nothing is read but names and Ollama's small manifests, nothing is written. Sources, for where they lie: Ollama's
docs/faq.md, https://lmstudio.ai/docs/basics/import-model and llama.cpp's pull request 7826.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevl.errors import ModelNotFound
from edgevl.machine import home
from edgevl.model.pairs import pairs

_OLLAMA = "ollama:"
_HOST, _OWNER, _TAG = "registry.ollama.ai", "library", "latest"
"""What Ollama leaves out of a model's name."""
_MODEL, _PROJECTOR = "application/vnd.ollama.image.model", "application/vnd.ollama.image.projector"


@dataclass(frozen=True)
class Found:
    """A pair of files of another program: its name there, who keeps it, and the files."""

    name: str
    program: str
    decoder: Path
    mmproj: Path

    @property
    def n_bytes(self) -> int:
        """The length of both files."""
        return self.decoder.stat().st_size + self.mmproj.stat().st_size

    @property
    def sources(self) -> tuple[str, ...]:
        """What `edgevl import` takes for it."""
        if self.name.startswith(_OLLAMA):
            return (self.name,)
        return str(self.decoder), str(self.mmproj), "-o", self.decoder.stem


def found() -> Iterator[Found]:
    """Yield every pair that is there, Ollama's first; what cannot be read is left out."""
    for root in _ollama_folders():
        for path in sorted((root / "manifests").glob("*/*/*/*")):
            blobs = _ollama_blobs(root, path) or {}
            if {_MODEL, _PROJECTOR} <= blobs.keys() and all(blob.is_file() for blob in blobs.values()):
                yield Found(_OLLAMA + _ollama_name(path), "Ollama", blobs[_MODEL], blobs[_PROJECTOR])
    for program, root in _folders():
        names = sorted(path.relative_to(root).as_posix() for path in _files(root) if path.suffix.lower() == ".gguf")
        for pair in pairs(names):
            yield Found(str(root / pair.decoder), program, root / pair.decoder, root / pair.mmproj)


def from_ollama(name: str) -> Found:
    """Return Ollama's model `name`, such as "llava:7b" (without what stands before, that is "ollama:").

    Raises ModelNotFound where Ollama has none of this name here, one without an mmproj file, or not all of it.
    """
    host, owner, model, tag = _ollama_parts(name)
    roots = _ollama_folders()
    for root in roots:
        path = root / "manifests" / host / owner / model / tag
        if not path.is_file():
            continue
        blobs = _ollama_blobs(root, path)
        if blobs is None or _MODEL not in blobs:
            raise ModelNotFound(f"{_OLLAMA}{name}: {path} is damaged; run: ollama pull {name}")
        if _PROJECTOR not in blobs:
            raise ModelNotFound(
                f"{_OLLAMA}{name}: has no mmproj file of its own, so that only Ollama can run its vision half; "
                "`edgevl models --found` lists those that have one"
            )
        for blob in blobs.values():
            if not blob.is_file():
                raise ModelNotFound(f"{_OLLAMA}{name}: lacks {blob}; run: ollama pull {name}")
        return Found(_OLLAMA + name, "Ollama", blobs[_MODEL], blobs[_PROJECTOR])
    looked = ", ".join(map(str, roots)) or "none of Ollama's folders is here"
    raise ModelNotFound(
        f"{_OLLAMA}{name}: Ollama has no model of this name ({looked}); `edgevl models --found` lists those here"
    )


def _ollama_parts(name: str) -> tuple[str, str, str, str]:
    """Return host, owner, model and tag of a name as Ollama's users write it."""
    before, slash, last = name.rpartition("/")
    model, _, tag = last.partition(":")
    parts = [*before.split("/"), model] if slash else [model]
    if len(parts) > 3 or not all(parts) or any(part.startswith(".") or "\\" in part for part in (*parts, tag)):
        raise ModelNotFound(f"{_OLLAMA}{name}: is no name of a model of Ollama's, such as ollama:NAME:TAG")
    host, owner, model = [_HOST, _OWNER][: 3 - len(parts)] + parts
    return host, owner, model, tag or _TAG


def _ollama_name(path: Path) -> str:
    """Return the name, as short as Ollama shows it, of the model whose manifest lies at `path`."""
    host, owner, model, tag = path.parts[-4:]
    left_out = 2 if (host, owner) == (_HOST, _OWNER) else 1 if host == _HOST else 0
    return "/".join([host, owner, model][left_out:]) + f":{tag}"


def _ollama_blobs(root: Path, manifest: Path) -> dict[str, Path] | None:
    """Return the decoder and mmproj files that one of Ollama's manifests names, by kind; None if it is damaged."""
    try:
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digests = {layer["mediaType"]: str(layer["digest"]) for layer in layers}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    blobs = {kind: root / "blobs" / Path(digest.replace(":", "-")).name for kind, digest in digests.items()}
    return {kind: blob for kind, blob in blobs.items() if kind in (_MODEL, _PROJECTOR)}


def _files(root: Path) -> Iterator[Path]:
    """Yield all files under a folder; models on another disk are linked to, and each folder is looked into once."""
    seen = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        yield from (path for name in files if (path := Path(folder, name)).is_file())


def _ollama_folders() -> list[Path]:
    """Return where Ollama keeps models: what OLLAMA_MODELS names, the user's folder, that of the service on Linux."""
    named = os.environ.get("OLLAMA_MODELS")
    usual = [home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]
    return [path for path in ([Path(named)] if named else usual) if _is_dir(path)]


def _is_dir(path: Path) -> bool:
    """Return whether there is a folder that may be looked into."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _folders() -> Iterator[tuple[str, Path]]:
    """Yield the other programs with the folders of theirs that are there."""
    user = home()
    for program, path in (
        ("LM Studio", user / ".lmstudio" / "models"),
        ("LM Studio", user / ".cache" / "lm-studio" / "models"),
        ("llama.cpp", _llama_cpp_folder()),
    ):
        if _is_dir(path):
            yield program, path


def _llama_cpp_folder() -> Path:
    if named := os.environ.get("LLAMA_CACHE"):
        return Path(named)
    if sys.platform == "darwin":
        return home() / "Library" / "Caches" / "llama.cpp"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home() / "AppData" / "Local")) / "llama.cpp"
    return Path(os.environ.get("XDG_CACHE_HOME", home() / ".cache")) / "llama.cpp"
