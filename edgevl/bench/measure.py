"""Measure: every round asks every picture with every number of threads, so that a slow moment meets all alike.

A question is asked once as users ask it, for the seconds until its first token; each stage is then timed alone, because
in a question they overlap. Nothing of a picture is remembered: each has fresh pixels each time, and of what is stored
only compiled graphs stay, for a user waits for them once and not with every question. Memory and the cold start are
those of a new process that asks one question. On the way, the profile by which `--within` predicts first tokens is
measured at leisure and kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import edgevl
from edgevl import machine, placement, probe
from edgevl.bench.pictures import Subject, given, made
from edgevl.bench.result import CONTEXTS, Place, Result, Row, Size, context_key, pixels, threads_of
from edgevl.errors import BackendError
from edgevl.latency import kept
from edgevl.loaded import Loaded
from edgevl.model import manifest
from edgevl.pipeline import VLM
from edgevl.store.disk import OF_IMAGES, Disk
from edgevl.types import ImagePart, Message, TextPart

QUESTION = "what's here?"
DEFAULT_SIDES = (256, 512, 1024, 2048)
N_STEPS = 32
"""Tokens over which decoding is timed."""
PROFILE_S = 2.0
"""How long the profile for predictions is measured, once for each number of threads."""

_CHILD = """
import sys
from edgevl.cli import run
if code := run(sys.argv[1:]):
    sys.exit(code)
from edgevl.machine import peak_bytes
print(peak_bytes() or 0, file=sys.stderr)
"""

OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """What to measure: a model folder, a picture (None: one made here), sides in pixels, threads, rounds.

    `max_pixels` and `reduce` are for the picture, as `VLM.ask` takes them.
    """

    model: Path
    image: Path | None = None
    sides: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    rounds: int = 5
    cold: bool = False
    max_pixels: int | None = None
    reduce: bool = False


def measure(settings: Settings, on_step: OnStep | None = None) -> Result:
    """Measure everything; `on_step(done, total, what)` is called before each step and after the last.

    Without `sides`, a picture of the user's is asked at its own size and a made one at `DEFAULT_SIDES`; without
    `threads`, 1, 2, 4, ... up to the physical cores are tried. Raises what `edgevl.load` and `VLM.ask` raise, and
    BackendError if a new process fails.
    """
    threads = settings.threads or default_threads()
    with tempfile.TemporaryDirectory(prefix="edgevl-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        return _Measurement(settings, _subjects(settings, folder), threads, folder / "store", on_step).run()


def default_threads() -> tuple[int, ...]:
    """Return 1, 2, 4, ... up to the number of threads that a model is opened with by default, and that number."""
    most = machine.describe().n_threads
    return tuple(sorted({most, *(1 << power for power in range(most.bit_length()))}))


class _Measurement:
    """One run: the pictures, what has been found so far, and how far it is."""

    def __init__(
        self,
        settings: Settings,
        subjects: list[Subject],
        threads: tuple[int, ...],
        store: Path,
        on_step: OnStep | None,
    ) -> None:
        self._settings, self._subjects, self._threads, self._on_step = settings, subjects, threads, on_step
        self._store = store
        self._rng = np.random.default_rng()  # from the system: no two runs may share pixels
        self._found: dict[Place, list[dict[str, float]]] = {}
        self._counts: dict[Place, tuple[int, int]] = {}
        self._yardstick_s: list[float] = []
        self._manifest = manifest.read(settings.model)
        self._contexts = [n for n in CONTEXTS if n <= self._manifest.decoder.context_length]
        n_children = settings.rounds if settings.cold else 1
        n_each = 1 + settings.rounds + len(subjects) * (settings.rounds + n_children)
        self._n_steps = len(threads) * n_each
        self._n_done = 0

    def run(self) -> Result:
        for threads in self._threads:
            self._compile(threads)
        for round_ in range(self._settings.rounds):
            self._yardstick_s.append(yardstick())
            for threads in self._threads:
                self._warm(threads)
            if self._settings.cold or round_ == 0:
                for threads in self._threads:
                    self._cold(threads)
        self._step("")
        return self._result()

    def _compile(self, threads: int) -> None:
        """Have the store hold every graph as the questions need it: for tiles alone, and for so many side by side."""
        self._step(f"{threads_of(threads)}, compiling")
        with self._opened(threads) as vlm:
            model = vlm._open()
            n_tiles = {model.plan(subject.size, "auto").n_tiles for subject in self._subjects}
            for n in {1, model.encoder.n_at_once, *(min(n, model.encoder.n_at_once) for n in n_tiles)}:
                model.encoder.open(n)

    def _opened(self, threads: int) -> VLM:
        """Open the model anew, for which only graphs are stored."""
        vlm = edgevl.load(self._settings.model, threads=threads, store=self._store)
        probe.store_nothing(vlm._open())
        return vlm

    def _warm(self, threads: int) -> None:
        """Ask every picture once, with the model opened anew: only one is in memory at a time."""
        with self._opened(threads) as vlm:
            is_first = len(self._yardstick_s) == 1
            profile = probe.measure(vlm._open(), seconds=PROFILE_S if is_first else 0.0)  # warms up, too
            if is_first:
                kept.write(kept.key_of(self._manifest.content_id, device="auto", threads=threads), profile)
            self._step(f"{threads_of(threads)}, any picture")
            self._note(None, threads, self._of_model(vlm._open()))
            for subject in self._subjects:
                self._step(f"{pixels(subject.size)}, {threads_of(threads)}")
                self._note(subject.size, threads, self._ask(vlm, subject, threads))

    def _of_model(self, model: Loaded) -> dict[str, float]:
        """Return what does not depend on a picture: several tiles at once, and decoding with more and more held.

        The longest context is fed once and kept in a file, for it takes long and can be large.
        """
        values = {"encode_at_once_s": probe.encode_at_once(model, self._rng)}
        if self._contexts:
            path = self._store.with_name("held.npy")
            held = np.load(path, mmap_mode="r") if path.exists() else None
            seconds, fed = probe.decode_at(model, self._contexts, N_STEPS, held)
            if held is None:
                np.save(path, fed)
            values |= {context_key(n): 1 / step_s for n, step_s in seconds.items()}
        return values

    def _ask(self, vlm: VLM, subject: Subject, threads: int) -> dict[str, float]:
        """Return every stage's value of one question."""
        started = time.perf_counter()
        picture = subject.read()
        read_s = time.perf_counter() - started
        fresh = subject.fresh(picture, self._rng)
        answer = vlm.ask(fresh, QUESTION, max_tokens=1)
        model, plan = vlm._open(), vlm.plan(fresh)
        self._counts[subject.size, threads] = plan.n_tiles, answer.usage.prompt_tokens
        encode_s, features = probe.encode(model, self._rng)
        steps = model.steps([Message("user", (ImagePart(None), TextPart(QUESTION)))], [plan])
        decoder = probe.decode(model, steps, features, N_STEPS)
        return {
            "read_s": read_s,
            "tile_s": probe.cut(model, fresh, plan),
            "encode_s": encode_s,
            "prefill_tokens_per_s": answer.usage.prompt_tokens / decoder.prefill_s,
            "first_token_s": read_s + answer.timings.first_token_s,
            "decode_tokens_per_s": 1 / decoder.step_s,
        }

    def _cold(self, threads: int) -> None:
        for subject in self._subjects:
            self._step(f"{pixels(subject.size)}, {threads_of(threads)}, a new process")
            wall_s, peak_bytes = new_process(self._settings.model, subject, threads, self._store)
            values = {"cold_start_s": wall_s} if self._settings.cold else {}
            self._note(subject.size, threads, values | ({"peak_memory_bytes": float(peak_bytes)} if peak_bytes else {}))

    def _note(self, size: Size | None, threads: int, values: dict[str, float]) -> None:
        self._found.setdefault((size, threads), []).append(values)

    def _step(self, what: str) -> None:
        if self._on_step is not None:
            self._on_step(self._n_done, self._n_steps, what)
        self._n_done += 1

    def _result(self) -> Result:
        rows = [self._row(place, found) for place, found in self._found.items()]
        return Result(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=self._machine(),
            model=self._manifest.name,
            model_id=self._manifest.content_id,
            picture="made" if self._settings.image is None else _digest(self._settings.image),
            rounds=self._settings.rounds,
            yardstick_s=self._yardstick_s,
            rows=sorted(rows, key=lambda row: (row.threads, row.size or (0, 0))),
            n_context=self._manifest.decoder.context_length,
        )

    def _machine(self) -> machine.Machine:
        """Return what this machine is, with the versions of all that may have run a part of the model."""
        about = machine.describe()
        engines = placement.versions("vision", placement.decoder_part(self._manifest))
        return replace(about, versions={**about.versions, **engines})

    def _row(self, place: Place, found: list[dict[str, float]]) -> Row:
        keys = dict.fromkeys(key for values in found for key in values)
        values = {key: [value[key] for value in found if value.get(key, 0) > 0] for key in keys}  # NaN is not above 0
        n_tiles, n_tokens = self._counts.get(place, (0, 0))
        return Row(*place, n_tiles, n_tokens, {key: listed for key, listed in values.items() if listed})


