"""The compiled library in a process: threads, forks, other instructions, and where there is none."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine.native import decoder, library
from edgevl.engine.native.library import Caches, Weights
from edgevl.engine.native.plan import data_path, read_plan
from edgevl.errors import GraphError
from tests.engine.native.plans import FLIPPED, Made, Shape, difference, instruction_sets, needs_library, shapes, write
from tests.waiting import wait_until

pytestmark = needs_library
ROOT = Path(__file__).parents[3]
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted, and forks made, on Linux")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return write(tmp_path, Shape(has_biases=True))


def run(script: str, *arguments: str, **environment: str) -> str:
    """Run a script in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


COMPUTING = """
import sys
from pathlib import Path
import numpy as np
from tests.engine.native.plans import shapes, write
from edgevl.engine.native.library import instructions

found = {}
for number, shape in enumerate(shapes()[::2]):
    folder = Path(sys.argv[1]) / str(number)
    folder.mkdir()
    made = write(folder, shape)
    for n in (1, 2, 3, 4, 21):
        decoder = made.opened(1)
        decoder.extend(made.ids(n, number))
        found[f"{number}.{n}"] = decoder.logits()
np.savez(Path(sys.argv[1]) / "found.npz", **found)
print(instructions())
"""


def test_narrower_instructions_compute_the_same(tmp_path: Path) -> None:
    """All but the order of sums."""
    found = []
    for chosen in ("", *instruction_sets()):
        folder = tmp_path / (chosen or "widest")
        folder.mkdir()
        said = run(COMPUTING, str(folder), EDGEVL_NATIVE=chosen).strip()
        assert said == (chosen or library.instructions())
        with np.load(folder / "found.npz") as file:
            found.append(dict(file))
    widest, *others = found
    assert len(widest) == 5 * len(shapes()[::2])
    for other in others:
        differences = [difference(other[name], widest[name]) for name in widest]
        assert max(differences) < FLIPPED
        assert np.median(differences) < 2e-5


FORKING = """
import gc, os, sys, time, warnings
from pathlib import Path
import numpy as np
from tests.engine.native.plans import Shape, write

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads: it is what is tried
made = write(Path(sys.argv[1]), Shape())
decoder = made.opened(3)
decoder.extend(made.ids(9))
before = decoder.save()
wanted = [decoder.extend_each([5]), decoder.extend_each([6, 7, 8]), decoder.extend(made.ids(30)) and decoder.logits()]
decoder.truncate(9)
time.sleep(float(sys.argv[2]))  # until its threads sleep, or not
child = os.fork()
found = [decoder.extend_each([5]), decoder.extend_each([6, 7, 8]), decoder.extend(made.ids(30)) and decoder.logits()]
is_equal = all(np.array_equal(one, other) for one, other in zip(found, wanted))
del decoder
gc.collect()
if child == 0:
    other = made.opened(2)  # one of its own
    other.extend(made.ids(9))
    is_equal = is_equal and np.array_equal(other.save(), before)
    del other
    os._exit(0 if is_equal else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), is_equal)
"""


@only_linux
@pytest.mark.parametrize("seconds", [0, 0.3])
def test_a_forked_process_computes_the_same_and_ends(tmp_path: Path, seconds: float) -> None:
    assert run(FORKING, str(tmp_path), str(seconds)) == "0 True\n"


ON_ONE_CORE = """
import os, sys, time
from pathlib import Path
from tests.engine.native.plans import Shape, write

os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
made = write(Path(sys.argv[1]), Shape(hidden=128, intermediate=256, n_layers=6))
decoders = [made.opened(n) for n in (1, 4)]
ids, best = made.ids(300), [9.0, 9.0]
for turn in range(5):
    for number, decoder in enumerate(decoders):
        decoder.truncate(0)
        started = time.perf_counter()
        for at in range(300):
            decoder.extend(ids[at : at + 1])
        best[number] = min(best[number], time.perf_counter() - started)
print(best[1] / best[0])
"""


