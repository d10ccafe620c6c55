"""Trainer of the bundled model: the stages of `stages.py`, one after another.

    python -m edgevl.recipe.train PLACES --processes 2
    python -m edgevl.recipe.train PLACES --processes 2 --stages decoder

where PLACES are --packs, --fonts, --words and --work. A stage that is done leaves a folder of its name in WORK, a
checkpoint and its heads, from which the next one begins and which `edgevl export` reads; one that is stopped goes on
from its last state. With --start CHECKPOINT the first stage begins from those weights, and with what they know the
pictures of its beginning are left out.

Every picture follows from (seed, batch number), and a stage run again, or stopped and gone on with, ends in the same
weights to the last bit with as many processes, on processors that multiply bfloat16 (the card tells what an Intel Xeon
met of an AMD EPYC's run): the log has their digests. With --repeat LOG a run ends at the first weights that are not
those of that log, such as the shipped one.

With --processes N a step takes N batches, one in each process, and their mean gradient. On two cores, two processes
of one thread each train the whole on a quarter more pictures a second than one of two threads, those that draw the
pictures included: much of a step is too small to be shared by threads. On CPUs an allocator that keeps its pages
(jemalloc, preloaded) makes a step a third faster: most of the rest is spent on memory, not on arithmetic. One that
never gives any back (decay times of -1) grew to 16 GB in 1,600 steps, until the system ended it: give it a decay time.
jemalloc 5.3 gives large blocks back at once all the same, unless one of its two times is -1: with
`dirty_decay_ms:60000,muzzy_decay_ms:-1` it stayed at 1.6 GB a process over 5,000 steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from . import emoji, packs
from .batches import Batches, Writer
from .data import CLASS_PACKS, Paths, corpus
from .heads import Heads, Statistics, TokenHeads, word_ids
from .heldout import TRAINING_CHECK, held_out_batches
from .lean import decode
from .model import EdgeVLTiny, TinyConfig, load_checkpoint, load_config, sized, text_config
from .plan import IGNORE
from .stages import BY_NAME, STAGES, Stage
from .tokenizer import END, IMAGE, PAD, TOKENIZER_FILES, train_tokenizer

WIDTH, SHUFFLE = TinyConfig().vision.hidden_size, TinyConfig().scale_factor
DECAY = 0.05
"""Weight decay of all that is no vector."""
FALL = 0.4
"""Share of the steps, at the end, over which the learning rate falls to nothing."""
HEADS = "heads.safetensors"
CHECK_EVERY = 2000
"""Steps between two looks at what is held out; one takes as long as 300 steps."""


class Trainer:
    """One stage: model, heads, optimisers, and the state on disk.

    `start` is the folder that it begins from; None begins from nothing, with a model of `width` and `shuffle`. In a
    process group all ranks hold the same weights; the first one reports and saves. `repeated` has the digests of a run
    that this one shall be equal to, by step.
    """

    def __init__(
        self,
        stage: Stage,
        paths: Paths,
        work: Path,
        start: Path | None,
        width: int = WIDTH,
        shuffle: int = SHUFFLE,
        check_every: int = CHECK_EVERY,
        repeated: Mapping[int, str] | None = None,
    ) -> None:
        self.rank, self.n_ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.stage, self.paths, self.work, self.start, self.check_every = stage, paths, work, start, check_every
        self._repeated = repeated or {}
        text = text_config(eos_token_id=END, pad_token_id=PAD, width=width)
        config = sized(width, text, image_token_id=IMAGE, scale_factor=shuffle) if start is None else load_config(start)
        self.model = EdgeVLTiny(config)
        self.model.vision.stem.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        classes = {name: len(packs.classes(paths.packs, name)) for name in CLASS_PACKS}
        n_emoji = len(emoji.read_pack(paths.packs / "emoji.zip").known)
        self.heads = Heads(config.vision.hidden_size, classes, n_emoji)
        self.writer = Writer(work / "tokenizer.json", config.tokens_per_tile)
        self.word_ids = word_ids(self.writer.encode)
        self.token_heads = TokenHeads(config.text_config["hidden_size"], config.scale_factor**2)
        self.step, self.seconds, self.pictures = 0, 0.0, 0
        matrices, others = self._groups()
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=stage.rate, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=stage.rate, betas=(0.9, 0.98), fused=True),
        )
        self._resume()
        self._train_mode()

    def note_begin(self, options: Mapping[str, Any]) -> None:
        """Write to the log with what a run begins or goes on, folders aside: another run needs it to be the same.

        Raises ValueError where the weights are not those of the run that is repeated.
        """
        plain = {name: value for name, value in options.items() if not isinstance(value, Path)}
        own = {name: getattr(self.stage, name) for name in ("steps", "tiles", "rate", "encoder")}
        self._report_weights({**plain, **own}, kind="begin")

    def run(self, batches: Iterator[dict[str, Tensor]]) -> None:
        """Train to the last step, reporting every 100 and saving every 300; then hand over.

        Raises ValueError at the first saved weights that are not those of the run that is repeated.
        """
        seen, started = Statistics(), time.perf_counter()
        for batch in batches:
            if self.step >= self.stage.steps:
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
                self._report_weights({}, kind="saved")
            if self.stage.asks and self.step % self.check_every == 0:
                self._report(self.held_out(), kind="held_out")
                started = time.perf_counter()
        if self.rank:
            return
        self.save()
        self.hand_over()
        if self.stage.asks and self.step % self.check_every:
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

    def digest(self) -> str:
        """Return the SHA-256 of the model's weights."""
        digest = hashlib.sha256()
        for tensor in self.model.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self) -> None:
        """Write the state to go on from, complete or not at all."""
        state = {
            "model": self.model.state_dict(),
            "heads": self._heads().state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": (self.step, self.seconds, self.pictures),
        }
        path = self.work / f"{self.stage.name}.pt"
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def hand_over(self) -> None:
        """Write the folder that the next stage begins from, a checkpoint with heads, complete or not at all."""
        folder, part = self.work / self.stage.name, self.work / f"{self.stage.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        self.model.save_checkpoint(part)
        save_file(self._heads().state_dict(), part / HEADS)
        for name in TOKENIZER_FILES:
            shutil.copyfile(self.work / name, part / name)
        part.replace(folder)

    def _heads(self) -> nn.ModuleDict:
        return nn.ModuleDict({"heads": self.heads, "token_heads": self.token_heads})

    def _train_mode(self) -> None:
        """Let batch norm learn its statistics in the encoder stage only: later batches are small and of one kind."""
        self.model.train()
        if self.stage.asks:
            self.model.vision.stem.eval()

    def _loss(self, batch: dict[str, Tensor], seen: Statistics) -> Any:
        overviews = batch["overviews"]
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(self.stage.encoder > 0):
                patches = self.model.vision(normalise(batch["tiles"]))
            # Heads begun anew know nothing: they learn while the encoder is held still, and do not mislead it.
            auxiliary = self.heads.loss(patches[overviews], batch, seen)
            if not self.stage.asks:
                return auxiliary
            tokens = self.model.projector(patches)
            found = self.token_heads.loss(tokens[overviews], self._words(), batch, seen)
            logits, target = self._answers(tokens, batch)
        weights = answer_weights(batch["labels"])
        loss = (F.cross_entropy(logits.float(), target, reduction="none") * weights).sum() / weights.sum().clamp(1)
        seen.add("loss", loss.detach())
        return loss + 0.25 * auxiliary + found

    def _words(self) -> dict[str, Tensor]:
        """Return the decoder's embeddings of the names of shapes and colours."""
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
        parts: list[tuple[nn.Module, float]] = [(self.model.vision, self.stage.encoder), (self.heads, 1.0)]
        if self.stage.asks:
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
        steps = self.stage.steps
        warm, fall = min(1.0, (self.step + 1) / 200), FALL * steps
        return self.stage.rate * warm * min(1.0, max(0.02, (steps - self.step) / fall))

    def _resume(self) -> None:
        path = self.work / f"{self.stage.name}.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self._heads().load_state_dict(state["heads"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seconds, self.pictures = state["progress"]
        elif self.start is not None:
            self.model.load_state_dict(load_checkpoint(self.start).state_dict())
            if (self.start / HEADS).exists():
                self._take_heads(load_file(self.start / HEADS))

    def _take_heads(self, handed_over: Mapping[str, Tensor]) -> None:
        """Go on with heads that were handed over; those on the encoder, or on tokens, of another recipe begin anew.

        The shipped model's stages did so: what its encoder's stage left of heads on tokens had more of them.
        """
        for part, heads in self._heads().items():
            own = f"{part}."
            found = {name.removeprefix(own): value for name, value in handed_over.items() if name.startswith(own)}
            if found.keys() == heads.state_dict().keys():
                heads.load_state_dict(found)

    def _report_weights(self, values: Mapping[str, Any], kind: str) -> None:
        digest = self.digest()
        self._report({**values, "weights": digest}, kind)
        if self._repeated.get(self.step, digest) != digest:
            raise ValueError(
                f"stage {self.stage.name}, step {self.step}: the weights are not those of the log to repeat; "
                "compare what its `begin` lines tell, the recipe's commit, fonts, words, packs and PyTorch's version"
            )

    def _report(self, values: Mapping[str, Any], kind: str = "training") -> None:
        line = {"stage": self.stage.name, "kind": kind, "step": self.step, "pictures": self.pictures}
        line |= {"seconds": round(self.seconds), **values}
        print(json.dumps(line), flush=True)
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def recorded(log: Path, stage: str) -> dict[int, str]:
    """Return the digests of weights that a log has of a stage, by step."""
    lines = map(json.loads, log.read_text("utf-8").splitlines())
    return {line["step"]: line["weights"] for line in lines if line["stage"] == stage and "weights" in line}


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
    """Run the stages."""
    options = _parser().parse_args()
    paths = _places(options)
    packs.require(paths.packs)
    for name in packs.PACKS:
        packs.build_cache(paths.packs, paths.cache, name)
    if options.start is not None:
        for name in TOKENIZER_FILES:
            shutil.copyfile(options.start / name, options.work / name)
    elif not (options.work / "tokenizer.json").exists():
        train_tokenizer(corpus(paths, 6000), options.work)
    start = options.start
    for name in options.stages:
        if not (options.work / name).exists():
            _train_stage(BY_NAME[name], start or _handed_over(options.work, name), options)
        start = None


