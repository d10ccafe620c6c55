"""Training's pictures, batches and steps: deterministic, nothing held out, cut as the runtime cuts, resumable."""

from __future__ import annotations

import json
import multiprocessing
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import edgevl
from edgevl.eval.metrics import METRICS
from edgevl.image import pixels
from edgevl.recipe import emoji, heldout, nlvr, packs, scenes, subjects
from edgevl.recipe.batches import (
    DENSE,
    ENCODER,
    IGNORE,
    WHOLE,
    Batches,
    Phase,
    Share,
    Stage,
    Writer,
    collate,
    with_photos,
)
from edgevl.recipe.data import SIZES, Example, Paths, Source, fitted, held_out_word, stock
from edgevl.recipe.glyphs import HALVES
from edgevl.recipe.model import EdgeVLTiny, TinyConfig, load_checkpoint, sized, text_config
from edgevl.recipe.plan import LONGEST_EDGE, plan
from edgevl.recipe.questions import PHOTOS, about_photo
from edgevl.recipe.tokenizer import IMAGE
from edgevl.recipe.train import Statistics, TokenHeads, Trainer, answer_weights, mean_gradients

CHECKPOINT = Path(edgevl.__file__).parents[1] / "models" / "edgevl-tiny" / "checkpoint"
TOKENIZER = CHECKPOINT / "tokenizer.json"
MIXES = [phase.mix for phase in (*ENCODER, *WHOLE)]


def batches(places: Paths, stage: Stage = WHOLE, n_tiles: int = 10, **options: Any) -> Batches:
    writer = None if stage is ENCODER else Writer(TOKENIZER, 16)
    return Batches(places, writer, stage, seed=3, start=0, n_tiles=n_tiles, grounded=True, **options)


@pytest.fixture(scope="module")
def source(places: Paths) -> Source:
    return Source(places)


# What is drawn


def test_workers_share_the_batches_that_one_would_draw(places: Paths) -> None:
    alone = list(islice(batches(places), 4))
    shared = list(islice(DataLoader(batches(places), batch_size=None, num_workers=2), 4))
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() == other.keys()
        assert all((one[name] == other[name].numpy()).all() for name in one)
    assert (alone[0]["tiles"].shape != alone[1]["tiles"].shape) or (alone[0]["tiles"] != alone[1]["tiles"]).any()


@pytest.mark.parametrize("stage", [ENCODER, WHOLE], ids=["encoder", "whole"])
def test_batches_keep_to_their_tiles_and_their_size_class(places: Paths, source: Source, stage: Stage) -> None:
    maker, seen = batches(places, stage, n_tiles=24), Counter[int]()
    for index in range(4 if stage is ENCODER else 24):
        counts = [example.plan.n_tiles for example in maker.examples(random.Random(index), source, index)]
        assert 24 - max(SIZES) < sum(counts) <= 24
        seen[next(n for n in SIZES if n >= max(counts))] += 1
    assert len(seen) == (1 if stage is ENCODER else 3)


