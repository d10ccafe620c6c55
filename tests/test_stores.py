"""What is remembered never changes an answer: with the stores, without, and in another process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import edgevl
from edgevl import machine
from edgevl.engine import gguf
from edgevl.engine.gguf import GgufDecoder
from edgevl.engine.kv import KVCache
from edgevl.model.hub import BUNDLED, installed_folder
from tests import interrupting, natively

SHAPES = Path(__file__).parents[1] / "models" / "samples" / "shapes.png"


def picture(seed: int, height: int = 100, width: int = 100) -> NDArray[np.uint8]:
    """Draw blocks of colour, so that random models do not say the same of all."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    rows, cols = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return np.ascontiguousarray(blocks[rows][:, cols])


FOLDERS: dict[str, tuple[natively.How, str | None]] = {
    **natively.FOLDERS,
    "random gguf": ("as graphs", "smolvlm_gguf_dir"),
    "random merged": ("as graphs", "smolvlm_merged_dir"),
}


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A model folder of each decoder precision, and how its decoder is computed meanwhile."""
    how, fixture = FOLDERS[request.param]
    with natively.computed(how):
        yield Path(request.getfixturevalue(fixture)) if fixture else installed_folder() / BUNDLED


@pytest.fixture(scope="module")
def plain(folder: Path) -> edgevl.VLM:
    """The model without a store, which forgets before every question."""
    return edgevl.load(folder, store=False)


@pytest.fixture(scope="module")
def stored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[edgevl.VLM, edgevl.VLM]:
    """Two models on one store."""
    place = tmp_path_factory.mktemp("shared-store")
    return edgevl.load(folder, store=place), edgevl.load(folder, store=place)


def forget(vlm: edgevl.VLM) -> edgevl.VLM:
    """Empty what a model holds in memory."""
    model = vlm._open()
    model.decoder.truncate(0)
    model.held.clear()
    model.tiles.clear()
    model.prefixes.clear()
    return vlm


def assert_same(vlm: edgevl.VLM, plain: edgevl.VLM, messages: list[Any], **options: Any) -> str:
    """Ask both, the second one from nothing; return what both say, with scores equal to the last bit."""
    with_store = vlm.stream_messages(messages, **options).finish()
    without = forget(plain).stream_messages(messages, **options).finish()
    assert with_store.token_ids == without.token_ids
    assert np.array_equal(vlm._open().decoder.logits(), plain._open().decoder.logits())
    return with_store.text


turns = st.lists(st.tuples(st.sampled_from(["what?", "is it red?", "x"]), st.integers(0, 2)), min_size=1, max_size=3)


@settings(max_examples=20)
@given(conversation=turns, detail=st.sampled_from(["low", "auto", 3]), which=st.lists(st.integers(0, 1), min_size=3))
def test_random_chats_are_the_same_with_and_without(
    plain: edgevl.VLM, stored: tuple[edgevl.VLM, edgevl.VLM], conversation: Any, detail: Any, which: list[int]
) -> None:
    messages: list[Any] = []
    for turn, (question, n_images) in enumerate(conversation):
        images = [{"type": "image", "image": picture(seed, 60, 90)} for seed in range(n_images)]
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": question}]})
        vlm = stored[which[turn % len(which)]]  # now this process, now the other
        if which[0]:
            forget(vlm)
        said = assert_same(vlm, plain, messages, detail=detail, max_tokens=8)
        messages.append({"role": "assistant", "content": said or "?"})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one that comes while Python frees
@settings(max_examples=12)
@given(line=st.integers(1, 4000), seed=st.integers(0, 3), question=st.sampled_from(["what?", "word " * 400 + "what?"]))
def test_wherever_ctrl_c_comes_what_follows_is_right(
    plain: edgevl.VLM, stored: tuple[edgevl.VLM, edgevl.VLM], line: int, seed: int, question: str
) -> None:
    vlm, _ = stored

    def about(seed: int, question: str) -> list[Any]:
        content = [{"type": "image", "image": picture(seed)}, {"type": "text", "text": question}]
        return [{"role": "user", "content": content}]

    vlm.stream_messages(about(0, "x"), max_tokens=3).finish()
    with interrupting.at_line(line):
        vlm.stream_messages(about(seed, question), max_tokens=6).finish()
    for _ in range(2):
        for other in (seed, 0, 1):
            assert_same(vlm, plain, about(other, "what is it?"), max_tokens=3)
        forget(vlm)  # but for what is stored


@dataclass(frozen=True)
class Turn:
    """A question about pictures (their seeds), and what was answered."""

    question: str
    pictures: tuple[int, ...] = ()
    answer: str = "Yes."


def change(turns: list[Turn], at: int) -> list[Turn]:
    """Ask something else in one turn."""
    at %= len(turns)
    return [*turns[:at], replace(turns[at], question=f"{turns[at].question} really?"), *turns[at + 1 :]]


def remove(turns: list[Turn], at: int) -> list[Turn]:
    """Leave one turn out; one alone stays."""
    at %= len(turns)
    return turns[:at] + turns[at + 1 :] or turns


def show_another(turns: list[Turn], at: int) -> list[Turn]:
    """Show another picture in the place of one."""
    seeds = [seed for turn in turns for seed in turn.pictures]
    return showing(turns, [seed + 3 * (index == at % len(seeds)) for index, seed in enumerate(seeds)])


def swap(turns: list[Turn], at: int) -> list[Turn]:
    """Show two pictures, one after the other, in each other's place; be it in two turns."""
    seeds = [seed for turn in turns for seed in turn.pictures]
    if seeds:
        first, second = at % len(seeds), (at + 1) % len(seeds)
        seeds[first], seeds[second] = seeds[second], seeds[first]
    return showing(turns, seeds)