@only_linux
def test_threads_that_are_not_running_hold_up_nobody(tmp_path: Path) -> None:
    """Four of them on one core take about as long as one: two hundred times as long if each waited for all others."""
    assert float(run(ON_ONE_CORE, str(tmp_path))) < 6


MANY_RUNS = """
import os, sys, warnings
from pathlib import Path
import numpy as np
from edgevl.engine.native.library import Caches, Weights
from edgevl.engine.native.plan import data_path, read_plan
from tests.engine.native.plans import Shape, write

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads: it is what is tried
made = write(Path(sys.argv[1]), Shape(n_layers=3, n_positions=300, has_biases=True, head_bits=8))
plan, rng, runs, n_past = read_plan(made.path), np.random.default_rng(int(sys.argv[2])), [], 0
embeds = rng.normal(0, 1, (400, 64)).astype(np.float32)
for _ in range(3000):
    n = int(rng.choice([1, 1, 1, 1, 2, 3, 4, 7, 20]))
    if n_past + n > 300 or rng.random() < 0.03:
        n_past = int(rng.integers(0, min(n_past, 280) + 1))
    runs.append((embeds[n_past:][:n], n_past, int(rng.integers(0, min(n, 4) + 1))))
    n_past += n

def opened(n_threads):
    weights = Weights(data_path(made.path), plan, n_threads=n_threads, max_tokens=20)
    arrays = {f"{i}.{kind}": np.zeros((1, 2, 300, 16), np.float16) for i in range(3) for kind in ("key", "value")}
    return weights, Caches(arrays), [np.zeros((n_scored, 61), np.float32) for _, _, n_scored in runs], arrays

child, is_equal = None, True
for n_threads in (7, 6, 3):
    both = opened(1), opened(n_threads)
    for number, (given, before, _) in enumerate(runs):
        for weights, caches, scores, _ in both:  # while one computes, the other's threads fall asleep, or nearly
            weights.run(given, before, caches, scores[number])
        if number == 2500 and n_threads == 3:
            child = os.fork()
    found, wanted = ([*scores, *arrays.values()] for _, _, scores, arrays in both)
    is_equal = is_equal and all(map(np.array_equal, found, wanted))
if child == 0:
    os._exit(0 if is_equal else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), is_equal)
"""