def test_a_stage_goes_from_phase_to_phase(places: Paths, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    draw = source.example
    monkeypatch.setattr(source, "example", lambda rng, name, most: asked.append(name) or draw(rng, name, most))
    stage = tuple(Phase(4 * n, {name: Share(1.0)}) for n, name in enumerate(("few", "text", "crowds")))
    for grounded, drawn in ((False, ["few", "text", "crowds", "crowds"]), (True, ["text", "text", "crowds", "crowds"])):
        maker = Batches(places, None, stage, seed=3, start=0, n_tiles=4, grounded=grounded)
        for index, subject in enumerate(drawn):
            asked.clear()
            maker.examples(random.Random(index), source, index)
            assert set(asked) == {subject}


def test_shares_are_whole_and_every_subject_has_one() -> None:
    for mix in MIXES:
        assert sum(row.share for row in mix.values()) == pytest.approx(1)
        assert all(sum(row.sizes) == pytest.approx(1) for row in mix.values())
    for phase in WHOLE[1:]:
        assert set(subjects.GENERATED) < set(phase.mix)


@pytest.mark.parametrize("stage", [ENCODER, WHOLE], ids=["encoder", "whole"])
def test_more_photos_leave_the_rest_in_proportion(stage: Stage) -> None:
    more = with_photos(stage, 0.6)
    assert more[0] == stage[0]
    for phase, before in zip(more[1:], stage[1:], strict=True):
        assert phase.since == before.since
        assert phase.mix["photos"] == replace(before.mix["photos"], share=0.6)
        assert sum(row.share for row in phase.mix.values()) == pytest.approx(1)
        ratios = {phase.mix[name].share / row.share for name, row in before.mix.items() if name != "photos"}
        assert max(ratios) == pytest.approx(min(ratios))
    for share in (0, 1, -0.5, float("nan")):
        with pytest.raises(ValueError, match="share"):
            with_photos(stage, share)


@pytest.mark.parametrize("subject", sorted({name for mix in MIXES for name in mix}))
def test_a_subject_fits_into_the_size_classes_that_it_is_drawn_for(source: Source, subject: str) -> None:
    for n, most in enumerate(SIZES):
        if any(subject in mix and mix[subject].sizes[n] for mix in MIXES):
            example = source.example(random.Random(f"{subject}{most}"), subject, most)
            assert example.rgb.dtype == np.uint8
            assert example.plan.n_tiles <= most
            assert len(example.pairs) >= (subject != "pages")


def test_nothing_held_out_is_drawn(places: Paths, source: Source) -> None:
    training, kept = stock(places, is_held_out=False), stock(places, is_held_out=True)
    assert (training.is_held_out, kept.is_held_out) == (False, True)
    assert kept.fonts
    assert kept.words
    assert not set(training.fonts) & set(kept.fonts)
    assert not any(map(held_out_word, training.words))
    assert all(map(held_out_word, kept.words))
    named = {emoji.name for emoji in emoji.read_pack(places.packs / "emoji.zip").kept}
    sentences = {row.sentence.lower() for row in nlvr.read_pack(places.packs / "nlvr.zip", True)}
    photos = {photo.row for photo in packs.photos(places.packs, "signs", True)}
    assert named
    assert sentences
    assert photos
    rng = random.Random(1)
    for _ in range(25):
        pairs = source.example(rng, "emoji", 5).pairs
        assert not any(name == answer for _, answer in pairs for name in named)
        ((question, _),) = source.example(rng, "nlvr", 5).pairs
        assert not any(sentence in question.lower() for sentence in sentences)


def test_what_shows_the_same_as_a_held_out_picture_is_left_out_of_training(tmp_path: Path) -> None:
    for name, field in (("signs", "label"), ("nlvr", "sentence")):
        files = [*sorted(packs.left_out(name)), "another.png"]
        rows = [{"file": file, field: "a sentence of training", "answer": "true"} for file in files]
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("labels.jsonl", "\n".join(map(json.dumps, rows)))
        assert len(files) > 20
    assert [photo.file for photo in packs.photos(tmp_path, "signs", False)] == ["another.png"]
    assert len(packs.photos(tmp_path, "signs", None)) == 1 + len(packs.left_out("signs"))
    assert [row.file for row in nlvr.read_pack(tmp_path / "nlvr.zip", False)] == ["another.png"]


def test_a_pack_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        packs.require(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: lacks eurosat.zip, flowers.zip, objects.zip, grocery.zip, trash.zip, signs.zip, cards.zip, "
        "emoji.zip, nlvr.zip; put every pack of the recipe there"
    )


@pytest.mark.parametrize(
    ("size", "most", "least", "wanted"),
    [
        ((120, 90), 1, 0.7, ((120, 90), 128 / 120)),  # one tile as it is
        ((250, 250), 1, 0.5, ((250, 250), 128 / 250)),  # one tile, seen at half its size, which is enough
        ((400, 400), 1, 0.3, ((128, 128), 0.32)),  # reduced until it is one tile
        ((400, 400), 10, 0.7, ((400, 400), 0.96)),
        ((400, 100), 5, 0.6, ((400, 100), 0.96)),  # 3x1
        ((800, 300), 10, 0.7, ((800, 300), 0.48)),  # never legible: the best there is
    ],
)
def test_reduced_to_a_size_class(
    size: tuple[int, int], most: int, least: float, wanted: tuple[tuple[int, int], float]
) -> None:
    got, scale = fitted(size, most, least)
    assert (got, scale) == (wanted[0], pytest.approx(wanted[1]))
    assert plan(got).n_tiles <= most


# Batches


def test_tiles_are_the_runtimes_and_overviews_their_last(places: Paths, source: Source) -> None:
    sizes = ((128, 128), (384, 384), (100, 400), (260, 200))
    rgbs = [np.random.default_rng(n).integers(0, 255, (*size, 3), np.uint8) for n, size in enumerate(sizes)]
    batch = collate([Example(rgb, []) for rgb in rgbs], Writer(TOKENIZER, 16))
    start = 0
    for rgb, overview, ids in zip(rgbs, batch["overviews"], batch["input_ids"], strict=True):
        cut = plan(rgb.shape[:2])
        wanted = np.stack(list(pixels.tiles(rgb, cut, "lanczos"))).transpose(0, 3, 1, 2)
        assert (batch["tiles"][start : start + cut.n_tiles] == wanted).all()
        assert overview == start + cut.n_tiles - 1
        assert (ids == IMAGE).sum() == 16 * cut.n_tiles
        start += cut.n_tiles
    assert start == len(batch["tiles"]) == 1 + 10 + 4 + 3
    assert LONGEST_EDGE == 384


def test_every_answer_is_labelled_and_a_segment_of_its_own_or_all_are_a_chat() -> None:
    pairs = [("what is this?", "a dog"), ("is it red?", "no")]
    examples = [Example(np.zeros((64, 64, 3), np.uint8), pairs), Example(np.zeros((64, 64, 3), np.uint8), [])]
    writer = Writer(TOKENIZER, 16)
    apart, chat = (writer.text(examples, chat=chat) for chat in (False, True))
    assert set(apart["segments"][0]) == {0, 1, 2}
    assert set(chat["segments"].ravel()) == {0}
    for text in (apart, chat):
        labelled = text["labels"][0][text["labels"][0] != IGNORE]
        assert writer.read(labelled) == "a dog<|end|>no<|end|>"
        assert (text["labels"][1] == IGNORE).all()
    assert writer.read(chat["input_ids"][0]).count("<|user|>") == 2


def test_long_answers_do_not_drown_short_ones() -> None:
    no = IGNORE
    labels = torch.tensor([[no, no, 7, 8, no, 9, no, 9], [no, 1, 2, 3, 4, no, no, no], [no] * 8])
    assert answer_weights(labels).tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 1, 1, 0.5, 0.5, 0.5, 0.5])
    assert answer_weights(labels[2:]).tolist() == []


