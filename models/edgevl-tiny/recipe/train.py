"""Trainer of the bundled model: first the encoder on dense labels and classes, then the whole on questions.

    python -m edgevl.recipe.train encoder PLACES --tiles 12 --processes 2 --steps 7000
    python -m edgevl.recipe.train whole   PLACES --tiles 24 --processes 2 --steps 11800 --frozen 4500

where PLACES are --packs, --fonts, --words and --work. With --start CHECKPOINT a stage begins from those weights, and
with what they know the pictures of its beginning are left out; the whole takes over what the encoder stage in WORK
has learned from them since. On CPUs an allocator that keeps its pages (jemalloc, preloaded)
makes a step a third faster: most of the rest is spent on memory, not on arithmetic. One that never gives any back
(decay times of -1) grew to 16 GB in 1,600 steps, until the system ended it: give it a decay time.

Both stages can be stopped and started again: they go on from the last state in WORK. Every picture follows from
(seed, batch number). The learning rate rises, stays, and falls linearly over the last steps.

With --processes N a step takes N batches, one in each process, and their mean gradient. On two cores, two processes
of one thread each train the whole on a quarter more pictures a second than one of two threads, those that draw the
pictures included: much of a step is too small to be shared by threads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from . import glyphs, packs, scenes
from .batches import ENCODER, IGNORE, N_PATCHES, WHOLE, Batches, Writer, with_photos
from .data import CLASS_PACKS, Paths, corpus
from .heldout import TRAINING_CHECK, held_out_batches
from .lean import decode
from .model import EdgeVLTiny, TinyConfig, load_checkpoint, load_config, pixel_shuffle, sized, text_config
from .tokenizer import END, IMAGE, PAD, TOKENIZER_FILES, train_tokenizer

DENSE = {
    "shape": 1 + len(scenes.SHAPES),
    "colour": 1 + len(scenes.COLOURS),
    **dict.fromkeys(glyphs.HALVES, 1 + len(glyphs.GLYPHS)),
}
WORDS = {"shape": scenes.SHAPES, "colour": tuple(scenes.COLOURS)}
BACKGROUND_WEIGHT = 0.3
WIDTH, SHUFFLE = TinyConfig().vision.hidden_size, TinyConfig().scale_factor
ENCODER_RATE, WHOLE_RATE = 1e-3, 6e-4
"""At twice the rate for the whole, what needs two things found and compared stayed at chance: the steps drown it."""
ENCODER_SHARE = 0.3
"""The encoder's rate in the whole stage, as a share of the others': it has been trained before."""
DECAY = 0.05
"""Weight decay of all that is no vector."""
FALL = 0.4
"""Share of the steps, at the end, over which the learning rate falls to nothing."""


CHECK_EVERY = 2000
"""Steps between two looks at what is held out; one takes as long as 300 steps."""


class TokenHeads(nn.Module):
    """Auxiliary heads behind the projector: what lies in each image token, of `n_patches` patches."""

    def __init__(self, width: int, n_patches: int) -> None:
        super().__init__()
        self.word_bias = nn.ParameterDict({name: nn.Parameter(torch.zeros(len(WORDS[name]))) for name in WORDS})
        self.glyphs = nn.Linear(width, n_patches * len(glyphs.HALVES) * DENSE[glyphs.HALVES[0]])

    def loss(self, tokens: Tensor, words: dict[str, Tensor], batch: dict[str, Tensor], seen: Statistics) -> Tensor:
        """Return the summed loss for `tokens` [n, tokens, text width] of the overviews; notes accuracies in `seen`."""
        factor = round((N_PATCHES / tokens.shape[1]) ** 0.5)
        return self._words(tokens, words, batch, factor, seen) + self._glyphs(tokens, batch, factor, seen)

    def _words(
        self, tokens: Tensor, words: dict[str, Tensor], batch: dict[str, Tensor], factor: int, seen: Statistics
    ) -> Tensor:
        """Tell which shapes and colours lie in a token.

        It shall point where the decoder's embeddings `words` [names, text width] of what lies in it point,
        so that a word in a question finds it. Left to the answers alone, colours became searchable and shapes did not.
        """
        total = tokens.new_zeros((), dtype=torch.float32)
        for name, embeddings in words.items():
            rows = (batch[name] != IGNORE).any(1)
            if rows.any():
                logits = tokens[rows].float() @ embeddings.float().T + self.word_bias[name]
                patches = pixel_shuffle(batch[name][rows][..., None], factor)  # [n, tokens, patches of a token]
                target = (patches[..., None] == 1 + torch.arange(len(embeddings))).any(-2)
                total = total + F.binary_cross_entropy_with_logits(logits, target.float())
                seen.add(f"{name}_tokens", (logits > 0)[target].float().mean())
        return total

    def _glyphs(self, tokens: Tensor, batch: dict[str, Tensor], factor: int, seen: Statistics) -> Tensor:
        """Tell which letter lies in each half of a token's patches, so that the projector lets none of them go."""
        halves = torch.stack([batch[name] for name in glyphs.HALVES], -1)  # [n, patches, 2]
        rows = (halves != IGNORE).flatten(1).any(1)
        if not rows.any():
            return tokens.new_zeros((), dtype=torch.float32)
        target = pixel_shuffle(halves[rows], factor)
        logits = self.glyphs(tokens[rows]).float().view(*target.shape, -1)
        return dense_loss(logits, target, "token_glyphs", seen)