@only_linux
@pytest.mark.parametrize("seed", range(3))
def test_many_short_runs_on_a_busy_machine_are_all_equal(tmp_path: Path, seed: int) -> None:
    """With more threads than cores, and other programs beside them, threads come late to runs, or to the next one."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(seed)]
    try:
        assert run(MANY_RUNS, str(tmp_path), str(seed)) == "0 True\n"
    finally:
        for other in others:
            other.kill()
            other.wait()


def n_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@only_linux
def test_threads_and_memory_go_with_a_decoder(tmp_path: Path) -> None:
    made = write(tmp_path, Shape(hidden=256, intermediate=512, n_positions=4096))
    ids, before = made.ids(300), n_threads()

    def open_and_close(number: int) -> None:
        opened = made.opened(n_threads=4)
        assert n_threads() == before + 3
        if number % 2:
            opened.extend(ids)

    for number in range(10):
        open_and_close(number)
    held = resident_bytes()
    for number in range(40):
        open_and_close(number)
    assert n_threads() == before
    assert resident_bytes() - held < 8 << 20  # one takes 5 MB and more


def test_one_that_was_never_used_is_closed(made: Made) -> None:
    started = time.perf_counter()
    for n in (1, 2, 3):
        del_me = made.opened(n)
        time.sleep(0.02 * n)  # its threads sleep, or wait actively
        del del_me
    assert time.perf_counter() - started < 5


def test_a_process_ends_with_decoders_open(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.engine.native.plans import Shape, write\n"
        "made = write(Path(sys.argv[1]), Shape()); kept = [made.opened(3) for _ in range(3)]\n"
        "kept[0].extend(made.ids(5)); print('done')"
    )
    assert run(script, str(tmp_path)) == "done\n"


def test_two_decoders_compute_side_by_side(made: Made) -> None:
    ids = made.ids(60)

    def answered(n_threads: int) -> list[NDArray[Any]]:
        opened, found = made.opened(n_threads), []
        for _ in range(5):
            opened.truncate(0)
            opened.extend(ids[:40])
            found += [opened.extend_each(ids[at : at + 4].tolist()) for at in range(40, 60, 4)]
            found.append(opened.save())
        return [one for one in found if one is not None]

    wanted = answered(1)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(answered, (1, 2, 2)):
            assert len(found) == len(wanted) == 30
            assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_other_threads_of_python_go_on_while_it_computes(tmp_path: Path) -> None:
    made = write(tmp_path, Shape(hidden=1024, intermediate=2048, n_layers=4))
    opened, counted, is_done = made.opened(1), [0], threading.Event()

    def count() -> None:
        while not is_done.wait(0.001):
            counted[0] += 1

    counting = threading.Thread(target=count)
    counting.start()
    try:
        begun = counted[0]
        opened.extend(made.ids(300))
        assert counted[0] > begun
    finally:
        is_done.set()
        counting.join()


def test_threads_that_are_left_to_others_change_no_bits(made: Made) -> None:
    """Whether they are left before a run or while it goes on; and they take part again."""
    alone, decoder = made.opened(n_threads=1), made.opened(n_threads=4)
    is_done = threading.Event()

    def change() -> None:
        for n in itertools.cycle((0, 1, 3, 2, 9)):
            decoder.leave(n)
            if is_done.is_set():
                return

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for n in [1, 40, 3, 1, 90, 1] * 20:
            ids = made.ids(n)
            for one in (alone, decoder):
                one.truncate(0)
                one.extend(ids)
            assert np.array_equal(decoder.logits(), alone.logits())
            assert np.array_equal(decoder.save(), alone.save())
    finally:
        is_done.set()
        changing.join()
    decoder.leave(0)
    decoder.extend(made.ids(5))
    alone.extend(made.ids(5))
    assert np.array_equal(decoder.logits(), alone.logits())


def seen(task: Path) -> tuple[str, int]:
    """A thread's state (proc(5): "S" is asleep), and the nanoseconds that it has computed."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0], int((task / "schedstat").read_text().split()[0])


@only_linux
def test_a_thread_that_is_left_to_others_does_nothing(made: Made) -> None:
    """Not for a nanosecond; and takes part again when it is not left any more."""
    before = set(Path("/proc/self/task").iterdir())
    decoder, ids = made.opened(n_threads=2), made.ids(90)
    (worker,) = set(Path("/proc/self/task").iterdir()) - before

    def leave(n: int) -> int:
        decoder.leave(n)
        wait_until(lambda: seen(worker)[0] == "S", seconds=60)
        return seen(worker)[1]

    def extend() -> None:
        decoder.truncate(0)
        decoder.extend(ids)

    def has_computed_since(begun: int) -> bool:
        return seen(worker)[1] > begun

    for _ in range(5):
        begun = leave(1)
        for _ in range(20):
            extend()
        assert seen(worker) == ("S", begun)
        begun = leave(0)
        extend()
        wait_until(partial(has_computed_since, begun), seconds=60)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 20])
def test_what_is_scored_changes_neither_scores_nor_cache(made: Made, n: int) -> None:
    """Nor do tokens without scores, of which the last layer computes only keys and values."""
    plan = read_plan(made.path)
    assert plan is not None
    weights = Weights(data_path(made.path), plan, n_threads=2, max_tokens=20)
    embeds = np.random.default_rng(0).normal(0, 1, (n, 64)).astype(np.float32)
    found = []
    for n_scored in range(n + 1):
        cache = {f"{i}.{kind}": np.zeros((1, 2, 20, 16), np.float16) for i in range(2) for kind in ("key", "value")}
        scores = np.zeros((n_scored, 61), np.float32)
        weights.run(embeds, 0, Caches(cache), scores)
        found.append((scores, *cache.values()))
    few, (every, *held) = found[min(n, 4)][0], found[-1]
    for scores, *arrays in found:
        assert all(map(np.array_equal, arrays, held))
        if len(scores) <= 4:
            assert np.array_equal(scores, few[len(few) - len(scores) :])
        else:
            assert np.array_equal(scores, every[n - len(scores) :])
            assert difference(scores[-4:], few) < FLIPPED