def test_every_text_comes_back_from_the_tokenizer(places: Paths) -> None:
    writer, training = Writer(TOKENIZER, 16), stock(places, is_held_out=False)
    for rows in subjects.tasks(places.packs).values():
        for name, task in rows.items():
            for pair in task.make(random.Random(name), training).pairs:
                assert [writer.read(writer.encode(text)) for text in pair] == list(pair)
                assert writer.read(writer.encode_letters(pair[1])) == pair[1]


def test_what_is_read_off_a_picture_is_written_letter_by_letter(source: Source) -> None:
    writer = Writer(TOKENIZER, 16)
    for subject, spelled in (("printed", True), ("text", True), ("scenes", False), ("photos", False)):
        drawn = (source.example(random.Random(number), subject, 1) for number in range(99))
        example = next(example for example in drawn if any(len(answer) > 4 for _, answer in example.pairs))
        labels = writer.text([example], chat=False)["labels"]
        answers = [answer for _, answer in example.pairs]
        assert writer.read(labels[labels != IGNORE]) == "".join(f"{answer}<|end|>" for answer in answers)
        n_letters = sum(len(answer) + 1 for answer in answers)
        assert ((labels != IGNORE).sum() >= n_letters) == spelled
    assert {"words", "receipts", "json", "chart_title", "screen_label"} < heldout.BY_LETTER_TASKS
    assert not {"counting", "nlvr", "emoji", "satellite", "grid"} & heldout.BY_LETTER_TASKS


