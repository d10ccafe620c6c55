"""Read README.md: its two commands, its console blocks and its Python blocks. Standard library only, so that
`.ci/run` can use it before anything is installed: `python3 tests/readme.py first|second|answer`."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


@dataclass(frozen=True)
class Shown:
    """A command as the README shows it, without its prompt, and the output under it; the line is the command's."""

    command: str
    output: str
    line: int


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """Return (line of the first content line, content) of every fenced block of `language`."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in pattern.finditer(text)]


def shown(text: str) -> list[Shown]:
    """Return each `$ command` of the console blocks with its output, which ends at the next command or the block."""
    found = []
    for first, block in blocks(text, "console"):
        lines = block.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            output = "\n".join(lines[start + 1 : end]).strip("\n")
            found.append(Shown(lines[start][2:], output, first + start))
    return found


def commands(text: str) -> tuple[str, str]:
    """Return the two commands with which a fresh machine begins: one that asks, one that tests."""
    lines = [
        line for _, block in blocks(text, "sh") for line in block.splitlines() if line.startswith("python3 -m venv")
    ]
    first, second = lines
    return first, second


def answer(text: str) -> str:
    """Return the answer that the README shows for its first command."""
    question = commands(text)[0].split(".venv/bin/")[-1]
    [output] = {item.output for item in shown(text) if item.command == question}
    return output


if __name__ == "__main__":
    readme = README.read_text(encoding="utf-8")
    print({"first": commands(readme)[0], "second": commands(readme)[1], "answer": answer(readme)}[sys.argv[1]])
