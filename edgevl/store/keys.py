"""Keys of what is remembered: digests of everything that a value depends on, and of nothing else.

A path, a file's date or a name never goes in: a changed file is another image, a renamed one the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray


def tile_key(vision_id: str, tile: NDArray[np.uint8]) -> str:
    """Return the key of a tile's features: its pixels, uint8 [height, width, 3], and what encodes them."""
    digest = hashlib.sha256(f"tile:{vision_id}:{tile.shape}:".encode())
    digest.update(np.ascontiguousarray(tile).data)
    return digest.hexdigest()


def tiles_id(tiles: Iterable[NDArray[np.float32]]) -> str:
    """Return what features of an image's tiles, each [tokens, hidden], are: a digest of their values in order."""
    digest = hashlib.sha256()
    for tile in tiles:
        digest.update(f"features:{tile.shape}:".encode())
        digest.update(np.ascontiguousarray(tile).data)
    return digest.hexdigest()


def prefix_keys(decoder_id: str, contents: Iterable[str]) -> list[str]:
    """Return for each chunk of a prompt the key of the prompt up to its end.

    `contents` says what each chunk is; a key chains all of them so far to what decodes them.
    """
    return list(accumulate(contents, _link, initial=_link("prefix", decoder_id)))[1:]


def _link(before: str, content: str) -> str:
    return hashlib.sha256(f"{before}:{content}".encode()).hexdigest()


def graph_key(content: str, name: str) -> str:
    """Return the key of what `name` describes, compiled from the graph file whose content `content` names."""
    return hashlib.sha256(f"graph {content} {name}".encode()).hexdigest()