# What is held out


def test_every_task_has_one_name_and_a_metric(places: Paths) -> None:
    assert len(set(heldout.TASKS)) == len(heldout.TASKS)
    for task in heldout.TASKS:
        first, again = (next(heldout.items(places, task, 1)) for _ in range(2))
        other = next(heldout.items(places, task, 1, seed="other"))
        assert first.metric in METRICS
        assert first.question
        assert (first.rgb == again.rgb).all()
        assert task in heldout.PHOTO_TASKS or first.rgb.shape != other.rgb.shape or (first.rgb != other.rgb).any()


def test_groceries_are_asked_by_name_and_by_kind(places: Paths) -> None:
    asked = {task: list(heldout.items(places, task, 9)) for task in ("groceries", "grocery_kinds")}
    assert {item.answer for item in asked["groceries"]} == {"ace", "king"}
    assert {item.answer for item in asked["grocery_kinds"]} == {"court"}
    assert all(item.question in PHOTOS["grocery"].kind for item in asked["grocery_kinds"])
    rng = random.Random(1)
    pairs = [pair for _ in range(20) for pair in about_photo(rng, "grocery", "ace", ["ace", "king"], "court")]
    assert {answer for _, answer in pairs} >= {"ace", "court"}


def test_numbers_go_up_to_nine_and_lists_to_six() -> None:
    for task, most in (("counting", 9), ("counting_kinds", 9), ("description", 6)):
        found = (heldout.scene_question(random.Random(seed), task, (128, 128))[0] for seed in range(60))
        assert max(len(scene.things) for scene in found) == most


def test_the_look_while_training_asks_every_item_once(places: Paths) -> None:
    for task, parts in heldout.held_out_batches(places, Writer(TOKENIZER, 16), 9):
        if task in ("description", "receipts", "satellite", "nlvr"):
            asked = list(parts)
            assert sum(len(part["overviews"]) for part in asked) == (_kept(places) if task == "satellite" else 9)
            assert max(len(part["tiles"]) for part in asked) <= heldout.CHECK_TILES


def _kept(places: Paths) -> int:
    return len(packs.photos(places.packs, "eurosat", True))


# Training


@pytest.fixture(scope="module")
def crowds(places: Paths) -> list[dict[str, Tensor]]:
    """Two small batches of the encoder stage."""
    return tensors(places, ENCODER, 2)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Compute on one thread: batches are too small to share out."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def trainer(places: Paths, work: Path, stage: str, **options: Any) -> Trainer:
    work.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (work / name).write_bytes((CHECKPOINT / name).read_bytes())
    torch.manual_seed(0)
    return Trainer(stage, places, work, steps=100, peak=0.02, start=CHECKPOINT, **options)


def tensors(places: Paths, stage: Stage, n: int) -> list[dict[str, Tensor]]:
    drawn = islice(batches(places, stage, n_tiles=3), n)
    return [{name: torch.as_tensor(value) for name, value in batch.items()} for batch in drawn]


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("stage", ["encoder", "whole"])
def test_a_few_steps_lower_the_loss(places: Paths, crowds: list[dict[str, Tensor]], tmp_path: Path, stage: str) -> None:
    batch = crowds[0] if stage == "encoder" else tensors(places, WHOLE, 1)[0]
    training, seen = trainer(places, tmp_path, stage), Statistics()
    losses = [training.advance(batch, seen) for _ in range(5)]
    assert losses[-1] < 0.95 * losses[0]


