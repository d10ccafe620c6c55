"""Time `edgevl ask` as a user meets it: a fresh process each time, from the command to the last word.

    python benchmarks/cold.py [--rounds 9] [--model NAME] [--check]

With the Python of an environment that the README's first command made, and psutil: what else is installed costs time.

Each round runs the question once and, as a yardstick of the machine, a Python that only imports numpy and
onnxruntime. Nothing is remembered of the picture: of the store, only graphs as they were optimized here are left
between rounds. Files are in the page cache after the first round, which is not counted. Wall time is the process's
whole life; memory is the highest resident size of it and its children. The limit of seconds is for a machine with
nothing else to do: where the yardstick says that it is busy, what is over the limit is not judged, and `--check` ends
with 2. Results go to benchmarks/results/<machine>-<commit>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from edgevl.machine import version
from edgevl.store.disk import OF_IMAGES, Disk

ROOT = Path(__file__).parents[1]
MAX_WALL_S = 0.7
"""Seconds that a question takes at most, in the median."""
QUIET_BASELINE_S = 0.25
"""Seconds that the yardstick takes at most, in the median, on a machine that the limit is for and that is idle."""
MAX_RSS_BYTES = 300_000_000
QUESTION = "what's here?"
LOOK_S, CHILDREN_EVERY = 0.005, 10
BASELINE = (sys.executable, "-c", "import numpy, onnxruntime")


@dataclass(frozen=True)
class Run:
    """One process: seconds from start to end, and the highest resident bytes of it and its children."""

    wall_s: float
    rss_bytes: int


def measure(command: Sequence[str]) -> Run:
    """Run a command to its end; raise RuntimeError with its words if it fails."""
    with tempfile.TemporaryFile() as words:
        started = time.perf_counter()
        process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT)
        code, peak = _ended(process)
        wall_s = time.perf_counter() - started
        if code != 0:
            words.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {code}: {words.read().decode(errors='replace')}")
    return Run(wall_s, peak)


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait for a process; return its exit code, and the highest resident bytes of it and its children.

    Its children are looked for seldom, which takes long, so that it has its cores to itself. What the system notes for
    an ended process will not do: that holds the memory of the one which started it.
    """
    peaks, done = [0], threading.Event()

    def look() -> None:
        looked_at = psutil.Process(process.pid)
        for n in count():
            if done.wait(LOOK_S):
                break
            peaks.append(_resident_bytes(looked_at, with_children=n % CHILDREN_EVERY == 0))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        code = process.wait()
        done.set()
        with contextlib.suppress(psutil.Error):  # it ended between two looks
            looking.result()
    return code, max(peaks)


