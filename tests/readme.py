"""Read README.md, run what it shows, and fill in what scripts can tell.

    python tests/readme.py --write                  run the examples and write their output and the tables
    python3 tests/readme.py first|second|answer     its two commands, and the answer that the first one gives

The second form needs the standard library alone, so that `.ci/run` can use it before anything is installed.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


@dataclass(frozen=True)
class Shown:
    """A command as the README shows it, without its prompt, and the output under it."""

    command: str
    output: str


def commands(text: str) -> tuple[str, str]:
    """Return the two commands with which a fresh machine begins: one that asks, one that tests."""
    first, second = (line for line in text.splitlines() if line.startswith("python3 -m venv .venv && "))
    return first, second


def answer(text: str) -> str:
    """Return the answer that the README shows for its first command."""
    question = commands(text)[0].split(".venv/bin/")[-1]
    [output] = {item.output for item in shown(text) if item.command == question}
    return output


def shown(text: str) -> list[Shown]:
    """Return each `$ command` of the console blocks with its output."""
    found = []
    for block in blocks(text, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Shown(command, output.rstrip("\n")))
    return found


def blocks(text: str, language: str) -> list[str]:
    """Return the content of every fenced block of `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run_command(command: str) -> str:
    """Run an `edgevl` command in this process, in the working directory; return what it writes to stdout."""
    from edgevl.cli import run

    program, *arguments = shlex.split(command)
    if program != "edgevl":
        raise ValueError(f"only edgevl can be shown in the README, not {command!r}")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run(arguments)
    if code:
        raise RuntimeError(f"{command} ended with {code}")
    return out.getvalue().rstrip("\n")


def run_python(block: str) -> str:
    """Run a block of `>>>` lines; return it with the output that they give."""
    names: dict[str, Any] = {}
    lines: list[str] = []
    for example in doctest.DocTestParser().get_examples(block):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(example.source, "README.md", "single"), names)
        first, *more = example.source.splitlines()
        lines += [f">>> {first}", *(f"... {line}" for line in more), *out.getvalue().splitlines()]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def workplace() -> Iterator[None]:
    """Work in an empty folder that has the sample pictures where the README expects them."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "models" / "samples", Path(folder) / "models" / "samples")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def filled(text: str) -> str:
    """Return the README with every output as it is now, and every table of which there are data."""
    with workplace():
        text = _replace(r"^```console\n(.*?)^```$", text, _console)
        text = _replace(r"^```pycon\n(.*?)^```$", text, run_python)
    return with_tables(text)


def with_tables(text: str) -> str:
    """Return the README with its generated tables as they are now; a table without data stays empty."""
    for name, table in TABLES.items():
        text = _replace(rf"^<!-- generated: {name} -->\n(.*?)^<!-- end -->$", text, _constant(table()))
    return text


def _replace(pattern: str, text: str, make: Callable[[str], str]) -> str:
    def made(match: re.Match[str]) -> str:
        start, end = (part - match.start() for part in match.span(1))
        return match.group()[:start] + make(match.group(1)) + match.group()[end:]

    return re.sub(pattern, made, text, flags=re.DOTALL | re.MULTILINE)


def _constant(value: str) -> Callable[[str], str]:
    return lambda _: value


def _console(block: str) -> str:
    lines = [line for line in block.splitlines() if line.startswith("$ ")]
    return "".join(f"{line}\n{run_command(line[2:])}\n" for line in lines)


def families() -> str:
    """Return the table of the registry's models."""
    rows = json.loads((ROOT / "models" / "registry.json").read_text(encoding="utf-8"))
    forms = {"onnx": "graphs that run as they are", "gguf": "a pair of GGUF files", "checkpoint": "export it"}
    return _table(
        ("`edgevl pull`", "repository", "what is there", "parameters", "on disk", "memory", "licence"),
        [
            (
                row["name"],
                f"[{row['repo']}](https://huggingface.co/{row['repo']})",
                forms[row["form"]],
                f"{row['n_parameters'] / 1e6:,.0f} M",
                *(f"{row[key] / 1e9:.1f} GB" for key in ("disk_bytes", "memory_bytes")),
                row["licence"],
            )
            for row in rows
        ],
    )


def devices() -> str:
    """Return the table of devices: what runs on each, and whether it was tested on real hardware."""
    from edgevl.engine.devices import COMMANDS, CPU_PROVIDER, DEVICES, LLAMA, PARTS

    def cell(need: str | None) -> str:
        if need is None:
            return "on the CPU"
        provider = need.removesuffix("ExecutionProvider")
        return "onnxruntime" if provider == "CPU" else need if provider == need else f"onnxruntime with {provider}"

    rows = [
        (
            f"`{name}`",
            row.hardware,
            *(cell(row.needs.get(part)) for part in PARTS),
            "<br>".join(
                f"`{COMMANDS[n]}`" for n in dict.fromkeys(row.needs.values()) if n not in (CPU_PROVIDER, LLAMA)
            ),
            "tested" if row.is_tested else "built, untested",
        )
        for name, row in DEVICES.items()
    ]
    titles = ("`--device`", "hardware", *(f"{what}s" for what in PARTS.values()), "to add it", "on real hardware")
    return _table(titles, rows)


def cold() -> str:
    """Return the table of cold starts, one row a measured machine."""
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "ask" not in found:
            continue  # of another benchmark
        wall, rss, about = found["ask"]["wall_s"], found["ask"]["rss_bytes"], found["machine"]
        rows.append(
            (
                f"{about['cpu']}, {about['cores']} cores",
                f"{wall['median']:.2f} s ({wall['lowest']:.2f} to {wall['highest']:.2f})",
                f"{rss['highest'] / 1e6:.0f} MB",
                f"{found['baseline']['wall_s']['median']:.2f} s",
                f"`{found['commit']}`",
            )
        )
    titles = (
        "machine",
        "wall, median (lowest to highest)",
        "peak memory",
        "of it importing numpy, onnxruntime",
        "commit",
    )
    return _table(titles, rows) if rows else ""


def comparison() -> str:
    """Return what each comparison with other runtimes found."""
    from benchmarks import tables

    return "\n".join(
        tables.section(json.loads(path.read_text(encoding="utf-8")), f"benchmarks/results/{path.stem}.png")
        for path in _results("compare")
    )


def profile() -> str:
    """Return what each profile found to bound the comparison's figures."""
    from benchmarks.bounds import document

    return "\n".join(document.section(json.loads(path.read_text(encoding="utf-8"))) for path in _results("profile"))


def _results(kind: str) -> list[Path]:
    """Return the results of a benchmark whose names end in its `kind` and the shapes, by these."""
    paths = (ROOT / "benchmarks" / "results").glob(f"*-{kind}-*.json")
    return sorted(paths, key=lambda path: (path.stem.rpartition(f"-{kind}-")[2], path.name))


FORMS = ("plain", "paraphrased", "chat")
"""Not tasks: the same questions in other forms, whose table is in the card. The recipe's `FORMS`, which need torch."""


def accuracy() -> str:
    """Return the table of the bundled model's accuracy per task, or nothing before it has been measured."""
    path = ROOT / "models" / "edgevl-tiny" / "accuracy.json"
    return _accuracy(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ""


def _accuracy(found: dict[str, Any]) -> str:
    """Return a row for each task that the model does better than one answer to all, and the names of the others."""
    tasks = {task: row for task, row in found.items() if task not in FORMS}
    can = {task for task, row in tasks.items() if row["interval"][0] > row["baseline"]}
    rows = [
        (_words(task), str(row["n"]), *(f"{row[key]:.1%}" for key in ("accuracy", "fp32", "baseline")))
        for task, row in tasks.items()
        if task in can
    ]
    titles = ("task", "held-out examples", "right", "right in fp32", "best constant answer")
    others = ", ".join(_words(task) for task in tasks if task not in can)
    return _table(titles, rows) + (f"\nNo better than one constant answer: {others}.\n" if others else "")


def _words(task: str) -> str:
    return task.replace("_", " ")


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "families": families,
    "devices": devices,
    "cold": cold,
    "comparison": comparison,
    "profile": profile,
}


def main(what: str) -> None:
    """Print a part of the README, or write all of it anew."""
    text = README.read_text(encoding="utf-8")
    if what == "--write":
        sys.path.insert(0, str(ROOT))  # where benchmarks is; a script sees its own folder alone
        README.write_text(filled(text), encoding="utf-8")
    else:
        print(
            {"first": lambda: commands(text)[0], "second": lambda: commands(text)[1], "answer": lambda: answer(text)}[
                what
            ]()
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