def new_process(model: Path, subject: Subject, threads: int, store: Path) -> tuple[float, int]:
    """Ask for one token in a new process; return its seconds from start to end, and its peak memory in bytes or 0.

    Of what `store` holds, only compiled graphs are left before.
    """
    Disk(store).clear(OF_IMAGES)
    path = str(subject.path.absolute())  # one that begins with a dash is no option
    command = [sys.executable, "-P", "-c", _CHILD, "ask", path, QUESTION, "--json", "--max-tokens", "1"]
    command += ["--model", str(model), "--threads", str(threads), *subject.options]
    environment = {**os.environ, "EDGEVL_STORE_DIR": str(store)}
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False
    )
    wall_s = time.perf_counter() - started
    lines = done.stderr.strip().splitlines() or [""]
    if done.returncode != 0:
        said = next((line for line in lines if line.startswith("error: ")), lines[-1])
        raise BackendError(
            f"a new process that asks {subject.path.name} ended with {done.returncode} ({said}); try it alone"
        )
    json.loads(done.stdout)
    return wall_s, int(lines[-1])


def yardstick() -> float:
    """Return the seconds that a fixed computation takes: one core hashing 16 MB, as every version of edgevl does it."""
    data = bytes(1 << 24)
    started = time.perf_counter()
    hashlib.sha256(data).digest()
    return time.perf_counter() - started


def _subjects(settings: Settings, folder: Path) -> list[Subject]:
    if settings.image is not None:
        return given(settings.image, settings.sides, folder, settings.max_pixels, settings.reduce)
    return [made(side, folder) for side in settings.sides or DEFAULT_SIDES]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
