"""Results become JSON and come back; what is not a result is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgevl.bench.result import CONTEXTS, FORMER, STAGES, load, spread, title
from edgevl.errors import InputError
from tests.bench.results import MACHINE, result, row, row_of_any


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    made = result([row_of_any(1), row((256, 256), 1), row((512, 640), 2)], n_context=2048)
    path.write_text(made.to_json(), encoding="utf-8")
    assert load(path) == made
    told = result(machine=replace(MACHINE, n_usable_cores=2))
    path.write_text(told.to_json(), encoding="utf-8")
    assert load(path) == told


def test_a_result_of_format_1_is_read(tmp_path: Path) -> None:
    raw = json.loads(result().to_json())
    raw["edgevl_bench"] = 1
    del raw["n_context"]
    del raw["machine"]["n_usable_cores"]  # nor in the first results of format 2
    for line in raw["rows"]:
        line["values"] = {"read_s": [0.004], "cold_s": [0.7], "peak_bytes": [1.2e8], "unheard_of": [1.0]}
    (tmp_path / "old.json").write_text(json.dumps(raw), encoding="utf-8")
    old = load(tmp_path / "old.json")
    assert old.rows[0].values == {"read_s": [0.004], "cold_s": [0.7], "peak_bytes": [1.2e8]}
    assert (old.n_context, old.left_out) == (None, [])


def test_contexts_that_are_longer_than_the_model_s_are_left_out() -> None:
    assert result(n_context=2048).left_out == [4096]
    assert result(n_context=4096).left_out == []
    assert result(n_context=64).left_out == list(CONTEXTS)


def test_stages_have_their_own_keys() -> None:
    assert len({stage.key for stage in STAGES} | FORMER.keys()) == len(STAGES) + len(FORMER)
    assert [title(key) for key in ("read_s", "cold_s")] == ["read", "cold start, graphs compiled anew"]


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
        (lambda text: change(text, lambda raw: raw.update(edgevl_bench=3)), "is of format 3, this edgevl reads 2"),
        (lambda text: change(text, lambda raw: raw.pop("machine")), "lacks 'machine'"),
        (lambda text: change(text, lambda raw: raw["rows"][0].pop("threads")), "lacks 'threads'"),
        (lambda text: change(text, lambda raw: raw["rows"][0].update(size=[1])), "not enough values"),
        (lambda text: change(text, lambda raw: raw["rows"][0].pop("size")), "lacks 'size'"),
        (lambda text: change(text, lambda raw: raw.update(n_context="1k")), "a whole number is expected"),
        (lambda text: change(text, lambda raw: raw.update(rows=3)), "not iterable"),
        (lambda text: change(text, lambda raw: raw.update(model=None)), "'None' stands where text is expected"),
        (lambda text: change(text, lambda raw: raw["machine"].update(n_usable=True)), "a whole number is expected"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[])), "a list of numbers"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[-1])), "a number above 0"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[float("nan")])), "above 0"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=["1"])), "a number above 0"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[10**400])), "above 0"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[1e308])), "above 0"),
        (lambda text: change(text, lambda raw: raw["rows"][0]["values"].update(read_s=[5e-324])), "above 0"),
        (lambda text: change(text, lambda raw: raw["machine"].update(memory_bytes=10**400)), "a whole number"),
        (lambda text: change(text, lambda raw: raw["machine"].update(cpu="\ud800")), "can't encode"),
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