def showing(turns: list[Turn], seeds: list[int]) -> list[Turn]:
    """Return turns with as many pictures each, drawn from `seeds`."""
    rest = iter(seeds)
    return [replace(turn, pictures=tuple(islice(rest, len(turn.pictures)))) for turn in turns]


def fails(*_: Any) -> None:
    raise MemoryError


def messages_of(turns: list[Turn]) -> list[Any]:
    """Return a conversation that ends with the last turn's question."""
    messages: list[Any] = []
    for turn in turns:
        images = [{"type": "image", "image": picture(seed, 60, 90)} for seed in turn.pictures]
        messages.append({"role": "user", "content": [*images, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": turn.answer})
    return messages[:-1]


EDITS = (change, remove, show_another, swap)
TWO_TURNS = [Turn("what?", (0, 1)), Turn("is it red?", (2,))]
edits = st.lists(st.tuples(st.sampled_from(EDITS), st.integers(0, 5)), min_size=1, max_size=2)
shown = st.lists(st.integers(0, 2), max_size=2).map(tuple)
whole_turns = st.builds(Turn, st.sampled_from(["what?", "x"]), shown, st.sampled_from(["Yes.", "a"]))


@settings(max_examples=10)
@given(
    turns=st.lists(whole_turns, min_size=1, max_size=3),
    edits=edits,
    which=st.lists(st.integers(0, 1), min_size=4, max_size=4),
)
@example(turns=TWO_TURNS, edits=[(change, 0), (change, 1)], which=[0, 0, 1, 1])
@example(turns=TWO_TURNS, edits=[(remove, 0), (remove, 0)], which=[1, 1, 1, 0])
@example(turns=TWO_TURNS, edits=[(show_another, 1), (show_another, 0)], which=[0, 0, 1, 1])
@example(turns=TWO_TURNS, edits=[(swap, 0), (swap, 1)], which=[1, 1, 0, 0])
def test_an_edited_chat_is_answered_as_if_it_were_new(
    plain: edgevl.VLM, stored: tuple[edgevl.VLM, edgevl.VLM], turns: list[Turn], edits: list[Any], which: list[int]
) -> None:
    versions = [*accumulate(edits, lambda before, edit: edit[0](before, edit[1]), initial=turns), turns]  # all undone
    for version, one in zip(versions, which, strict=False):
        assert_same(stored[one], plain, messages_of(version), max_tokens=2)


def test_edits_do_what_they_are_called() -> None:
    pictures = [[[0, 1], [2]], [[2]], [[0, 4], [2]], [[0, 2], [1]]]
    for edit, at, wanted in zip(EDITS, (0, 0, 1, 1), pictures, strict=True):
        assert [list(turn.pictures) for turn in edit(TWO_TURNS, at)] == wanted
    assert [turn.question for turn in change(TWO_TURNS, 3)] == ["what?", "is it red? really?"]
    for edit in EDITS:
        assert len(edit([Turn("x")], 3)) == 1


def test_a_second_question_in_a_new_object_starts_at_the_question(folder: Path, tmp_path: Path) -> None:
    with edgevl.load(folder, store=tmp_path) as vlm:
        first = vlm.ask(picture(1, 200, 300), "what?", max_tokens=2)
        assert first.images[0].n_encoded == first.images[0].n_tiles > 1
    with edgevl.load(folder, store=tmp_path) as vlm:
        second = vlm.ask(picture(1, 200, 300), "is it red?", max_tokens=2)
    assert second.images[0].n_encoded == 0
    assert second.usage.cached_tokens >= second.usage.image_tokens


def test_a_screenshot_with_one_tile_changed_encodes_that_tile_and_the_overview(folder: Path, tmp_path: Path) -> None:
    with edgevl.load(folder, store=tmp_path) as vlm:
        spec = vlm.manifest.image
        side = spec.longest_edge  # as large as the model looks at: tiles are cut, not resized
        screen = picture(1, side, side)
        screen[::7, ::5] = np.random.default_rng(0).integers(0, 256, screen[::7, ::5].shape, np.uint8)
        n_tiles = vlm.ask(screen, "what?", detail="high", max_tokens=1).images[0].n_tiles
    changed = screen.copy()
    changed[: spec.tile // 2, : spec.tile // 2] = 0
    with edgevl.load(folder, store=tmp_path) as vlm:
        again = vlm.ask(changed, "what?", detail="high", max_tokens=1)
    assert n_tiles > 4
    assert again.images[0].n_encoded == 2


def test_a_changed_file_at_the_same_path_is_another_image(tmp_path: Path) -> None:
    from edgevl.image.read import save_png

    path = tmp_path / "photo.png"
    answers = []
    for seed in (1, 2, 1):
        save_png(picture(seed), path)
        os.utime(path, (0, 0))  # not even its date changes
        with edgevl.load(store=tmp_path / "store") as vlm:
            answers.append(vlm.ask(path, "what's here?", max_tokens=4))
    assert [answer.images[0].n_encoded > 0 for answer in answers] == [True, True, False]
    assert answers[0].images[0].id == answers[2].images[0].id != answers[1].images[0].id


def test_what_is_interrupted_while_it_is_loaded_is_not_relied_on(
    folder: Path, plain: edgevl.VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(seed: int, question: str) -> list[Any]:
        return messages_of([Turn(question, (seed,))])

    def half(self: Any, *_: Any) -> None:
        if isinstance(self, KVCache):
            for array in self.arrays.values():
                array[...] = 1
        raise KeyboardInterrupt

    with edgevl.load(folder, store=tmp_path) as vlm:
        for seed in (0, 1):
            assert_same(vlm, plain, asked(seed, "what?"), max_tokens=2)
        with monkeypatch.context() as patch:
            patch.setattr(KVCache, "load", half)
            patch.setattr(GgufDecoder, "_restore", half)
            with pytest.raises(KeyboardInterrupt):
                vlm.stream_messages(asked(0, "is it red?")).finish()
        for seed in (1, 0):
            assert_same(vlm, plain, asked(seed, "x"), max_tokens=2)


def test_where_there_is_no_room_for_a_prompt_the_next_one_is_answered(
    folder: Path, plain: edgevl.VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(question: str) -> list[Any]:
        return messages_of([Turn(question, (0,))])

    with edgevl.load(folder, store=tmp_path) as vlm:
        assert_same(vlm, plain, asked("what?"), max_tokens=2)
        decoder: Any = vlm._open().decoder
        capacity = decoder._capacity if isinstance(decoder, GgufDecoder) else decoder._cache.capacity
        long = "what " * (100 * capacity // len(vlm._open().tokenizer.encode("what " * 100)))
        with monkeypatch.context() as patch:
            patch.setattr(KVCache, "_empty", fails)
            if isinstance(decoder, GgufDecoder):
                patch.setattr(gguf.library(), "llama_init_from_model", lambda *_: None)
            with pytest.raises((MemoryError, edgevl.GraphError)):
                vlm.stream_messages(asked(long)).finish()
        assert_same(vlm, plain, asked("is it red?"), max_tokens=2)


def test_pixels_resized_in_another_way_are_another_prompt(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(installed_folder() / BUNDLED, tmp_path / "model"))
    spec = folder / "edgevl.json"
    raw = json.loads(spec.read_text("utf-8"))
    found = []
    for resample in ("lanczos", "nearest", "nearest"):
        raw["image"]["resample"] = resample
        spec.write_text(json.dumps(raw))
        with edgevl.load(folder, store=tmp_path / "store") as vlm:
            answer = vlm.ask(picture(1, 400, 300), "what's here?", max_tokens=1)
            found.append((answer.images[0].n_encoded > 0, answer.usage.cached_tokens > 0))
    assert found == [(True, False), (True, False), (False, True)]


def test_another_kind_of_processor_finds_nothing_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in a home folder on the network, say: other instructions give other last bits."""

    def asked() -> tuple[str, str, int, int]:
        with edgevl.load(store=tmp_path, device="cpu") as vlm:
            answer = vlm.ask(SHAPES, "what's here?", max_tokens=1)
            model = vlm._open()
            return model.vision_id, model.decoder_id, answer.images[0].n_encoded, answer.usage.cached_tokens

    about = machine.describe()
    found = [asked()]
    for other in (replace(about, cpu="another"), replace(about, features=("AVX1",))):
        monkeypatch.setattr(machine, "describe", lambda other=other: other)
        found.append(asked())
    vision_ids, decoder_ids, n_encoded, n_cached = zip(*found, strict=True)
    assert len(set(vision_ids)) == len(set(decoder_ids)) == 3
    assert (n_encoded, n_cached) == ((5, 5, 5), (0, 0, 0))
    assert asked()[2] == 0


ASK = "import sys, json, edgevl; a = edgevl.load().ask(sys.argv[1], sys.argv[2]); print(json.dumps(a.to_dict()))"


def ask_elsewhere(store: Path, question: str) -> Any:
    environment = {**os.environ, "EDGEVL_STORE_DIR": str(store)}
    run = subprocess.run(
        [sys.executable, "-c", ASK, str(SHAPES), question], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stderr == ""
    return json.loads(run.stdout)


def test_a_new_process_finds_what_an_earlier_one_stored_without_closing(tmp_path: Path) -> None:
    first, second = (ask_elsewhere(tmp_path, "what's here?") for _ in range(2))
    assert (first["images"][0]["n_encoded"], second["images"][0]["n_encoded"]) == (5, 0)
    assert second["usage"]["cached_tokens"] > second["usage"]["image_tokens"]
    assert first["text"] == second["text"]


ANSWERING = """
import hashlib, json, sys, edgevl
with edgevl.load(store=sys.argv[1] or False, device="cpu") as vlm:
    for line in sys.stdin:
        answer = vlm.stream_messages(json.loads(line), max_tokens=8).finish()
        if vlm._disk:
            vlm._disk.flush()
        scores = hashlib.sha256(vlm._open().decoder.logits().tobytes()).hexdigest()
        said = {"text": answer.text, "token_ids": answer.token_ids, "scores": scores}
        done = {"n_encoded": sum(image.n_encoded for image in answer.images), "n_cached": answer.usage.cached_tokens}
        print(json.dumps([said, done]), flush=True)
"""


class Elsewhere:
    """A process that answers conversations, on a store or on none."""

    def __init__(self, store: Path | str) -> None:
        command = [sys.executable, "-c", ANSWERING, str(store)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def ask(self, messages: list[Any]) -> tuple[Any, Any]:
        """Return what was said, and what had to be done for it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(messages) + "\n")
        stdin.flush()
        said, done = json.loads(stdout.readline())
        return said, done


def test_processes_that_take_turns_on_a_store_answer_as_one_without(tmp_path: Path) -> None:
    from edgevl.image.read import save_png

    images = []
    for seed in range(2):
        save_png(picture(seed, 200, 300), tmp_path / f"{seed}.png")
        images.append({"type": "image", "image": str(tmp_path / f"{seed}.png")})
    store, messages = tmp_path / "store", []
    questions = [[images[0], "what's here?"], ["is it red?"], [images[1], "and here?"], ["which one is larger?"]]
    with Elsewhere(store) as one, Elsewhere(store) as other, Elsewhere("") as plain:
        for turn, (*shown, question) in enumerate(questions):
            messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
            asked = (one, other) if turn % 2 == 0 else (other, one)
            (said, first), (again, second), (wanted, _) = (process.ask(messages) for process in (*asked, plain))
            assert said == again == wanted
            assert (first["n_encoded"] > 0) is bool(shown)
            assert second["n_encoded"] == 0
            assert second["n_cached"] > 0
            messages.append({"role": "assistant", "content": said["text"] or "?"})
    with Elsewhere(store) as later:
        again, done = later.ask(messages[:-1])
    assert again == said
    assert done["n_encoded"] == 0


def test_damage_to_the_store_changes_no_answer(tmp_path: Path) -> None:
    first = ask_elsewhere(tmp_path, "what's here?")
    random = np.random.default_rng(0)
    for path in tmp_path.rglob("*.bin"):
        content = bytearray(path.read_bytes())
        content[random.integers(len(content))] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
    assert ask_elsewhere(tmp_path, "what's here?")["text"] == first["text"]
