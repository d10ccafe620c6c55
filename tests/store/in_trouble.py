"""Ask with a store in trouble, in a process of its own: what was answered, and what lies there then, as JSON.

    python -m tests.store.in_trouble TROUBLE FOLDER MODEL

FOLDER is there for this alone. Warnings go to stderr.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgevl
from edgevl import loaded
from edgevl.store.disk import Disk

NOBODY = 65534
Ask = Callable[[Path, int], dict[str, Any]]


def answer(model: Path, store: Path | bool, seed: int) -> dict[str, Any]:
    """Ask about a picture drawn from `seed`; return what must not depend on the store, and how many tiles it saved."""
    picture = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8).repeat(60, 0).repeat(80, 1)
    # The CPU, since nothing measured can be kept; in turns, as `edgevl ask` does, which looks into the store twice.
    with edgevl.load(model, store=store, device="cpu", low_memory=True) as vlm:
        said = vlm.ask(picture, "what's here?", max_tokens=4)
        scores = hashlib.sha256(vlm._open().decoder.logits().tobytes()).hexdigest()
    return {"said": [said.text, *said.token_ids, scores], "n_encoded": said.images[0].n_encoded}


def what_is_left(folder: Path) -> dict[str, int]:
    """Count the entries of all stores in `folder` that are whole, those that are not, and what else lies there."""
    counts = {"whole": 0, "broken": 0, "half": 0}
    for path in folder.rglob("*.*"):
        kind, store = path.parent, path.parents[2]
        is_whole = path.suffix == ".bin" and Disk(store).get(kind.name, path.stem) is not None
        counts["whole" if is_whole else "broken" if path.suffix == ".bin" else "half"] += 1
    return counts


def read_only(folder: Path, ask: Ask) -> list[dict[str, Any]]:
    """A store that may be read and not written."""
    store = folder / "store"
    ask(store, 1)
    for path in (store, *(path for path in store.rglob("*") if path.is_dir())):
        path.chmod(0o500)
    return [ask(store, 1), ask(store, 2)]


def unreadable(folder: Path, ask: Ask) -> list[dict[str, Any]]:
    """A store that may not even be looked into."""
    store = folder / "store"
    ask(store, 1)
    store.chmod(0)
    try:
        return [ask(store, 1)]
    finally:
        store.chmod(0o700)


def in_read_only(folder: Path, ask: Ask) -> list[dict[str, Any]]:
    """A store that is yet to be made, in a folder that may not be written."""
    folder.chmod(0o500)
    return [ask(folder / "store", 1)]


def small_files(folder: Path, ask: Ask) -> list[dict[str, Any]]:
    """Files that may hold nothing, half a tile's features, or tiles and not an image's KV cache; then all."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    answers = []
    for n_bytes in (0, 5_000, 50_000, most):
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, most))  # Python ignores the signal: writing is an error
        answers.append(ask(folder / "store", 1))
    return answers


def full(folder: Path, ask: Ask) -> list[dict[str, Any]]:
    """A small file system, which is soon full."""
    return [ask(folder / "store", seed) for seed in (1, 2, 1)]


TROUBLES = {trouble.__name__: trouble for trouble in (read_only, unreadable, in_read_only, small_files, full)}


def main() -> None:
    """Answer without a store, get into trouble, and answer with one."""
    name, folder, model = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    loaded.LARGE_BYTES = 0  # so that a small model's parts take turns too
    wanted = {seed: answer(model, False, seed)["said"] for seed in (1, 2)}
    with tempfile.TemporaryDirectory() as elsewhere:
        answer(model, Path(elsewhere), 1)  # imports the rest: another user may not read this installation
    if os.geteuid() == 0 and folder.stat().st_uid == NOBODY:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    answers = TROUBLES[name](folder, lambda store, seed: {**answer(model, store, seed), "wanted": wanted[seed]})
    print(json.dumps({"answers": answers, "left": what_is_left(folder)}))


if __name__ == "__main__":
    main()
