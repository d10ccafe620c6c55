"""A plan comes with a downloaded model: whatever it says, nothing outside of the weights is read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevl.engine.native.plan import LARGEST, ModelPlan, data_path, plan_path, problems, read_plan
from edgevl.errors import ManifestError
from tests.engine.native.plans import Made, Shape, changed, places, set_to, write

TELLS = "; export or download the model again"
PRODUCT = ["bias", "bits", "block", "k", "n", "scales", "weights"]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return write(tmp_path, Shape(has_biases=True, n_layers=1))


def said(made: Made) -> str:
    """Return why a plan is refused, without where it is and what to do."""
    with pytest.raises(ManifestError) as caught:
        read_plan(made.path)
    message = str(caught.value)
    begin = f"{plan_path(made.path)}: "
    assert message.startswith(begin)
    assert message.endswith(TELLS)
    assert "\n" not in message
    return message[len(begin) : -len(TELLS)]


def test_what_was_written_is_read(made: Made) -> None:
    plan = read_plan(made.path)
    assert plan is not None
    assert (plan.n_heads, plan.n_kv_heads, plan.head_dim, plan.n_positions) == (4, 2, 16, 512)
    assert (plan.hidden, plan.intermediate, plan.head.n, len(plan.layers)) == (64, 96, 61, 1)
    assert list(problems(plan, data_path(made.path).stat().st_size)) == []


def test_none_and_one_of_another_form_are_not_used(made: Made) -> None:
    assert read_plan(made.path.with_name("other.onnx")) is None
    for form in (2, 0, "1", None, 1.5):
        assert read_plan(changed(made, lambda document, form=form: document.update(form=form)).path) is None
    for content in ("[]", "3", "null", '{"layers": []}'):
        plan_path(made.path).write_text(content, "utf-8")
        assert read_plan(made.path) is None


def test_one_that_is_no_text_or_no_json(made: Made) -> None:
    plan_path(made.path).write_text("{", "utf-8")
    assert said(made).startswith("is damaged (Expecting property name")
    plan_path(made.path).write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match=r"cannot be read \('utf-8' codec .*\); export the model again"):
        read_plan(made.path)
    plan_path(made.path).unlink()
    plan_path(made.path).mkdir()
    with pytest.raises(ManifestError, match=r"cannot be read \(.*\); export the model again"):
        read_plan(made.path)


@pytest.mark.parametrize("opened", ["[", '{"layers":[', '{"head":', '{"form":1,"layers":['])
def test_one_of_great_depth(made: Made, opened: str) -> None:
    closed = {"[": "]", "{": "}"}
    text = opened * 100_000 + "".join(closed[one] for one in reversed(opened * 100_000) if one in closed)
    plan_path(made.path).write_text(text, "utf-8")
    assert said(made).startswith("is damaged (")


def test_one_without_its_weights(made: Made) -> None:
    data_path(made.path).unlink()
    assert said(made).startswith(f"is without its weights ([{'WinError' if os.name == 'nt' else 'Errno'} 2]")


def test_weights_that_end_early(made: Made) -> None:
    whole = data_path(made.path).read_bytes()
    plan = read_plan(made.path)
    assert plan is not None
    data_path(made.path).write_bytes(whole[:-1])
    assert plan.head.bias is not None
    assert said(made) == f"points to 244 bytes at {plan.head.bias}, of {len(whole) - 1}"
    data_path(made.path).write_bytes(b"")
    assert said(made).startswith("points to ")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("n_heads",), 0, "has sizes below 1"),
        (("n_heads",), -4, "has sizes below 1"),
        (("half_rotary",), 0, "has sizes below 1"),
        (("layers",), [], "has sizes below 1"),
        (("head", "n"), 0, "has sizes below 1"),
        (("layers", 0, "down", "k"), -64, "has sizes below 1"),
        (("n_positions",), LARGEST + 1, f"has sizes above {LARGEST}"),
        (("head", "n"), 2**32 + 61, f"has sizes above {LARGEST}"),
        (("layers", 0, "qkv", "k"), 2**40, f"has sizes above {LARGEST}"),
        (("n_kv_heads",), 3, "has 4 heads for 3 of keys"),
        (("n_heads",), 34, "has 34 heads for 2 of keys"),
        (("half_rotary",), 9, "turns 18 of 16 values"),
        (("head_dim",), 24, "has widths that are no multiples of 16"),
        (("epsilon",), 0, "has an epsilon or scale that is none"),
        (("epsilon",), float("nan"), "has an epsilon or scale that is none"),
        (("scale",), float("inf"), "has an epsilon or scale that is none"),
        (("scale",), -0.25, "has an epsilon or scale that is none"),
        (("head", "bits"), 2, "has blocks of 16 weights of 2 bits"),
        (("head", "block"), 256, "has blocks of 256 weights of 4 bits"),
        (("layers", 0, "out", "block"), 48, "has blocks of 48 weights of 4 bits"),
        (("layers", 0, "out", "block"), 128, "has rows of 64 weights in blocks of 128"),
        (("layers", 0, "norm"), -4, "points to 256 bytes at -4, of "),
        (("layers", 0, "norm"), 2, "points to 256 bytes at 2, of "),
        (("final_norm",), 2**62, f"points to 256 bytes at {2**62}, of "),
        (("cos",), 10**9, f"points to 16384 bytes at {10**9}, of "),
        (("scale",), 10**400, "is damaged (int too large to convert to float)"),
        (("n_heads",), True, "is damaged (expected int, got 'True')"),
        (("n_heads",), 4.0, "is damaged (expected int, got '4.0')"),
        (("scale",), "a\nb", r"is damaged (expected float, got 'a\nb')"),
        (("head",), None, "is damaged (expected ProductPlan, got 'None')"),
        (("head", "bias"), [], "is damaged (expected int, got '[]')"),
        (("layers",), {}, "is damaged (expected tuple, got '{}')"),
        (("layers",), [[]], "is damaged (expected LayerPlan, got '[]')"),
        (("head", "zero"), 1, f"is damaged (expected the keys {PRODUCT}, got {[*PRODUCT, 'zero']})"),
    ],
)
def test_what_is_wrong_is_said(made: Made, place: tuple[Any, ...], value: Any, message: str) -> None:
    changed(made, lambda document: set_to(document, place, value))
    found = said(made)
    assert found.startswith(message) if message.endswith(", of ") else found == message


def test_layers_of_other_sizes(made: Made) -> None:
    changed(made, lambda document: document["layers"][0]["gate_up"].update(n=191))
    assert said(made) == "has layers of other sizes ([(128, 64), (64, 64), (191, 64), (64, 96)])"


def test_keys_that_are_long_or_many_are_not_said_at_length(made: Made) -> None:
    for keys in ({"a" * 10**6: 1}, {f"key {number}": 1 for number in range(10**4)}):
        changed(made, lambda document, keys=keys: document["head"].update(keys))
        assert len(said(made)) < 400


def test_weights_of_terabytes_that_are_not_there(made: Made) -> None:
    """A sparse file gives room for any size: what C counts in 32 bits must fit."""
    with data_path(made.path).open("r+b") as file:
        file.truncate(2**43)
    for place in (("head", "n"), ("n_positions",)):
        changed(made, lambda document, place=place: set_to(document, place, 2**33 + 61))
        assert said(made) == f"has sizes above {LARGEST}"
        changed(made, lambda document, place=place: set_to(document, place, 61))


@pytest.fixture(scope="module")
def read_once(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write(tmp_path_factory.mktemp("plan"), Shape(has_biases=True, n_layers=1))


whatever = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@given(data=st.data(), value=whatever)
def test_whatever_stands_anywhere_is_a_plan_or_an_error(read_once: Made, data: st.DataObject, value: Any) -> None:
    document = json.loads(plan_path(read_once.path).read_text("utf-8"))
    place = data.draw(st.sampled_from(list(places(document))))
    set_to(document, place, value)
    path = read_once.path.with_name("changed.onnx")
    plan_path(path).write_text(json.dumps(document), "utf-8")
    if not data_path(path).exists():
        shutil.copyfile(data_path(read_once.path), data_path(path))
    try:
        found: ModelPlan | str | None = read_plan(path)
    except ManifestError as error:
        found = str(error)
    if isinstance(found, str):
        assert found.endswith(TELLS)
        assert "\n" not in found
    elif found is not None:
        assert list(problems(found, data_path(path).stat().st_size)) == []