class Heads(nn.Module):
    """Auxiliary heads on the encoder: what each patch shows, and which class of its pack a photo has."""

    def __init__(self, width: int, classes: dict[str, int]) -> None:
        super().__init__()
        self.dense = nn.ModuleDict({name: nn.Linear(width, n) for name, n in DENSE.items()})
        self.packs = nn.ModuleDict({name: nn.Linear(width, n) for name, n in classes.items()})

    def loss(self, patches: Tensor, batch: dict[str, Tensor], seen: Statistics) -> Tensor:
        """Return the summed loss for `patches` [n, 256, width] of the overviews; notes accuracies in `seen`."""
        total = patches.new_zeros((), dtype=torch.float32)
        for name, head in self.dense.items():
            rows = (batch[name] != IGNORE).any(1)
            if rows.any():
                total = total + dense_loss(head(patches[rows]).float(), batch[name][rows], name, seen)
        pooled = patches.float().mean(1)
        for number, name in enumerate(CLASS_PACKS):
            rows = batch["pack"] == number
            if rows.any():
                logits, target = self.packs[name](pooled[rows]).float(), batch["label"][rows]
                share = rows.float().sum() / max(1, int((batch["pack"] >= 0).sum()))
                total = total + share * F.cross_entropy(logits, target, label_smoothing=0.05)
                seen.add(name, (logits.argmax(-1) == target).float().mean())
        return total


def dense_loss(logits: Tensor, target: Tensor, name: str, seen: Statistics) -> Tensor:
    """Return the mean loss of `logits` [..., classes] against `target` [...], class 0, nothing there, counting less.

    Notes in `seen` the share that is right where there is something.
    """
    weight = torch.ones(logits.shape[-1])
    weight[0] = BACKGROUND_WEIGHT
    things = target > 0
    seen.add(name, (logits.argmax(-1) == target)[things].float().mean())
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(), weight=weight, ignore_index=IGNORE)


