"""What all peers share: one checkpoint, pictures, their tiles, the prompt, and the features of the float32 model.

A case lives in a folder of its own under build/compare, named by what it is made from, and is made once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "compare"
SEED = 7
VERSION = 1
"""To be raised when this module, or tests/checkpoints.py, makes something else of the same sources."""
PHOTO_SIZE = (488, 640)  # height, width
ROW_SIZE = (160, 640)
QUESTION = "What is in this picture?"
SECOND_QUESTION = "How many people are there?"


@dataclass(frozen=True)
class Shapes:
    """What a checkpoint is made from, and what its family makes of pictures.

    `published` are the folders under shared/families and shared/tokenizers; None is a few layers 64 wide or so, to try
    the script. `layers` is how many encoder and decoder have each; None leaves them all. `layouts` gives, by the longer
    side of the grid that is asked for, the grid (rows, cols) and a picture's size (height, width) that is cut into it;
    without it every picture of PHOTO_SIZE becomes a square grid.
    """

    family: str
    published: tuple[str, str] | None
    layers: int | None = None
    layouts: Mapping[int, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)

    def layout(self, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the grid of `side` and the size of a picture that is cut into it."""
        return self.layouts.get(side, ((side, side), PHOTO_SIZE))


CLOSEST = {2: ((1, 4), ROW_SIZE), 4: ((3, 4), PHOTO_SIZE)}
"""InternVL takes the grid of nearest proportions: these two do not depend on the size of a tile."""
MOST_PATCHES = 12
"""Tiles of InternVL's largest grid, as published; OpenVINO GenAI cuts into no other number."""
MODELS = {
    "256m": Shapes("smolvlm", ("smolvlm-256m", "smolvlm-256m")),
    "500m": Shapes("smolvlm", ("smolvlm2-500m", "smolvlm-256m")),
    "internvl3-1b": Shapes("internvl", ("internvl3-1b", "qwen2.5-vl"), layouts=CLOSEST),
    "internvl3-1b-4-layers": Shapes("internvl", ("internvl3-1b", "qwen2.5-vl"), layers=4, layouts=CLOSEST),
    "tiny": Shapes("smolvlm", None),
    "tiny-internvl": Shapes("internvl", None, layouts=CLOSEST),
}
N_TEXT_IDS = 4200


class Absent(Exception):
    """A case cannot be made here; the message says what is missing."""


