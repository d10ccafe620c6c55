"""Results become JSON and come back; what is not a result is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgevl.bench.result import STAGES, load, spread
from edgevl.errors import InputError
from tests.bench.results import result, row


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    made = result([row((256, 256), 1), row((512, 640), 2)])
    path.write_text(made.to_json(), encoding="utf-8")
    assert load(path) == made


def test_stages_have_their_own_keys() -> None:
    assert len({stage.key for stage in STAGES}) == len(STAGES)


def test_spread_of_one_value_and_of_several() -> None:
    assert spread([3.0]).median == spread([3.0]).low == 3.0
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)


def change(text: str, edit: Callable[[Any], object]) -> str:
    raw = json.loads(text)
    edit(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:100], "is not JSON"),
        (lambda text: "", "is not JSON"),
        (lambda text: "[" * 100_000, "is not JSON"),
        (lambda text: "[1, 2]", "is not a result of edgevl bench"),
        (lambda text: '{"ask": 1}', "is not a result of edgevl bench"),
        (lambda text: change(text, lambda raw: raw.update(edgevl_bench=2)), "is of format 2, this edgevl reads 1"),
        (lambda text: change(text, lambda raw: raw.pop("machine")), "lacks 'machine'"),
        (lambda text: change(text, lambda raw: raw["rows"][0].pop("threads")), "lacks 'threads'"),
        (lambda text: change(text, lambda raw: raw["rows"][0].update(size=[1])), "not enough values"),
        (lambda text: change(text, lambda raw: raw.update(rows=3)), "not iterable"),
        (lambda text: change(text, lambda raw: raw.update(model=None)), "'None' stands where text is expected"),
        (lambda text: change(text, lambda raw: raw["machine"].update(n_usable=True)), "a whole number is expected"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[])), "a list of numbers"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[-1])), "a number above 0"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[float("nan")])), "above 0"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=["1"])), "a number above 0"),
        (lambda text: change(text, lambda raw: raw["machine"].update(versions=[1])), "no attribute"),
    ],
)  # fmt: skip
def test_what_is_no_result_is_refused_in_one_line(damage: Callable[[str], str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(damage(result().to_json()), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json: cannot be read .*check the path"):
        load(tmp_path / "nowhere.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\0")
    with pytest.raises(InputError, match="is not JSON"):
        load(tmp_path / "bytes")