def test_a_model_of_another_width_has_the_same_proportions() -> None:
    assert sized(192, text_config()) == TinyConfig(text_config=text_config())
    counts = {}
    for width in (96, 192, 288):
        model = EdgeVLTiny(sized(width, text_config(width=width)))
        assert model.encode(torch.zeros(1, 3, 128, 128)).shape == (1, 64, width)
        counts[width] = sum(p.numel() for p in model.vision.parameters())
    assert counts[96] < 0.3 * counts[192] < 0.15 * counts[288]
    with pytest.raises(ValueError, match="multiple of 48"):
        sized(100, text_config())


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("stage", ["encoder", "whole"])
def test_going_on_is_the_same_as_not_stopping_and_as_a_second_run(
    places: Paths, crowds: list[dict[str, Tensor]], tmp_path: Path, stage: str
) -> None:
    steps = crowds if stage == "encoder" else tensors(places, WHOLE, 2)
    through, second = (trainer(places, tmp_path / name, stage) for name in ("first", "second"))
    for training in (through, second):
        training.advance(steps[0], Statistics())
    through.save()
    again = trainer(places, tmp_path / "first", stage)
    assert (again.step, again.pictures) == (1, through.pictures)
    for training in (through, again, second):
        training.advance(steps[1], Statistics())
    wanted = through.model.state_dict()
    for training in (again, second):
        assert all((value == wanted[name]).all() for name, value in training.model.state_dict().items())


def test_the_log_tells_with_what_a_run_begins(places: Paths, tmp_path: Path) -> None:
    trainer(places, tmp_path, "encoder").note_begin({"seed": 3, "photos": 0.6, "start": CHECKPOINT, "tiles": 24})
    [line] = (tmp_path / "log.jsonl").read_text("utf-8").splitlines()
    wanted = {"kind": "begin", "step": 0, "seed": 3, "photos": 0.6, "tiles": 24}
    assert {name: value for name, value in json.loads(line).items() if name in wanted} == wanted
    assert str(CHECKPOINT) not in line


@pytest.mark.usefixtures("_one_thread")
def test_while_the_encoder_is_held_still_its_heads_learn(places: Paths, tmp_path: Path) -> None:
    """Those of a new run know nothing, and would mislead it."""
    first, second = tensors(places, WHOLE, 2)
    training = trainer(places, tmp_path, "whole", frozen=1)
    shipped = load_checkpoint(CHECKPOINT).vision.state_dict()

    def is_as_shipped() -> bool:
        return all((value == shipped[name]).all() for name, value in training.model.vision.state_dict().items())

    begun = {name: value.clone() for name, value in training.heads.state_dict().items()}
    training.advance(first, Statistics())
    learned = training.heads.state_dict()
    assert is_as_shipped()
    for name in ("dense.shape.weight", "dense.colour.weight"):
        assert not torch.equal(learned[name], begun[name]), name
    training.advance(second, Statistics())
    assert not is_as_shipped()


def test_image_tokens_are_taught_the_letters_that_lie_in_them() -> None:
    heads, seen = TokenHeads(8, n_patches=4), Statistics()
    labels = {name: torch.full((2, 256), IGNORE) for name in HALVES}
    labels["left_glyph"][0, 17] = 5  # row 1, column 1: of the first token, whose patches are 2x2
    labels["right_glyph"][0, 34] = 0  # row 2, column 2: no letter, in the second row of tokens
    labels["right_glyph"][0, 255] = 7
    tokens = torch.randn(2, 64, 8, requires_grad=True)
    heads.loss(tokens, {}, labels, seen).backward()
    assert seen.take().keys() == {"token_glyphs"}
    assert tokens.grad is not None
    assert (tokens.grad != 0).any(-1).nonzero().tolist() == [[0, 0], [0, 9], [0, 63]]