def test_tokens_without_room_are_an_error(made: Made) -> None:
    plan = read_plan(made.path)
    assert plan is not None
    weights = Weights(data_path(made.path), plan, n_threads=1, max_tokens=4)
    cache = {f"{i}.{kind}": np.zeros((1, 2, 8, 16), np.float16) for i in range(2) for kind in ("key", "value")}
    caches, logits = Caches(cache), np.zeros((1, 61), np.float32)
    weights.run(np.zeros((4, 64), np.float32), 4, caches, logits)
    for n, n_past in ((1, 8), (4, 5), (5, 0), (0, 0), (1, -1)):
        with pytest.raises(GraphError) as caught:
            weights.run(np.zeros((n, 64), np.float32), n_past, caches, logits)
        assert str(caught.value) == f"{data_path(made.path)}: takes 8 tokens, 4 at once, not {n} behind {n_past}"


def test_weights_that_cannot_be_mapped_are_an_error(made: Made) -> None:
    plan = read_plan(made.path)
    assert plan is not None
    path = data_path(made.path)
    path.write_bytes(b"")
    with pytest.raises(GraphError) as caught:
        Weights(path, plan, n_threads=1, max_tokens=4)
    assert str(caught.value) == (
        f"{path}: cannot be read (cannot mmap an empty file); export or download the model again"
    )
    path.write_bytes(bytes(1000))  # it was longer when the plan was read
    with pytest.raises(GraphError) as caught:
        Weights(path, plan, n_threads=1, max_tokens=4)
    assert str(caught.value) == f"{path}: is cut off; export or download the model again"


def test_a_decoder_that_cannot_be_opened_is_an_error(made: Made) -> None:
    plan = read_plan(made.path)
    assert plan is not None
    for n_threads, max_tokens in ((0, 4), (1, 0), (1, 1 << 30)):
        with pytest.raises(GraphError) as caught:
            Weights(data_path(made.path), plan, n_threads=n_threads, max_tokens=max_tokens)
        assert str(caught.value) == f"{data_path(made.path)}: there is no memory to run it; close other programs"


class TestWithoutIt:
    @pytest.fixture(autouse=True)
    def forgotten(self) -> Any:
        library._library.cache_clear()
        yield
        library._library.cache_clear()

    def test_decoders_run_as_graphs_where_none_was_built(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        assert decoder.can_run(made.path)
        library._library.cache_clear()
        monkeypatch.setattr(library, "EXTENSION_SUFFIXES", [".none"])
        assert (library.instructions(), decoder.backend(), decoder.can_run(made.path)) == ("", None, False)

    @pytest.mark.parametrize("content", [b"", b"no library"])
    def test_nor_where_it_does_not_load(
        self, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
    ) -> None:
        (tmp_path / "_decoder.so").write_bytes(content)
        monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
        monkeypatch.setattr(library, "EXTENSION_SUFFIXES", [".so"])
        assert (library.instructions(), decoder.backend(), decoder.can_run(made.path)) == ("", None, False)

    def test_nor_where_it_is_another(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file of that name without its functions."""
        import _ctypes

        monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
        (tmp_path / "_decoder.so").symlink_to(_ctypes.__file__)
        monkeypatch.setattr(library, "EXTENSION_SUFFIXES", [".so"])
        assert library.instructions() == ""

    def test_nor_where_it_is_switched_off(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGEVL_NATIVE", "off")
        assert (library.instructions(), decoder.backend(), decoder.can_run(made.path)) == ("", None, False)