class Statistics:
    """Means since the last report."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: Tensor | float) -> None:
        """Note one value; not-a-number (nothing to measure) is left out."""
        number = float(value)
        if number == number:
            self._values[name].append(number)

    def take(self) -> dict[str, float]:
        """Return the means and begin anew."""
        means = {name: round(float(np.mean(values)), 4) for name, values in sorted(self._values.items())}
        self._values.clear()
        return means


class Trainer:
    """One stage: model, heads, optimiser, and the state on disk.

    In a process group all ranks hold the same weights; the first one reports and saves.
    """

    def __init__(
        self,
        stage: str,
        paths: Paths,
        work: Path,
        steps: int,
        peak: float,
        frozen: int = 0,
        start: Path | None = None,
        width: int = WIDTH,
        shuffle: int = SHUFFLE,
        encoder_share: float = ENCODER_SHARE,
        check_every: int = CHECK_EVERY,
    ) -> None:
        self.rank, self.n_ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.stage, self.paths, self.work, self.steps, self.peak = stage, paths, work, steps, peak
        self.frozen, self.start, self.encoder_share, self.check_every = frozen, start, encoder_share, check_every
        text = text_config(eos_token_id=END, pad_token_id=PAD, width=width)
        config = sized(width, text, image_token_id=IMAGE, scale_factor=shuffle) if start is None else load_config(start)
        self.model = EdgeVLTiny(config)
        self.model.vision.stem.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        classes = {name: len(packs.classes(paths.packs, name)) for name in CLASS_PACKS}
        self.heads = Heads(config.vision.hidden_size, classes)
        self.token_heads = TokenHeads(config.text_config["hidden_size"], config.scale_factor**2)
        self.writer = Writer(work / "tokenizer.json", config.tokens_per_tile)
        self.word_ids = word_ids(work / "tokenizer.json") if stage == "whole" else {}
        self.step, self.seconds, self.pictures = 0, 0.0, 0
        matrices, others = self._groups()
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=peak, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), fused=True),
        )
        self._resume()
        self._train_mode()

    def note_begin(self, options: dict[str, Any]) -> None:
        """Write to the log with what a run begins or goes on, folders aside: another run needs it to be the same."""
        self._report({name: value for name, value in options.items() if not isinstance(value, Path)}, kind="begin")

    def run(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Train up to `steps`, reporting every 100 and saving every 300."""
        seen, started = Statistics(), time.perf_counter()
        for batch in batches:
            if self.step >= self.steps:
                break
            self.advance(batch, seen)
            if self.rank:
                continue
            if self.step % 100 == 0:
                now = time.perf_counter()
                self.seconds, started = self.seconds + now - started, now
                self._report(seen.take())
            if self.step % 300 == 0:
                self.save()
            if self.stage == "whole" and self.step % self.check_every == 0:
                self._report(self.held_out(), kind="held_out")
                started = time.perf_counter()
        if self.rank:
            return
        self.save()
        if self.stage == "whole" and self.step % self.check_every:
            self._report(self.held_out(), kind="held_out")

    def advance(self, batch: dict[str, Tensor], seen: Statistics) -> float:
        """Take one step on a batch; return the loss before it, and note accuracies in `seen`."""
        for group in self._param_groups():
            group["lr"] = self._rate() * group["scale"]
        loss = self._loss(batch, seen)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.n_ranks > 1:
            mean_gradients(self._parameters())
        nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        n_pictures = torch.tensor(len(batch["pack"]))
        if self.n_ranks > 1:
            dist.all_reduce(n_pictures)
        self.pictures += int(n_pictures)
        return float(loss.detach())

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Return the share of held-out answers that are right to the last token, per task."""
        self.model.eval()
        n_threads = torch.get_num_threads()
        torch.set_num_threads(n_threads * self.n_ranks)  # the others wait
        shares = {}
        for task, batches in held_out_batches(self.paths, self.writer, TRAINING_CHECK):
            right = [self._right(batch) for batch in batches]
            shares[task] = round(float(torch.cat(right).float().mean()), 4)
        self._train_mode()
        torch.set_num_threads(n_threads)
        return shares

    def save(self) -> None:
        """Write the state (for resuming) and a checkpoint folder, both complete or not at all."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "token_heads": self.token_heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": (self.step, self.seconds, self.pictures),
        }
        path = self.work / f"{self.stage}.pt"
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
        if self.stage == "whole":
            self.model.save_checkpoint(self.work / "checkpoint")
            for name in TOKENIZER_FILES:
                shutil.copyfile(self.work / name, self.work / "checkpoint" / name)

    def _train_mode(self) -> None:
        """Let batch norm learn its statistics in the encoder stage only: later batches are small and of one kind."""
        self.model.train()
        if self.stage == "whole":
            self.model.vision.stem.eval()

    def _loss(self, batch: dict[str, Tensor], seen: Statistics) -> Any:
        overviews = batch["overviews"]
        frozen = self.stage == "whole" and self.step < self.frozen
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(not frozen):
                patches = self.model.vision(normalise(batch["tiles"]))
            # The heads of a new run know nothing: they learn while the encoder is held still, and do not mislead it.
            auxiliary = self.heads.loss(patches[overviews], batch, seen)
            if self.stage == "encoder":
                return auxiliary
            tokens = self.model.projector(patches)
            found = self.token_heads.loss(tokens[overviews], self._words(), batch, seen)
            logits, target = self._answers(tokens, batch)
        weights = answer_weights(batch["labels"])
        loss = (F.cross_entropy(logits.float(), target, reduction="none") * weights).sum() / weights.sum().clamp(1)
        seen.add("loss", loss.detach())
        return loss + 0.25 * auxiliary + found

    def _words(self) -> dict[str, Tensor]:
        """Return the decoder's embeddings of the names of shapes and colours, as they stand inside a sentence."""
        embed = self.model.text.get_input_embeddings()
        return {name: embed(ids) for name, ids in self.word_ids.items()}

    def _answers(self, tokens: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits [m, vocab] before every answer token of the batch, and the tokens [m]."""
        embeds = self.model.embed(batch["input_ids"], tokens)
        hidden = decode(self.model.text, embeds, batch["segments"])
        places = batch["labels"][:, 1:] != IGNORE
        return self.model.text.lm_head(hidden[:, :-1][places]), batch["labels"][:, 1:][places]

    def _right(self, batch: dict[str, Tensor]) -> Tensor:
        """Return for each row whether every answer token is the likeliest: bool [n]."""
        with torch.autocast("cpu", torch.bfloat16):
            logits, target = self._answers(self.model.encode(normalise(batch["tiles"])), batch)
        places = batch["labels"][:, 1:] != IGNORE
        right = torch.ones_like(places)
        right[places] = logits.argmax(-1) == target
        return right.all(1)

    def _groups(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Group parameters: the matrices of hidden layers, which Muon steps, and the others, which AdamW steps.

        No decay for vectors, a share of the rate for an encoder that has been trained before. Heads and embeddings are
        no hidden layers, and convolutions no matrices.
        """
        vision = self.encoder_share if self.stage == "whole" else 1.0
        parts: list[tuple[nn.Module, float]] = [(self.model.vision, vision), (self.heads, 1.0)]
        if self.stage == "whole":
            parts += [(self.model.projector, 1.0), (self.model.text, 1.0), (self.token_heads, 1.0)]
        hidden = {id(p) for p in hidden_matrices(self.model)}
        matrices: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for part, scale in parts:
            own = [p for p in part.parameters() if id(p) in hidden]
            large = [p for p in part.parameters() if p.ndim > 1 and id(p) not in hidden]
            vectors = [p for p in part.parameters() if p.ndim <= 1]
            if own:
                matrices.append({"params": own, "weight_decay": DECAY, "scale": scale})
            others += [
                {"params": large, "weight_decay": DECAY, "scale": scale},
                {"params": vectors, "weight_decay": 0.0, "scale": scale},
            ]
        return matrices, others

    def _param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self._param_groups() for p in group["params"]]

    def _rate(self) -> float:
        warm, fall = min(1.0, (self.step + 1) / 200), FALL * self.steps
        return self.peak * warm * min(1.0, max(0.02, (self.steps - self.step) / fall))

    def _resume(self) -> None:
        path = self.work / f"{self.stage}.pt"
        before = self.work / "encoder.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.heads.load_state_dict(state["heads"])
            self.token_heads.load_state_dict(state["token_heads"])
            for optimizer, saved, asked in zip(self.optimizers, state["optimizers"], self._groups(), strict=True):
                optimizer.load_state_dict(saved)
                for group, own in zip(optimizer.param_groups, asked, strict=True):
                    group["scale"] = own["scale"]
            self.step, self.seconds, self.pictures = state["progress"]
            return
        if self.start is not None:
            self.model.load_state_dict(load_checkpoint(self.start).state_dict())
        if self.stage == "whole" and before.exists():
            state = torch.load(before, weights_only=True)
            vision = {k.removeprefix("vision."): v for k, v in state["model"].items() if k.startswith("vision.")}
            self.model.vision.load_state_dict(vision)
            self.heads.load_state_dict(state["heads"])

    def _report(self, values: Mapping[str, Any], kind: str = "training") -> None:
        line = {"stage": self.stage, "kind": kind, "step": self.step, "pictures": self.pictures}
        line |= {"seconds": round(self.seconds), **values}
        print(json.dumps(line), flush=True)
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def hidden_matrices(model: EdgeVLTiny) -> list[Tensor]:
    """Return the matrices of linear layers whose input and output are hidden states: [out, in] each.

    Muon makes their steps orthogonal, so that what few directions of a batch say is not drowned by the others
    (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").
    """
    parts = (model.vision, model.projector, model.text.model)
    return [layer.weight for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]


