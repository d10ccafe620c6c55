"""Compare edgevl with other runtimes on this machine, stage by stage, in one run.

    python -m benchmarks.compare [--model 256m|500m|internvl3-1b] [--peers edgevl,llama.cpp] [--rounds 5] [--threads N]
                                 [--awake] [--quick]

Random weights in the true shapes of SmolVLM-256M, SmolVLM2-500M or InternVL3-1B; every peer gets the same checkpoint
in its own format, the same pictures, the same tiles (17, and 13 of InternVL), the same number of threads and the same
bits. Each round starts a process
per variant: its start and its first answer give cold start, first token and peak memory (what a runtime compiles once
per model and machine has been compiled before, while the weights were checked); then the processes take turns,
stage by stage, and those whose turn it is not are stopped. Figures are medians over rounds. A variant whose package is
missing, that fails or that was not asked for is named with the reason. Results and a plot go to benchmarks/results/.

Before anything is timed, the weights are checked: llama.cpp on its unquantized file must compute what PyTorch does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import report, stolen, tables
from benchmarks.awake import add_option, awake
from benchmarks.cold import ROOT, _high_water, existing, positive, use_cores
from benchmarks.peers import AIMED_CONTEXT, CONTEXTS, PEERS, VARIANTS, WITNESS, Variant
from benchmarks.peers.case import MODELS, QUESTION, SECOND_QUESTION, Absent, Case
from benchmarks.peers.worker import Worker, WorkerFailed
from benchmarks.report import Samples
from edgevl.store import disk

N_GREEDY, N_PROMPT = 16, 64
MIN_WITNESS_COSINE = 0.999
N_EQUAL = 4
"""Greedy tokens that unquantized files must have in common with float32; later ones may part on a near tie."""
NOT_ASKED = "not asked for (--peers)"


@dataclass(frozen=True)
class Amount:
    """How much is measured in a round.

    What aims look at and takes seconds is measured in `n_turns`, and encoding, at least once, for `turn_s` seconds of
    each: one moment on a machine shared with others says little.
    """

    rounds: int
    n_tiles: int
    n_tokens: int
    contexts: tuple[int, ...]
    n_turns: int = 1
    turn_s: float = 0.0


class Comparison:
    """One run: the variants still taking part, what has been measured, and why others are left out."""

    def __init__(self, case: Case, variants: Sequence[Variant], amount: Amount) -> None:
        self.case, self.variants, self.amount = case, list(variants), amount
        self.peers = list(dict.fromkeys(variant.peer for variant in variants))
        self.samples = Samples()
        self.checks: dict[str, dict[str, Any]] = {}
        self.about: dict[str, Any] = {}
        self.skipped = {variant.name: NOT_ASKED for variant in VARIANTS if variant not in self.variants}
        self.stolen_share: float | None = None

    def leave_out(self, variant: Variant, why: object) -> None:
        """Take no further notice of a variant, and say so."""
        self.skipped[variant.name] = str(why)
        self.variants = [other for other in self.variants if other != variant]
        print(f"skipped: {variant.name}: {why}", flush=True)

    def build(self) -> None:
        """Make every variant's files."""
        for variant in list(self.variants):
            if why := variant.missing or variant.unfit(self.case.family):
                self.leave_out(variant, why)
                continue
            print(f"preparing {variant.name}", flush=True)
            try:
                Worker(self.case, variant, build=True).close()
            except WorkerFailed as error:
                self.leave_out(variant, error)

    def check(self) -> None:
        """Measure how near each variant is to the float32 model; files are in the page cache afterwards.

        Raises WorkerFailed where llama.cpp's unquantized files do not hold the checkpoint.
        """
        n_tiles = min(self.amount.n_tiles * 2, self.case.prompt["n_tiles"] - 1)
        if any(variant.peer == WITNESS.peer for variant in self.variants):
            Worker(self.case, WITNESS, build=True).close()
            self._check(WITNESS, n_tiles)
        for variant in list(self.variants):
            try:
                self._check(variant, n_tiles)
            except WorkerFailed as error:
                self.leave_out(variant, error)
        self._judge_witness()

    def _check(self, variant: Variant, n_tiles: int) -> None:
        print(f"checking {variant.name}", flush=True)
        found = self.checks[variant.name] = {}
        with Worker(self.case, variant) as worker:
            self.about[variant.name] = worker.loaded["about"]
            if "features" in variant.stages:
                found["feature_cosine"] = worker.run("features", n_tiles=n_tiles)
            if "encode" in variant.stages:
                worker.run("encode", n_tiles=self.amount.n_tiles)  # what is compiled for it is kept
            if "greedy" in variant.stages:
                ids = self.case.text_ids(N_PROMPT)
                found.update(worker.run("greedy", token_ids=ids, n_tokens=N_GREEDY))

    def _judge_witness(self) -> None:
        found = self.checks.get(WITNESS.name)
        if found is None:
            return
        reference = next((c for n, c in self.checks.items() if "float32" in n), None)
        equal = reference is None or found["token_ids"][:N_EQUAL] == reference["token_ids"][:N_EQUAL]
        nearest = min(found["feature_cosine"]["mean"], found["logits_cosine"])
        if nearest < MIN_WITNESS_COSINE or not equal:
            raise WorkerFailed(f"{WITNESS.name} does not compute the checkpoint, so nothing is compared: {found}")

    def rounds(self) -> None:
        """Measure, round after round, and how much of the time the host kept meanwhile."""
        before = stolen.used()
        for index in range(self.amount.rounds):
            print(f"round {index + 1} of {self.amount.rounds}", flush=True)
            self.round(index)
        self.stolen_share = stolen.share(before, stolen.used())

    def round(self, index: int) -> None:
        """Run every stage of every variant once, the order turned by one each round."""
        turn = index % max(len(self.variants), 1)
        order = self.variants[turn:] + self.variants[:turn]
        with ExitStack() as stack:
            stores = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgevl-compare-")))
            workers: dict[str, Worker] = {}
            begin = partial(self._begin, index=index, stores=stores, workers=workers, stack=stack)
            for variant in order:
                self._try(variant, partial(begin, variant))
            for stage, arguments in self._stages():
                for variant in self._still(order):
                    if stage in variant.stages:
                        self._try(variant, partial(self._stage, workers[variant.name], stage, arguments))
            for variant in self._still(order):
                if variant.peer == "edgevl":
                    self._try(variant, partial(self._again, workers[variant.name], index, stores))

    def _still(self, order: Sequence[Variant]) -> list[Variant]:
        """Return those of a round's variants that have not been left out since."""
        return [variant for variant in order if variant in self.variants]

    def _try(self, variant: Variant, action: Callable[[], None]) -> None:
        try:
            action()
        except WorkerFailed as error:
            self.leave_out(variant, error)

    def _begin(
        self, variant: Variant, *, index: int, stores: Path, workers: dict[str, Worker], stack: ExitStack
    ) -> None:
        """Start a worker and let it answer about a picture that it has not seen."""
        store = stores / variant.name
        _copy_compiled(self.case.path("store"), store)
        worker = workers[variant.name] = Worker(self.case, variant, store=store)
        stack.callback(worker.close)
        self.samples.add(variant.name, "ready_s", worker.loaded["loaded_at"] - worker.started_at)
        if "answer" in variant.stages:
            result = self._answer(worker, self.case.photo(index), QUESTION)
            self._note_answer(variant, result)
            first = result["first_token_at"] - worker.started_at
            self.samples.add(variant.name, "cold_first_token_s", first)
            self.samples.add(variant.name, "peak_rss_bytes", _high_water(psutil.Process(worker.pid)))

    def _answer(self, worker: Worker, image: Path, question: str) -> dict[str, Any]:
        result: dict[str, Any] = worker.run(
            "answer", image=str(image), question=question, n_tokens=self.amount.n_tokens
        )
        return result

    def _note_answer(self, variant: Variant, result: dict[str, Any]) -> None:
        """Keep the seconds of a first answer; its counts must be the case's, else it is not the same work."""
        wanted = (self.case.prompt["n_tiles"], self.case.prompt["n_tokens"])
        if (result["n_tiles"], result["n_tokens"]) != wanted:
            raise WorkerFailed(f"{variant.name}: tiles and prompt tokens are {result}, expected {wanted}")
        for metric in ("read_s", "tile_s", "encode_s", "prefill_s", "first_token_s"):
            if metric in result:
                self.samples.add(variant.name, metric, result[metric])

    def _stages(self) -> list[tuple[str, dict[str, Any]]]:
        amount = self.amount
        aimed = [("encode", {"n_tiles": amount.n_tiles}), ("prefill", {}), ("prefill_text", {})]
        decode = [
            ("decode", {"context": n, "n_tokens": amount.n_tokens})
            for n in amount.contexts
            for _ in range(amount.n_turns if n == AIMED_CONTEXT else 1)
        ]
        return [stage for stage in aimed for _ in range(amount.n_turns)] + decode

    def _stage(self, worker: Worker, stage: str, arguments: dict[str, Any]) -> None:
        """Run a stage; a run counts once, with the median of its tiles or the mean of its tokens."""
        name = worker.variant.name
        if stage == "encode":
            started, is_first = time.perf_counter(), True
            while is_first or time.perf_counter() - started < self.amount.turn_s:
                self.samples.add(name, "encode_tile_s", median(worker.run(stage, **arguments)))
                is_first = False
            return
        values = worker.run(stage, **arguments)
        if stage == "decode":
            self.samples.add(name, f"decode_{arguments['context']}_tokens_per_s", len(values) / sum(values))
        else:
            self.samples.add(name, f"{stage}_tokens_per_s", *values)

    def _again(self, worker: Worker, index: int, stores: Path) -> None:
        """Ask edgevl about the next screenshot, and a new process another question about the first picture."""
        name, case = worker.variant.name, self.case
        pictures = [case.photo(index), case.photo(index, changed=True)]
        result = self._answer(worker, pictures[1], QUESTION)
        self.samples.add(name, "next_screen_n_encoded", result["n_encoded"])
        self.samples.add(name, "next_screen_n_changed", worker.run("differing", images=[str(p) for p in pictures]))
        self.samples.add(name, "next_screen_first_token_s", result["first_token_s"])
        worker.close()
        with Worker(case, worker.variant, store=stores / name) as fresh:
            result = self._answer(fresh, pictures[0], SECOND_QUESTION)
            first = result["first_token_at"] - fresh.started_at
            self.samples.add(name, "second_first_token_s", result["first_token_s"])
            self.samples.add(name, "second_cold_first_token_s", first)
            self.samples.add(name, "second_n_encoded", result["n_encoded"])
            self.samples.add(name, "second_n_cached", result["n_cached"])