def _resident_bytes(process: psutil.Process, *, with_children: bool) -> int:
    """Return the highest resident size so far of a process, and its children's size now; 0 once it has ended."""
    try:
        children = process.children() if with_children else []
        return int(_high_water(process) + sum(child.memory_info().rss for child in children))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def _high_water(process: psutil.Process) -> int:
    """Return the peak that the system has noted, so that none between two looks is missed; else the size now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        info = process.memory_info()
        return int(getattr(info, "peak_wset", info.rss))
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else 0


def ask(image: Path, *options: str) -> list[str]:
    """Return the command that asks about `image`."""
    script = Path(sys.executable).with_name("edgevl.exe" if os.name == "nt" else "edgevl")
    return [str(script), "ask", str(image), QUESTION, *options]


def forget_pictures(store: Path) -> None:
    """Leave nothing in a store but optimized graphs."""
    Disk(store).clear(OF_IMAGES)


def make_image(path: Path) -> Path:
    """Draw four shapes on 512x512 pixels into a PNG file, in a process of its own."""
    code = (
        "import sys; from PIL import Image, ImageDraw; i = Image.new('RGB', (512, 512), 'white'); "
        "d = ImageDraw.Draw(i); d.ellipse((40, 40, 210, 210), 'red'); d.rectangle((300, 60, 470, 230), 'blue'); "
        "d.polygon([(120, 290), (220, 470), (30, 470)], 'green'); d.ellipse((310, 310, 460, 460), 'orange'); "
        "i.save(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return path


def use_cores(n_cores: int) -> int:
    """Keep this process and its children on `n_cores` cores where the system allows it; return how many they have."""
    process = psutil.Process()
    if hasattr(process, "cpu_affinity"):
        process.cpu_affinity(process.cpu_affinity()[:n_cores])
        return len(process.cpu_affinity())
    return os.cpu_count() or 1


def machine(n_cores: int) -> dict[str, Any]:
    """Describe the machine, without its name."""
    return {
        "cpu": _cpu(),
        "cores": n_cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("edgevl", "numpy", "onnxruntime", "pillow", "tokenizers")},
    }


def _cpu() -> str:
    if sys.platform == "darwin":
        return subprocess.check_output(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        try:
            return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except OSError:  # it is not installed
            return ""

    commit = git("rev-parse", "--short=10", "HEAD") or "unknown"
    code = (".", ":!benchmarks/results")  # what an earlier benchmark wrote changes nothing of this one
    return f"{commit}-changed" if git("status", "--porcelain", "--untracked-files=no", "--", *code) else commit


def slug(text: str) -> str:
    """Return `text` as a part of a file name: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return median and spread of wall seconds and the peak of memory, and the runs themselves."""
    walls = sorted(run.wall_s for run in runs)
    return {
        "n": len(runs),
        "wall_s": {"median": statistics.median(walls), "lowest": walls[0], "highest": walls[-1]},
        "rss_bytes": {
            "median": statistics.median(r.rss_bytes for r in runs),
            "highest": max(r.rss_bytes for r in runs),
        },
        "runs": [asdict(run) for run in runs],
    }


def stages(image: Path, options: Sequence[str], store: Path, rounds: int = 5) -> dict[str, float]:
    """Return the median seconds of each stage, as `edgevl ask --json` tells them."""
    documents = []
    for _ in range(rounds):
        forget_pictures(store)
        documents.append(json.loads(subprocess.check_output(ask(image, *options, "--json"))))
    names = documents[0]["timings"]
    return {name: statistics.median(document["timings"][name] for document in documents) for name in names}


def compare(image: Path, options: Sequence[str], store: Path, rounds: int) -> dict[str, list[Run]]:
    """Run question and baseline in turn, `rounds` times after one that is not counted."""
    commands = {"ask": ask(image, *options), "baseline": list(BASELINE)}
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            forget_pictures(store)
            runs[name].append(measure(command))
    return {name: counted[1:] for name, counted in runs.items()}


def verdict(asked: dict[str, Any], baseline: dict[str, Any]) -> tuple[int, str]:
    """Return whether the limits are kept, as an exit code (0: yes, 1: no, 2: cannot be told) and in words."""
    wall_s, rss_bytes, quiet_s = asked["wall_s"]["median"], asked["rss_bytes"]["highest"], baseline["wall_s"]["median"]
    if rss_bytes >= MAX_RSS_BYTES:
        return 1, f"not kept: {rss_bytes / 1e6:.0f} MB, the limit is {MAX_RSS_BYTES / 1e6:.0f} MB"
    if wall_s < MAX_WALL_S:
        return 0, f"kept: {wall_s:.2f} s in the median, the limit is {MAX_WALL_S} s"
    if quiet_s <= QUIET_BASELINE_S:
        return 1, f"not kept: {wall_s:.2f} s in the median, the limit is {MAX_WALL_S} s"
    return 2, (
        f"not judged: {wall_s:.2f} s in the median, over the limit of {MAX_WALL_S} s, but this machine is too busy or "
        f"too slow for it: importing numpy and onnxruntime took {quiet_s:.2f} s instead of at most {QUIET_BASELINE_S} s"
    )


def positive(text: str) -> int:
    """Read a number of rounds, threads or cores; raise ArgumentTypeError for what is none."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def existing(text: str) -> Path:
    """Read the path of a picture; raise ArgumentTypeError where there is no such file."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text}: no such file; check the path")
    return Path(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--cores", type=positive, default=2)
    parser.add_argument("--model", help="a model's name or folder; default: the bundled one")
    parser.add_argument("--image", type=existing, help="default: four shapes on 512x512 pixels")
    parser.add_argument(
        "--check", action="store_true", help="end with 1 where the limits are not kept, 2 if that cannot be told"
    )
    settings = parser.parse_args()
    n_cores = use_cores(settings.cores)
    options = ["--model", settings.model] if settings.model else []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        os.environ["EDGEVL_STORE_DIR"] = str(store)
        image = settings.image or make_image(Path(folder) / "shapes.png")
        runs = compare(image, options, store, max(settings.rounds, 7))
        timings = stages(image, options, store)
    results = {name: summary(counted) for name, counted in runs.items()}
    code, said = verdict(results["ask"], results["baseline"])
    document = {
        "what": "edgevl ask, fresh process, 512x512 image" if settings.image is None else "edgevl ask, fresh process",
        "model": settings.model or "bundled",
        "question": QUESTION,
        "commit": _commit(),
        "machine": machine(n_cores),
        "limits": {"wall_s": MAX_WALL_S, "rss_bytes": MAX_RSS_BYTES, "baseline_s": QUIET_BASELINE_S},
        "verdict": said,
        **results,
        "stages_s": timings,
    }
    _print(document)
    if settings.check:
        return code
    write(document)
    return 0


def _print(document: dict[str, Any]) -> None:
    about = document["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; commit {document['commit']}\n")
    print("| process | wall, median (lowest to highest) | memory, highest |\n|---|---|---|")
    for name, title in (("ask", document["what"]), ("baseline", "import numpy, onnxruntime")):
        wall, rss = document[name]["wall_s"], document[name]["rss_bytes"]
        print(
            f"| {title} | {wall['median']:.2f} s ({wall['lowest']:.2f} to {wall['highest']:.2f}) "
            f"| {rss['highest'] / 1e6:.0f} MB |"
        )
    print(f"\nlimits: {document['verdict']}")
    print("\nstages: " + ", ".join(f"{name[:-2]} {value:.3f} s" for name, value in document["stages_s"].items()))


def write(document: dict[str, Any], kind: str = "") -> None:
    """Write a benchmark's results to benchmarks/results, named after its `kind`, the machine and the commit."""
    about = document["machine"]
    name = slug(f"{kind} {about['cpu']} {about['cores']} cores")
    path = ROOT / "benchmarks" / "results" / f"{name}-{document['commit']}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