@pytest.mark.usefixtures("_one_thread")
def test_the_whole_takes_over_what_the_encoder_has_learned_since_the_start(
    places: Paths, crowds: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    first = trainer(places, tmp_path, "encoder")
    shipped = load_checkpoint(CHECKPOINT).state_dict()
    first.advance(crowds[0], Statistics())
    first.save()
    whole = trainer(places, tmp_path, "whole").model.state_dict()
    learned = first.model.state_dict()
    assert all((whole[name] == learned[name]).all() for name in whole if name.startswith("vision."))
    assert any((whole[name] != shipped[name]).any() for name in whole if name.startswith("vision."))
    assert all((whole[name] == shipped[name]).all() for name in whole if name.startswith("text."))


def _rank(rank: int, meeting: str, found: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    one, both, none = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    both.grad = torch.full((2, 2), 1.0 + rank)
    if rank:
        one.grad = torch.full((2, 2), 4.0)
    mean_gradients([one, both, none])
    found.put((rank, [None if p.grad is None else p.grad.tolist() for p in (one, both, none)]))
    torch.distributed.destroy_process_group()


def _stepped(rank: int, meeting: str, found: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    convolution = torch.nn.Parameter(torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last))
    convolution.grad = _gradient().to(memory_format=torch.channels_last)
    mean_gradients([convolution])
    torch.optim.AdamW([convolution], lr=0.5, fused=True).step()
    found.put((rank, convolution.tolist()))
    torch.distributed.destroy_process_group()


def _gradient() -> Tensor:
    return (torch.arange(24.0) * 7 % 24 - 11.5).reshape(2, 3, 2, 2)


def _ask_ranks(tmp_path: Path, rank: Callable[..., None]) -> list[Any]:
    """Return what each of two ranks finds."""
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    ranks = [context.Process(target=rank, args=(number, str(tmp_path / "ranks"), found)) for number in range(2)]
    for process in ranks:
        process.start()
    answers = dict(found.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join()
        assert process.exitcode == 0
    return [answers[number] for number in range(2)]


def test_ranks_step_by_the_mean_of_their_gradients(tmp_path: Path) -> None:
    assert _ask_ranks(tmp_path, _rank) == [[[[2.0, 2.0]] * 2, [[1.5, 1.5]] * 2, None]] * 2


def test_ranks_step_convolutions_by_their_own_gradients(tmp_path: Path) -> None:
    """They lie channels last; a mean that lay otherwise stepped each weight by the gradient of another."""
    for weights in _ask_ranks(tmp_path, _stepped):
        assert (torch.tensor(weights) / -0.5 - _gradient().sign()).abs().max() < 1e-4


def test_ranks_draw_other_pictures_of_the_same_size_class(places: Paths, source: Source) -> None:
    ranks = [batches(places, rank=rank, n_ranks=2) for rank in range(2)]
    for step in range(5):
        drawn = [_drawn(ranks[rank], source, 2 * step + rank) for rank in range(2)]
        assert len({most for classes, _ in drawn for most in classes}) == 1
        assert drawn[0][1] != drawn[1][1]


def _drawn(batches: Batches, source: Source, index: int) -> tuple[list[int], list[bytes]]:
    """Return the size classes that batch `index` asks for, and its pictures."""
    classes: list[int] = []

    class Noting:
        def example(self, rng: random.Random, subject: str, most_tiles: int) -> Example:
            classes.append(most_tiles)
            return source.example(rng, subject, most_tiles)

    examples = batches.examples(random.Random(f"3-{index}"), Noting(), index)  # type: ignore[arg-type]
    return classes, [example.rgb.tobytes() for example in examples]


def test_dense_labels_are_those_of_the_heads() -> None:
    from edgevl.recipe import train

    assert set(train.DENSE) == set(DENSE)
    assert train.DENSE["shape"] == 1 + len(scenes.SHAPES)