@dataclass(frozen=True)
class Case:
    """One checkpoint and its pictures.

    `grid` is the longer side of the tile grid that the picture is cut into: 4 gives SmolVLM 17 tiles, and InternVL,
    whose grids need not be square, 13. `n_threads` is for every peer.
    """

    model: str
    shared: Path
    n_threads: int
    grid: int = 4

    @cached_property
    def folder(self) -> Path:
        """Where it lives."""
        rows, cols = self.layout
        return CACHE / f"{self.model}-{rows}x{cols}-{self._key()}"

    @property
    def family(self) -> str:
        """The kind of checkpoint: smolvlm or internvl."""
        return MODELS[self.model].family

    @property
    def layout(self) -> tuple[int, int]:
        """Rows and columns of the tile grid."""
        return MODELS[self.model].layout(self.grid)[0]

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder, as transformers saves it."""
        return self.folder / "checkpoint"

    def path(self, name: str) -> Path:
        """Return the place of a file or folder of this case."""
        return self.folder / name

    def photo(self, index: int, changed: bool = False) -> Path:
        """Return picture number `index`: another one each, so that nothing remembered helps.

        `changed` is the same picture with other pixels in the middle of one tile.
        """
        return self.folder / "photos" / f"{index}{'-changed' if changed else ''}.jpg"

    @cached_property
    def prompt(self) -> dict[str, Any]:
        """The prompt about picture 0: `text` with one `<image>`, `chunks` (lists of ids, or an int: a tile), counts."""
        document: dict[str, Any] = json.loads(self.path("prompt.json").read_text(encoding="utf-8"))
        return document

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Yield the prompt chunk by chunk: token ids, int64 [n], or a tile's features, float32 [n, hidden]."""
        features = self.load("features")
        for chunk in self.prompt["chunks"]:
            yield np.asarray(chunk, np.int64) if isinstance(chunk, list) else np.asarray(features[chunk])

    def load(self, name: str) -> NDArray[Any]:
        """Memory-map an array of this case.

        tiles: uint8 [n_tiles, tile, tile, 3]; pixel_values: float32 [n_tiles, 3, tile, tile]; features: float32
        [n_tiles, tokens_per_tile, hidden]; text_ids: int64 [N_TEXT_IDS]; text_logits: float32 [vocab].
        """
        array: NDArray[Any] = np.load(self.path(f"{name}.npy"), mmap_mode="r", allow_pickle=False)
        return array

    def text_ids(self, n: int) -> list[int]:
        """Return the first `n` ids of a text without meaning."""
        return [int(token_id) for token_id in self.load("text_ids")[:n]]

    def _key(self) -> str:
        """Return a digest of all that the checkpoint is made from."""
        return digest(self._sources(), f"{VERSION} {SEED} {QUESTION}")

    def _sources(self) -> Sequence[Path]:
        """Return the published files that the checkpoint is made from; raise Absent where they are not here."""
        folders = MODELS[self.model].published
        if folders is None:
            return ()
        family, tokenizer = self.shared / "families" / folders[0], self.shared / "tokenizers" / folders[1]
        found = (family / "config.json", tokenizer / "tokenizer.json", tokenizer / "tokenizer_config.json")
        for path in found:
            if not path.is_file():
                raise Absent(f"{path} is missing; give the folder of published configurations with --shared")
        return found

    def make(self, n_photos: int, image: Path | None = None) -> None:
        """Make whatever is not there yet; `image` replaces the default picture."""
        with making(self.checkpoint) as target:
            if target is not None:
                self._make_checkpoint(target)
        self._make_photos(n_photos, image)
        if not self.path("text_logits.npy").is_file():
            self._make_inputs()

    def _make_checkpoint(self, target: Path) -> None:
        from tests.checkpoints import make_internvl, make_smolvlm

        sources, is_internvl = self._sources(), self.family == "internvl"
        if not sources and is_internvl:
            make_internvl(target, max_patches=MOST_PATCHES, context=8192, seed=SEED)
            return
        if not sources:
            make_smolvlm(target, longest_edge=64 * self.grid, context=8192, seed=SEED)
            return
        config = json.loads(sources[0].read_text(encoding="utf-8"))
        text, vision = config["text_config"], config["vision_config"]
        most = MODELS[self.model].layers
        layers = most or text["num_hidden_layers"]
        vision_layers = most or vision.get("num_hidden_layers", 12)
        tokenizer = sources[1].parent
        if is_internvl:
            make_internvl(
                target,
                published=sources[0].parent,
                tokenizer=tokenizer,
                layers=layers,
                vision_layers=vision_layers,
                is_narrow=False,
                seed=SEED,
            )
            return
        make_smolvlm(
            target,
            config=config,
            tokenizer=tokenizer,
            layers=layers,
            vision_layers=vision_layers,
            longest_edge=vision["image_size"] * self.grid,
            seed=SEED,
        )

    def _make_photos(self, n_photos: int, image: Path | None) -> None:
        from PIL import Image

        folder = self.photo(0).parent
        folder.mkdir(exist_ok=True)
        grid, size = MODELS[self.model].layout(self.grid)
        rgb = _photo(image or self.shared / "photos" / "newspaper_mtmd.jpeg", size)
        # the middle of tile (1, 1), or of (0, 1) where there is one row
        row, col = (int((min(n, 2) - 0.5) / n * side) for n, side in zip(grid, size, strict=True))
        for index in range(n_photos):
            shifted = np.roll(rgb, 5 * index, axis=1)
            for changed in (False, True):
                if changed:
                    shifted[row - 8 : row + 8, col - 8 : col + 8] ^= 255
                # without chroma subsampling a change stays in its own blocks
                Image.fromarray(shifted).save(self.photo(index, changed), quality=95, subsampling=0)

    def _make_inputs(self) -> None:
        """Cut picture 0 as edgevl does, write out the prompt, and run the float32 model in PyTorch."""
        import torch

        from edgevl.export import checkpoint
        from edgevl.image import pixels, tiling
        from edgevl.image.read import read
        from edgevl.model.families import FAMILIES
        from edgevl.model.prompt import build
        from edgevl.model.template import ChatTemplate
        from edgevl.model.tokenizer import Tokenizer
        from edgevl.types import ImagePart, Message, TextChunk, TextPart

        source = checkpoint.read(self.checkpoint)
        family, spec = FAMILIES[source.row.family], source.image
        picture = read(self.photo(0))
        plan = tiling.plan(picture.size, spec, family.tiling, "high")
        if plan.grid != self.layout:
            raise Absent(f"the picture gives a grid of {plan.grid}, not {self.layout}; another one is needed")
        tiles = np.stack(list(pixels.tiles(picture, plan, spec.resample)))
        values = np.concatenate([pixels.normalise(tile, spec.mean, spec.std) for tile in tiles])
        messages = [Message("user", (ImagePart(None), TextPart(QUESTION)))]
        template = ChatTemplate(
            source.chat_template,
            where=str(self.checkpoint),
            bos_token=source.bos_token,
            eos_token=source.eos_token,
        )
        tokenizer = Tokenizer(self.checkpoint / "tokenizer.json")
        chunks = build(
            messages,
            [plan.grid],
            family=family,
            tokenizer=tokenizer,
            template=template,
            image_token_id=source.image_token_id,
            tokens_per_tile=spec.tokens_per_tile,
            context_length=source.context_length,
        )
        document = {
            "text": template.render(messages),
            "image_token": family.image_token,
            "chunks": [list(chunk.token_ids) if isinstance(chunk, TextChunk) else chunk.tile for chunk in chunks],
            "n_tokens": sum(chunk.n_tokens for chunk in chunks),
            "n_tiles": plan.n_tiles,
            "tokens_per_tile": spec.tokens_per_tile,
        }
        model = source.row.load(self.checkpoint, spec.tile)
        n_words = min(source.image_token_id, model.text.config.vocab_size)
        ids = np.random.default_rng(SEED).integers(min(300, n_words // 2), n_words, N_TEXT_IDS)
        with torch.no_grad():
            features = np.concatenate([model.vision(torch.from_numpy(one[None])).numpy() for one in values])
            logits = model.text(input_ids=torch.from_numpy(ids[None, :64]), use_cache=False).logits[0, -1].numpy()
        self.path("prompt.json").write_text(json.dumps(document), encoding="utf-8")
        arrays = {"tiles": tiles, "pixel_values": values, "features": features, "text_ids": ids, "text_logits": logits}
        for name, array in arrays.items():  # the last one tells that all are there
            np.save(self.path(f"{name}.npy"), array, allow_pickle=False)


def digest(paths: Iterable[Path], more: str = "") -> str:
    """Return a short name for what some files hold."""
    found = hashlib.sha256(more.encode())
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:8]


def cosine(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of each pair of rows along the last axis."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    ratio: NDArray[np.float64] = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return ratio


@contextmanager
def making(path: Path) -> Iterator[Path | None]:
    """Yield a place to make `path` in, or None where it is there already; it is moved there in one step."""
    if path.exists():
        yield None
        return
    half = path.with_name(f"half-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if half.is_dir():
        shutil.rmtree(half)
    yield half
    half.rename(path)


def _photo(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the picture at `path`, or a drawn one with some noise, as uint8 [*size, 3]."""
    from PIL import Image

    height, width = size
    if path.is_file():
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB").resize((width, height))).copy()
    from edgevl.export.samples import drawn

    noise = np.random.default_rng(SEED).integers(0, 16, (height, width, 3), dtype=np.uint8)
    return np.asarray(drawn(size, SEED) // 16 * 15 + noise, np.uint8)
