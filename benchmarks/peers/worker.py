"""A peer in a process of its own, driven line by line: a JSON command in, a JSON result out.

What libraries print goes to stderr, so that stdout carries results alone. While it is not its turn, a worker is
stopped, where the system can: threads that spin would slow the others down.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Variant, by_name
from benchmarks.peers.case import ROOT, Case, cosine


class WorkerFailed(Exception):
    """A worker ended or raised; the message holds its last words."""


class Worker:
    """The parent's end of one worker."""

    def __init__(self, case: Case, variant: Variant, *, build: bool = False, store: Path | None = None) -> None:
        """Start it; it loads its model, or with `build` makes the model's files and ends.

        `store` is where edgevl keeps what it remembers; by default in the case's folder.
        """
        self.variant = variant
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self.started_at = time.time()
        settings = {
            "variant": variant.name,
            "build": build,
            "case": [case.model, str(case.shared), case.n_threads, case.grid],
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(settings)],
            cwd=ROOT,
            env=_environment(case.n_threads, store or case.path("store")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
        )
        self.loaded: dict[str, Any] = self._result("load")
        self._signal("SIGSTOP")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def run(self, stage: str, **arguments: Any) -> Any:
        """Run one stage while this worker is awake; raise WorkerFailed with its last words if it cannot."""
        assert self._process.stdin is not None
        with self.awake():
            with contextlib.suppress(OSError):  # one that has ended: its last words are read below
                self._process.stdin.write(json.dumps({"stage": stage, "arguments": arguments}).encode() + b"\n")
                self._process.stdin.flush()
            return self._result(stage)

    @contextlib.contextmanager
    def awake(self) -> Any:
        """Let it run inside the block only."""
        self._signal("SIGCONT")
        try:
            yield
        finally:
            self._signal("SIGSTOP")

    def close(self) -> None:
        """End it."""
        self._signal("SIGCONT")
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

    def _result(self, stage: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with {self._process.wait()}"}
        if "error" in answer:
            self._words.seek(0)
            said = self._words.read().decode(errors="replace").strip()[-2000:]
            self.close()
            raise WorkerFailed(f"{self.variant.name}: {stage}: {answer['error']}\n{said}".rstrip())
        return answer["result"]


def _environment(n_threads: int, store: Path) -> dict[str, str]:
    """Return the environment of every worker: the same threads, no network, and a store that is not the user's."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(n_threads))
    return {**os.environ, **threads, "EDGEVL_STORE_DIR": str(store), "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Load a variant, then run the stages that stdin names until it is closed."""
    _end_with_parent()
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        results.write(json.dumps(answer) + "\n")
        results.flush()

    settings = json.loads(sys.argv[1])
    model, shared, n_threads, grid = settings["case"]
    case = Case(model, Path(shared), n_threads, grid)
    variant = by_name(settings["variant"])
    try:
        module = import_module(variant.module)
        if settings["build"]:
            module.build(case, variant)
            say(result={})
            return
        peer = module.Peer(case, variant)
        say(result={"about": getattr(peer, "about", {}), "loaded_at": time.time()})
        for line in sys.stdin:
            command = json.loads(line)
            result = getattr(peer, command["stage"])(**command["arguments"])
            say(result=_REDUCED.get(command["stage"], _same)(case, result))
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        raise


def _end_with_parent() -> None:
    """On Linux, be killed when the parent ends: a stopped process would stay for ever."""
    if sys.platform == "linux":
        set_signal_at_parents_end = 1
        ctypes.CDLL(None).prctl(set_signal_at_parents_end, signal.SIGKILL)


def _same(case: Case, result: Any) -> Any:
    """Hand a result on as it is."""
    return result


def _feature_cosines(case: Case, features: NDArray[np.float32]) -> dict[str, float]:
    """Return the mean and the lowest cosine between features and the float32 model's, over all features."""
    cosines = cosine(features, case.load("features")[: len(features)])
    return {"mean": float(cosines.mean()), "lowest": float(cosines.min())}


def _greedy(case: Case, result: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens, and the cosine between the first one's logits and the float32 model's."""
    return {
        "token_ids": result["token_ids"],
        "logits_cosine": float(cosine(result["logits"], case.load("text_logits"))),
    }


_REDUCED: dict[str, Callable[[Case, Any], Any]] = {"features": _feature_cosines, "greedy": _greedy}
"""Results too long for a line, and what is made of them."""


if __name__ == "__main__":
    main()