def mean_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give the gradients that any rank has their mean over all ranks; where a rank has none, it counts as 0.

    They lie in memory as their parameters do: the fused AdamW reads both in the order in which they lie, so that
    rows of numbers stepped convolutions, which are channels last, by other weights' gradients.
    """
    has = torch.tensor([float(p.grad is not None) for p in parameters])
    dist.all_reduce(has, dist.ReduceOp.MAX)
    found = [p for p, any_has in zip(parameters, has.tolist(), strict=True) if any_has]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in found])
    dist.all_reduce(flat)
    for p, mean in zip(found, torch.split(flat.div_(dist.get_world_size()), [p.numel() for p in found]), strict=True):
        p.grad = torch.empty_like(p).copy_(mean.view_as(p))


def word_ids(tokenizer: Path) -> dict[str, Tensor]:
    """Return the token ids of the names of shapes and colours behind a space; for several tokens, the first."""
    encode = Tokenizer.from_file(str(tokenizer)).encode
    return {
        name: torch.tensor([encode(f" {word}", add_special_tokens=False).ids[0] for word in words])
        for name, words in WORDS.items()
    }


def answer_weights(labels: Tensor) -> Tensor:
    """Return for each answer token of labels [n, length] its share in the loss, [m]: 1 / sqrt(tokens of its answer).

    By tokens alone, transcripts and JSON, which are long and mostly not yet readable, drowned answers of one word.
    """
    places = labels[:, 1:] != IGNORE
    starts = places & ~F.pad(places[:, :-1], (1, 0))
    answers = starts.cumsum(1) * places  # 0 where there is none
    counts = torch.zeros(len(labels), int(answers.max()) + 1).scatter_add(1, answers, places.float())
    return counts.gather(1, answers)[places].rsqrt()


def normalise(tiles: Tensor) -> Tensor:
    """Turn uint8 tiles [n, 3, 128, 128] into values in -1..1, channels last in memory."""
    return ((tiles.float() / 255 - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("encoder", "whole"))
    parser.add_argument("--packs", type=Path, required=True, help="folder with the photo packs (zip files)")
    parser.add_argument("--work", type=Path, required=True, help="folder for states, logs and the checkpoint")
    parser.add_argument("--fonts", type=Path, required=True, help="folder with TrueType fonts")
    parser.add_argument("--words", type=Path, required=True, help="word list, one a line")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--tiles", type=int, default=24, help="tiles a batch, at most")
    parser.add_argument("--rate", type=float, default=None, help="peak learning rate")
    parser.add_argument("--frozen", type=int, default=0, help="steps of the whole stage before the encoder learns on")
    parser.add_argument("--encoder-share", type=float, default=ENCODER_SHARE, help="of the rate, in the whole stage")
    parser.add_argument("--check-every", type=int, default=CHECK_EVERY, help="steps between looks at what is held out")
    parser.add_argument("--width", type=int, default=WIDTH, help="of a model that begins from nothing")
    parser.add_argument(
        "--shuffle",
        type=int,
        default=SHUFFLE,
        help="patches a side that become one image token, of a model that begins from nothing",
    )
    parser.add_argument("--start", type=Path, help="checkpoint folder to begin from, such as the shipped one")
    parser.add_argument("--photos", type=float, help="share of photos among the pictures, instead of the stage's own")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures, for each that trains")
    parser.add_argument("--processes", type=int, default=1, help="processes that train together, a batch each")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all training processes together")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    paths = _places(options)
    packs.require(paths.packs)
    for name in packs.PACKS:
        packs.build_cache(paths.packs, paths.cache, name)
    if options.start is not None:
        for name in TOKENIZER_FILES:
            shutil.copyfile(options.start / name, options.work / name)
    elif not (options.work / "tokenizer.json").exists():
        train_tokenizer(corpus(paths, 6000), options.work)
    if options.processes == 1:
        train(options)
        return
    with tempfile.TemporaryDirectory() as meeting:
        mp.spawn(_train_together, (options, Path(meeting) / "ranks"), options.processes)  # type: ignore[attr-defined, no-untyped-call]


def _places(options: argparse.Namespace) -> Paths:
    return Paths(options.packs, options.work / "packs", options.fonts, options.words)


def _train_together(rank: int, options: argparse.Namespace, meeting: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.processes)
    train(options)
    dist.barrier()  # until the first rank has looked at what is held out
    dist.destroy_process_group()


def train(options: argparse.Namespace) -> None:
    """Train a stage in this process, as one rank of its group if it is in one."""
    torch.set_num_threads(max(1, options.threads // options.processes))
    torch.manual_seed(options.seed)
    whole = options.stage == "whole"
    stage = WHOLE if whole else ENCODER
    rate = options.rate or (WHOLE_RATE if whole else ENCODER_RATE)
    paths = _places(options)
    trainer = Trainer(
        options.stage, paths, options.work, options.steps, rate,
        options.frozen, options.start, options.width, options.shuffle, options.encoder_share, options.check_every,
    )  # fmt: skip
    batches = Batches(
        paths,
        trainer.writer if whole else None,
        stage if options.photos is None else with_photos(stage, options.photos),
        seed=options.seed + whole,
        start=trainer.step,
        n_tiles=options.tiles,
        grounded=options.start is not None,
        rank=trainer.rank,
        n_ranks=trainer.n_ranks,
    )
    if trainer.rank == 0:
        trainer.note_begin({**vars(options), "rate": rate})
    loader = DataLoader(batches, batch_size=None, num_workers=options.workers, prefetch_factor=6)
    trainer.run(iter(loader))


if __name__ == "__main__":
    main()
