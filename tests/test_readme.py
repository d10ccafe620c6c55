"""What the README shows is what happens: its commands, its Python, its tables."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import pytest

from edgevl.engine.devices import DEVICES
from edgevl.model import hub, manifest
from tests import readme

TEXT = readme.README.read_text(encoding="utf-8")

needs_model = pytest.mark.skipif(
    not (hub.installed_folder() / hub.BUNDLED / manifest.FILE_NAME).is_file(),
    reason="the bundled model is not here; models/edgevl-tiny/recipe makes it",
)


@pytest.fixture
def workplace() -> Iterator[None]:
    with readme.workplace():
        yield


@needs_model
@pytest.mark.parametrize("item", readme.shown(TEXT), ids=lambda item: item.command)
def test_commands_print_what_is_shown(workplace: None, item: readme.Shown) -> None:
    assert item.output != ""
    assert readme.run_command(item.command) == item.output


@needs_model
@pytest.mark.parametrize("block", readme.blocks(TEXT, "pycon"))
def test_python_prints_what_is_shown(workplace: None, block: str) -> None:
    assert readme.run_python(block) == block


def test_tables_are_what_the_data_say() -> None:
    assert readme.with_tables(TEXT) == TEXT


def test_the_accuracy_table_names_what_no_answer_beats() -> None:
    row = {"n": 500, "accuracy": 0.5, "fp32": 0.5, "baseline": 0.3, "interval": [0.4, 0.6]}
    chance = {**row, "interval": [0.29, 0.6]}
    rows = {"hand_signs": row, "chart_trend": chance, "plain": row, "chat": {**row, "drop": {}}}
    assert readme._accuracy(rows).splitlines()[2:] == [
        "| hand signs | 500 | 50.0% | 50.0% | 30.0% |",
        "",
        "No better than one constant answer: chart trend.",
    ]


def test_the_table_of_devices_says_what_was_tested() -> None:
    rows = readme.devices().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| `{name}`" for name in DEVICES]
    for row, device in zip(rows, DEVICES.values(), strict=True):
        assert row.endswith("| tested |" if device.is_tested else "| built, untested |")


def test_the_two_commands() -> None:
    first, second = readme.commands(TEXT)
    assert first.endswith('.venv/bin/pip install . && .venv/bin/edgevl ask models/samples/shapes.png "what\'s here?"')
    assert second.endswith(".venv/bin/pip install -e '.[dev]' && .venv/bin/pytest")


@needs_model
def test_the_first_commands_answer_is_shown() -> None:
    assert readme.answer(TEXT) != ""


def test_every_path_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:edgevl|export|models|tests|benchmarks)/[\w./-]*)`", TEXT))
    assert named
    assert [path for path in sorted(named) if not (readme.ROOT / path).exists()] == []


SMALL = """
```console
$ edgevl --version
old
$ edgevl models --help
```

```pycon
>>> 1 + 1
3
>>> for i in range(2):
...     print(i)
```
<!-- generated: families -->
old
<!-- end -->
"""


class TestReader:
    def test_commands_and_outputs(self) -> None:
        assert readme.shown("```console\n$ a b\nc\n\nd\n$ e\n```\n") == [
            readme.Shown("a b", "c\n\nd"),
            readme.Shown("e", ""),
        ]

    def test_answer_is_the_output_of_the_first_command(self) -> None:
        text = (
            "python3 -m venv .venv && .venv/bin/edgevl ask a.png b\npython3 -m venv .venv && .venv/bin/pytest\n"
            "```console\n$ edgevl ask a.png b\ntwo\nlines\n```\n"
        )
        assert readme.answer(text) == "two\nlines"

    def test_only_edgevl_is_run(self) -> None:
        with pytest.raises(ValueError, match="only edgevl can be shown"):
            readme.run_command("rm -r x")

    def test_a_command_that_fails_is_an_error(self) -> None:
        with pytest.raises(RuntimeError, match="edgevl nothing ended with 2"):
            readme.run_command("edgevl nothing")

    def test_outputs_are_filled_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(readme, "workplace", contextlib.nullcontext)
        monkeypatch.setattr(readme, "TABLES", {"families": lambda: "new\n"})
        text = readme.filled(SMALL)
        assert "$ edgevl --version\nedgevl, version 0.1.0\n$ edgevl models --help\nUsage: edgevl models" in text
        assert ">>> 1 + 1\n2\n>>> for i in range(2):\n...     print(i)\n0\n1\n```" in text
        assert "<!-- generated: families -->\nnew\n<!-- end -->" in text
        assert readme.filled(text) == text