def _copy_compiled(source: Path, target: Path) -> None:
    """Put the compiled graphs of one store into another that is empty otherwise."""
    graphs = Path(disk.VERSION) / "graphs"
    if (source / graphs).is_dir():
        shutil.copytree(source / graphs, target / graphs)
        target.chmod(0o700)


def make(case: Case, amount: Amount, image: Path | None) -> None:
    """Make checkpoint and inputs in a process of their own, so that this one stays small; raise Absent."""
    print(f"case {case.folder.relative_to(ROOT)}", flush=True)
    process = multiprocessing.get_context("spawn").Process(target=case.make, args=(amount.rounds, image))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise Absent(f"{case.folder.name}: could not be made, see above")


def choose(peers: str | None) -> list[Variant]:
    """Return the variants of the named peers (None: all); raise SystemExit for a name that is none."""
    names = PEERS if peers is None else tuple(peers.split(","))
    if unknown := [name for name in names if name not in PEERS]:
        raise SystemExit(f"unknown peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    return [variant for variant in VARIANTS if variant.peer in names]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("EDGEVL_SHARED") or ROOT.parent / "shared")
    parser.add_argument("--model", choices=MODELS, default="256m")
    parser.add_argument("--peers", help=f"comma-separated, of {', '.join(PEERS)}; default: all")
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--threads", type=positive, default=psutil.cpu_count(logical=False) or 1)
    add_option(parser)
    parser.add_argument("--quick", action="store_true", help="one round of 5 tiles, and no file in benchmarks/results")
    parser.add_argument("--prepare", action="store_true", help="make all files and check the weights; measure nothing")
    parser.add_argument("--shared", type=Path, default=shared, help="published configurations; default: EDGEVL_SHARED")
    parser.add_argument("--image", type=existing, help="a picture instead of the default one")
    parser.add_argument(
        "--check",
        action="store_true",
        help="end with 1 where an aim is missed, 2 where none is but some were not measured",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and report it."""
    settings = parse(arguments)
    is_trial = settings.quick or settings.model.startswith("tiny")
    if settings.quick:
        amount = Amount(rounds=1, n_tiles=2, n_tokens=8, contexts=CONTEXTS[:2])
    else:
        amount = Amount(rounds=settings.rounds, n_tiles=4, n_tokens=32, contexts=CONTEXTS, n_turns=3, turn_s=6.0)
    n_cores = use_cores(settings.threads)
    case = Case(settings.model, settings.shared.resolve(), settings.threads, grid=2 if settings.quick else 4)
    try:
        make(case, amount, settings.image)
    except Absent as error:
        print(f"skipped: {settings.model}: {error}")
        return 1
    comparison = Comparison(case, choose(settings.peers), amount)
    comparison.build()
    try:
        comparison.check()
    except WorkerFailed as error:
        print(error)
        return 1
    if settings.prepare:
        for name, found in comparison.checks.items():
            print(f"{name}: {found}")
        return 0
    with awake(settings.awake):
        comparison.rounds()
    document = report.document(comparison, n_cores, settings.awake)
    tables.show(document)
    folder = case.folder if is_trial else ROOT / "benchmarks" / "results"
    for path in report.write(document, folder):
        print(f"written: {path.relative_to(ROOT)}")
    code, said = report.verdict(document["must_hold"])
    print(said)
    return code if settings.check else 0


if __name__ == "__main__":
    sys.exit(main())