def _handed_over(work: Path, name: str) -> Path | None:
    """Return the folder that the stage before has left; None for the first stage.

    Raises FileNotFoundError where it has left none.
    """
    number = STAGES.index(BY_NAME[name])
    if not number:
        return None
    folder = work / STAGES[number - 1].name
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: stage {name} begins from it; run stage {folder.name}, or name a --start")
    return folder


def _parser() -> argparse.ArgumentParser:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, required=True, help="folder with the photo packs (zip files)")
    parser.add_argument("--work", type=Path, required=True, help="folder for states, logs and the checkpoint")
    parser.add_argument("--fonts", type=Path, required=True, help="folder with TrueType fonts")
    parser.add_argument("--words", type=Path, required=True, help="word list, one a line")
    parser.add_argument("--stages", nargs="+", choices=names, default=names, help="default: all, in this order")
    parser.add_argument("--start", type=Path, help="checkpoint folder to begin from, such as the shipped one")
    parser.add_argument("--repeat", type=Path, metavar="LOG", help="end at the first weights that are not those of LOG")
    parser.add_argument("--steps", type=int, help="of each stage, instead of its own")
    parser.add_argument("--check-every", type=int, default=CHECK_EVERY, help="steps between looks at what is held out")
    parser.add_argument("--width", type=int, default=WIDTH, help="of a model that begins from nothing")
    parser.add_argument(
        "--shuffle",
        type=int,
        default=SHUFFLE,
        help="patches a side that become one image token, of a model that begins from nothing",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures, for each that trains")
    parser.add_argument("--processes", type=int, default=1, help="processes that train together, a batch each")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all training processes together")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _places(options: argparse.Namespace) -> Paths:
    return Paths(options.packs, options.work / "packs", options.fonts, options.words)


def _train_stage(stage: Stage, start: Path | None, options: argparse.Namespace) -> None:
    """Train a stage in as many processes as are asked for."""
    if options.steps is not None:
        stage = replace(stage, steps=options.steps)
    if options.processes == 1:
        train(stage, start, options)
        return
    with tempfile.TemporaryDirectory() as meeting:
        mp.spawn(_train_together, (stage, start, options, Path(meeting) / "ranks"), options.processes)  # type: ignore[attr-defined, no-untyped-call]


def _train_together(rank: int, stage: Stage, start: Path | None, options: argparse.Namespace, meeting: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.processes)
    train(stage, start, options)
    dist.barrier()  # until the first rank has looked at what is held out
    dist.destroy_process_group()


def train(stage: Stage, start: Path | None, options: argparse.Namespace) -> None:
    """Train a stage in this process, as one rank of its group if it is in one."""
    torch.set_num_threads(max(1, options.threads // options.processes))
    torch.manual_seed(options.seed)
    paths = _places(options)
    repeated = None if options.repeat is None else recorded(options.repeat, stage.name)
    trainer = Trainer(stage, paths, options.work, start, options.width, options.shuffle, options.check_every, repeated)
    batches = Batches(
        paths,
        trainer.writer,
        stage,
        seed=options.seed + STAGES.index(BY_NAME[stage.name]),
        start=trainer.step,
        grounded=options.start is not None,
        rank=trainer.rank,
        n_ranks=trainer.n_ranks,
    )
    if trainer.rank == 0:
        trainer.note_begin(vars(options))
    loader = DataLoader(batches, batch_size=None, num_workers=options.workers, prefetch_factor=6)
    trainer.run(iter(loader))


if __name__ == "__main__":
    main()
