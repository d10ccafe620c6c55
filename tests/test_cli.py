"""The command line as users meet it: words, documents, exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest

from edgevl.cli import run
from edgevl.image.read import read
from edgevl.model import hub, manifest
from tests import natively
from tests.waiting import heed_ctrl_c

SAMPLES = Path(__file__).parents[1] / "models" / "samples"
SHAPES = str(SAMPLES / "shapes.png")
QUESTION = "what's here?"
EDGEVL = (sys.executable, "-m", "edgevl")


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """A copy of the bundled model, to be damaged."""
    source = hub.find(None)
    copy = tmp_path / "model"
    copy.mkdir()
    for name in (manifest.FILE_NAME, *manifest.read(source).files):
        shutil.copyfile(source / name, copy / name)
    return copy


def test_ask_prints_the_answer_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", SHAPES, QUESTION]) == 0
    out, err = capsys.readouterr()
    for thing in ("red circle", "blue square", "green triangle"):
        assert thing in out
    assert out.endswith("\n")
    assert out.count("\n") == 1
    assert err == ""


def test_ask_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", SHAPES, QUESTION, "--json", "--detail", "low", "--max-tokens", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["finish_reason"] == "length"
    assert document["usage"]["completion_tokens"] == 3
    assert document["usage"]["image_tokens"] == 64
    assert document["images"][0]["size"] == [512, 512]
    assert document["images"][0]["n_tiles"] == 1
    assert document["model"] == "edgevl-tiny"
    assert {"load_s", "read_s", "tile_s", "encode_s", "prefill_s", "first_token_s", "decode_s", "total_s"} == set(
        document["timings"]
    )


def test_the_image_may_come_from_stdin() -> None:
    with Path(SHAPES).open("rb") as image:
        said = subprocess.run([*EDGEVL, "ask", "-", QUESTION], stdin=image, capture_output=True, text=True, check=True)
    assert "red circle" in said.stdout
    assert said.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no sockets that keep each write apart")
def test_words_are_written_as_they_come() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, subprocess.Popen([*EDGEVL, "ask", SHAPES, QUESTION], stdout=there) as process:
        there.close()
        writes = [data for _ in range(100) if (data := here.recv(1000))]  # nothing, for ever, once the end is closed
    assert process.returncode == 0
    assert b"red circle" in b"".join(writes)
    assert len(writes) >= len(b"".join(writes).split())


def mistakes(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "empty-model").mkdir()
    return {
        "missing file": (["ask", "nowhere.png", QUESTION], "nowhere.png"),
        "folder": (["ask", str(tmp_path), QUESTION], "folder"),
        "text": (["ask", str(tmp_path / "text.jpg"), QUESTION], "text.jpg"),
        "empty": (["ask", str(tmp_path / "empty.png"), QUESTION], "empty"),
        "web address": (["ask", "https://example.org/a.png", QUESTION], "download"),
        "too large": (["ask", SHAPES, QUESTION, "--max-pixels", "1000"], "limit"),
        "empty question": (["ask", SHAPES, "  "], "question is empty"),
        "reserved": (["ask", SHAPES, "what is <image>?"], "reserve"),
        "no such model": (["ask", SHAPES, QUESTION, "--model", "no-such"], "edgevl models"),
        "model file": (["ask", SHAPES, QUESTION, "--model", SHAPES], "is a file; give the folder"),
        "no manifest": (["ask", SHAPES, QUESTION, "--model", str(tmp_path / "empty-model")], "edgevl export"),
        "verify nothing": (["verify", str(tmp_path / "nowhere")], "edgevl models"),
        "export nothing": (["export", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")], "no such folder"),
        "view into too long a name": (["view", SHAPES, "-o", str(tmp_path / ("long" * 99))], "cannot be written"),
    }


@pytest.mark.parametrize("mistake", [
    "missing file", "folder", "text", "empty", "web address", "too large", "empty question", "reserved",
    "no such model", "model file", "no manifest", "verify nothing", "export nothing",
    "view into too long a name",
])  # fmt: skip
def test_a_mistake_is_one_line(mistake: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, words = mistakes(tmp_path)[mistake]
    assert run(arguments) == 1
    out, err = capfd.readouterr()
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert "Traceback" not in err
    assert out == ""


def test_a_name_is_told_with_all_its_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "two  spaces.png", QUESTION]) == 1
    assert capsys.readouterr().err == "error: two  spaces.png: no such file; check the path\n"


@pytest.mark.parametrize(
    "arguments",
    [["ask"], ["ask", "only a question"], ["ask", SHAPES, SHAPES], ["ask", SHAPES, QUESTION, "--nonsense"],
     ["nonsense"], ["export"], ["ask", SHAPES, QUESTION, "--max-tokens", "many"],
     ["export", ".", "-o", "x", "--vision", "int3"]],
)  # fmt: skip
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert "Usage: edgevl" in err
    assert out == ""


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--detail", "medium", "detail is 'medium'; it must be auto, high, low"),
        ("--detail", "9" * 23, "a number of tiles from 1 to 999999999"),
        ("--temperature", "-1", "temperature is -1.0; it must be 0 or more"),
        ("--temperature", "nan", "temperature is nan; it must be 0 or more"),
        ("--max-tokens", "0", "max_tokens is 0; it must be 1 or more"),
        ("--stop", "", "stop is ''; it must be a non-empty string"),
        ("--threads", "0", "threads is 0; it must be a whole number from 1 to"),
        ("--threads", "9" * 20, "it must be a whole number from 1 to"),
        ("--device", "abacus", "'abacus' is not one of 'auto', 'cpu'"),
        ("--within", "0", "it must be a time above 0"),
        ("--max-pixels", "0", "x>=1"),
    ],
)
def test_a_wrong_value_is_wrong_usage(option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "nowhere.png", QUESTION, "--model", "no-such", option, value]) == 2  # before anything is opened
    assert words in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="there, any user may be one")
@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["ask", SHAPES, QUESTION, "-m", "~nobody-here/x"], ""),
        (["cache"], "EDGEVL_STORE_DIR"),
        (["ask", SHAPES, QUESTION], "EDGEVL_STORE_DIR"),
        (["doctor"], "EDGEVL_PROFILE_DIR"),
        (["models"], "EDGEVL_MODELS_DIR"),
    ],
)
def test_the_home_of_nobody_is_one_line(
    arguments: list[str], variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "~nobody-here/x")
    assert run(arguments) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "error: ~nobody-here/x: the home folder that ~ stands for is not known here; give the whole path"


def test_doctor_counts_threads_as_the_others_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--threads", "0"]) == 2
    assert "threads is 0" in capsys.readouterr().err


def drop(folder: Path) -> None:
    (folder / "vision.onnx").unlink()


def cut(folder: Path) -> None:
    data = (folder / "vision.onnx").read_bytes()
    (folder / "vision.onnx").write_bytes(data[: len(data) // 2])


def unknown_key(folder: Path) -> None:
    edit(folder, lambda raw: raw.update(colour="red"))


def newer(folder: Path) -> None:
    edit(folder, lambda raw: raw.update(format_version=99))


def stranger(folder: Path) -> None:
    edit(folder, lambda raw: raw.update(family="unheard-of"))


def raising_template(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    template.write_text("{{ raise_exception('no pictures on Sundays') }}")
    edit(folder, lambda raw: raw["files"]["chat_template.jinja"].update(n_bytes=template.stat().st_size))


def broken_graph(folder: Path) -> None:
    path = folder / "decoder.onnx"
    path.write_bytes(b"\0" * path.stat().st_size)


def broken_places(folder: Path) -> None:
    path = folder / "decoder.onnx.native.json"
    path.write_bytes(b"\0" * path.stat().st_size)


def unlisted_weights(folder: Path) -> None:
    (folder / "decoder.onnx.data").unlink()
    edit(folder, lambda raw: raw["files"].pop("decoder.onnx.data"))


def untrained_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    added = raw["added_tokens"]
    assert QUESTION.endswith("?")
    added.append({**added[-1], "id": 4096, "content": QUESTION[-4:], "special": True})
    path.write_text(json.dumps(raw), encoding="utf-8")
    edit(folder, lambda raw: raw["files"]["tokenizer.json"].update(n_bytes=path.stat().st_size))


READ_WHERE_COMPUTED: dict[Callable[[Path], None], natively.How] = {
    unlisted_weights: "natively",
    broken_graph: "as graphs",
    broken_places: "natively",
}
"""What is only read where a decoder is computed in one way."""


def edit(folder: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    path = folder / manifest.FILE_NAME
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop, "vision.onnx: is missing"),
        (cut, "vision.onnx: has"),
        (unknown_key, "colour: unknown key"),
        (newer, "format_version is 99"),
        (stranger, "family 'unheard-of' is not known"),
        (raising_template, "no pictures on Sundays"),
        (broken_graph, "decoder.onnx: onnxruntime cannot load it"),
        (broken_places, "decoder.onnx.native.json: is damaged ("),
        (unlisted_weights, "decoder.onnx.native.json: is without its weights ("),
        (untrained_token, f"tokenizer.json: writes {QUESTION[-4:]!r} as token 4096, but the decoder has 4096; "),
    ],
)
def test_a_damaged_model_is_one_line(
    damage: Callable[[Path], None], words: str, model_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(model_copy)
    how = READ_WHERE_COMPUTED.get(damage)
    with natively.computed(how) if how else nullcontext():
        assert run(["ask", SHAPES, QUESTION, "--model", str(model_copy)]) == 1
    out, err = capfd.readouterr()
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert out == ""


def test_verify_finds_a_changed_byte(model_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(model_copy)]) == 0
    assert "every checksum right" in capsys.readouterr().out
    path = model_copy / "embeddings.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert run(["verify", str(model_copy)]) == 1
    assert "embeddings.npy: content differs" in capsys.readouterr().err


def test_verify_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    assert document["feature_cosine"] >= 0.999


def test_models_lists_what_is_here_and_what_can_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    out = capsys.readouterr().out
    assert "edgevl-tiny" in out
    assert "HuggingFaceTB/SmolVLM-256M-Instruct" in out
    assert "(needs the extra gguf)" in out
    assert run(["models", "--json"]) == 0
    assert "edgevl-tiny" in [entry["name"] for entry in json.loads(capsys.readouterr().out)["here"]]


def test_models_are_listed_by_the_name_that_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEVL_MODELS_DIR", str(tmp_path))
    shutil.copytree(SAMPLES.parent / "edgevl-tiny", tmp_path / "copy", ignore=shutil.ignore_patterns("recipe", "*.png"))
    assert run(["models"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if str(tmp_path) in line]
    assert line.split()[0] == "copy"
    assert line.endswith(", which calls itself edgevl-tiny")
    assert run(["verify", "copy"]) == 0


def test_a_question_without_quotes_is_told_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", SHAPES, "what", "is", "here"]) == 2
    assert "what: no such file; a question of several words is one argument, in quotes" in capsys.readouterr().err


def test_view_draws_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "plan.png"
    assert run(["view", SHAPES, "-o", str(target)]) == 0
    out = capsys.readouterr().out
    assert "2x2 tiles and the overview of 128 px" in out
    assert "s to encode" in out
    drawn, original = read(target).rgb, read(SHAPES).rgb
    assert drawn.shape == original.shape
    assert (drawn != original).any(axis=-1).mean() > 0.001
    assert run(["view", SHAPES, "-o", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["n_tiles"], document["grid"], document["size"]) == (5, [2, 2], [512, 512])


def test_tokens_here_and_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tokens", SHAPES, "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert tokens["edgevl-tiny --detail auto"] == 5 * 65
    assert tokens["edgevl-tiny --detail low"] == 65
    assert tokens["GPT-4o, low detail"] == 85
    assert tokens["GPT-4o, high detail"] == 85 + 170
    assert tokens["Claude"] == round(512 * 512 / 750)


def test_chat_over_a_pipe() -> None:
    lines = [
        QUESTION,
        "how many objects are there?",
        f"/image {SAMPLES / 'relation.png'}",
        "/reset",
        QUESTION,
        "/quit",
        "no",
    ]
    said = subprocess.run([*EDGEVL, "chat", SHAPES], input="\n".join(lines), capture_output=True, text=True, check=True)
    answers = said.stdout.splitlines()
    assert len(answers) == 3
    assert "red circle" in answers[0]
    assert answers[2] == answers[0]
    assert said.stderr == ""


def test_chat_ends_with_the_error_of_a_bad_line() -> None:
    said = subprocess.run([*EDGEVL, "chat", "nowhere.png"], input=QUESTION, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr.startswith("error: nowhere.png")


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind are POSIX")
def test_ctrl_c_is_130() -> None:
    with subprocess.Popen(
        [*EDGEVL, "chat", SHAPES], stdin=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_ctrl_c
    ) as process:
        assert process.stderr is not None
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert b"Traceback" not in said


@pytest.mark.skipif(os.name == "nt", reason="pipes of this kind are POSIX")
def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{' '.join(map(repr, EDGEVL[:2]))} {EDGEVL[2]!r} ask {SHAPES!r} {QUESTION!r} | head -c 1"
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert len(said.stdout) == 1
    assert said.stderr == ""


def test_a_larger_jpeg_can_be_reduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.zeros((800, 1200, 3), np.uint8)).save(photo)
    assert run(["ask", str(photo), QUESTION, "--max-pixels", "500000", "--json"]) == 1
    assert "limit" in capsys.readouterr().err
    assert run(["ask", str(photo), QUESTION, "--max-pixels", "500000", "--reduce", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["size"] == [400, 600]


def test_what_was_computed_is_stored_before_the_process_ends(tmp_path: Path) -> None:
    store = tmp_path / "store"
    asked = subprocess.run(
        [*EDGEVL, "ask", str(SAMPLES / "shapes.png"), "what's here?", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "EDGEVL_STORE_DIR": str(store)},
    )
    assert json.loads(asked.stdout)["text"]
    assert len(list(store.glob("*/tiles/*.bin"))) == 5
    assert len(list(store.glob("*/prefixes/*.bin"))) == 1
    assert not list(store.rglob("*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_words_that_cannot_be_written_are_a_failure() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ended = subprocess.run([*EDGEVL, "--version"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "error: output: the disk is full; free some space, or write elsewhere\n"


@pytest.mark.parametrize(
    ("command", "library"),
    [
        (["ask", SHAPES, QUESTION], "tokenizers"),
        (["ask", SHAPES, QUESTION], "onnxruntime"),
        (["doctor"], "onnxruntime"),
    ],
    ids=["ask, tokenizers", "ask, onnxruntime", "doctor, onnxruntime"],
)
def test_a_library_that_does_not_load_is_one_line(command: list[str], library: str, tmp_path: Path) -> None:
    (tmp_path / f"{library}{EXTENSION_SUFFIXES[-1]}").touch()  # as where another library that it needs is missing
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([*EDGEVL, *command], capture_output=True, text=True, env=env, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert library in last
    assert "pip install --force-reinstall" in last
