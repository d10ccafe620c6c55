"""A model folder, opened: everything that a request needs, side by side."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgevl.engine.decoder import Decoder, OnnxDecoder, read_embeddings
from edgevl.engine.graph import Graph
from edgevl.engine.vision import VisionEncoder
from edgevl.errors import ManifestError
from edgevl.image import tiling
from edgevl.image.tiling import TilePlan
from edgevl.model import manifest, prompt
from edgevl.model.families import family
from edgevl.model.tokenizer import Tokenizer
from edgevl.store.tiles import TileStore
from edgevl.types import Chunk, Detail, Message


class Loaded:
    """The parts of one model: manifest, family row, tokenizer, template, graphs, and what is remembered.

    `held` says what each token in the decoder's KV cache stands for; its length is always `decoder.n_past`.
    """

    def __init__(self, folder: Path, *, device: str, threads: int | None) -> None:
        """Open the folder. The two graphs load side by side; hashes are left to `edgevl verify`."""
        self.manifest = spec = manifest.read(folder)
        manifest.check_sizes(spec, folder)
        self.family = family(spec.family, str(folder / manifest.FILE_NAME))
        with ThreadPoolExecutor(2) as pool:
            vision = pool.submit(Graph, folder / spec.vision.file, device=device, threads=threads)
            decoder = pool.submit(Graph, folder / spec.decoder.file, device=device, threads=threads)
            self.tokenizer = Tokenizer(folder / spec.tokenizer.file)
            self.template = _template(folder, spec)
            embeddings = read_embeddings(folder / spec.embeddings.file, spec.decoder)
            self.encoder = VisionEncoder(vision.result())
            self.decoder: Decoder = OnnxDecoder(decoder.result(), spec.decoder, embeddings)
        self.tiles = TileStore(self.vision_id)
        self.held: list[Hashable] = []

    @property
    def vision_id(self) -> str:
        """What features depend on beside pixels: the vision graph's SHA-256 and the normalisation."""
        image = self.manifest.image
        return f"{self.manifest.files[self.manifest.vision.file].sha256}:{image.mean}:{image.std}"

    def plan(self, size: tuple[int, int], detail: Detail) -> TilePlan:
        """Return how an image of `size` (height, width) is cut."""
        return tiling.plan(size, self.manifest.image, self.family.tiling, detail)

    def chunks(self, messages: Sequence[Message], plans: Sequence[TilePlan]) -> list[Chunk]:
        """Return the prompt of `messages` whose images are cut by `plans`, in order."""
        return prompt.build(
            messages,
            [plan.grid for plan in plans],
            family=self.family,
            tokenizer=self.tokenizer,
            template=self.template,
            image_token_id=self.manifest.tokenizer.image_token_id,
            tokens_per_tile=self.manifest.image.tokens_per_tile,
        )


def _template(folder: Path, spec: manifest.Manifest) -> prompt.ChatTemplate:
    path = folder / spec.tokenizer.chat_template
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error}); export the model again") from error
    tokens = spec.tokenizer
    return prompt.ChatTemplate(source, where=str(path), bos_token=tokens.bos_token, eos_token=tokens.eos_token)
