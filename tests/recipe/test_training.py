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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

import edgevl
from edgevl.eval.metrics import METRICS
from edgevl.image import pixels
from edgevl.recipe import emoji, heldout, nlvr, packs, questions, subjects, train
from edgevl.recipe.batches import Batches, Writer, collate
from edgevl.recipe.data import CLASS_PACKS, NAMED, SIZES, Example, Paths, Source, corpus, fitted, held_out_word, stock
from edgevl.recipe.drawn import TOLD
from edgevl.recipe.heads import LABELS, PictureHeads, Statistics, TokenHeads
from edgevl.recipe.model import EdgeVLTiny, TinyConfig, load_checkpoint, sized, text_config
from edgevl.recipe.plan import IGNORE, LONGEST_EDGE, plan
from edgevl.recipe.questions import PHOTOS, about_photo
from edgevl.recipe.stages import BY_NAME, STAGES, Phase, Share, Stage
from edgevl.recipe.tokenizer import IMAGE, TOKENIZER_FILES
from edgevl.recipe.train import HEADS, Trainer, answer_weights, mean_gradients, recorded

CHECKPOINT = Path(edgevl.__file__).parents[1] / "models" / "edgevl-tiny" / "checkpoint"
TOKENIZER = CHECKPOINT / "tokenizer.json"
ENCODER, WHOLE = BY_NAME["encoder"], BY_NAME["whole"]
MIXES = [phase.mix for stage in STAGES for phase in stage.phases]


def batches(places: Paths, stage: Stage = WHOLE, n_tiles: int = 10, **options: Any) -> Batches:
    return Batches(
        places, Writer(TOKENIZER, 64), replace(stage, tiles=n_tiles), seed=3, start=0, grounded=True, **options
    )


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
    assert len(seen) == (1 if stage is ENCODER else 2)


def test_a_stage_goes_from_phase_to_phase(places: Paths, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    draw = source.example
    monkeypatch.setattr(source, "example", lambda rng, name, most: asked.append(name) or draw(rng, name, most))
    subjects_of = ("few", "text", "crowds")
    phases = tuple(Phase(4 * n, {name: Share(1.0)}, basics=n == 0) for n, name in enumerate(subjects_of))
    stage = replace(ENCODER, phases=phases, tiles=4)
    for grounded, drawn in ((False, ["few", "text", "crowds", "crowds"]), (True, ["text", "text", "crowds", "crowds"])):
        maker = Batches(places, Writer(TOKENIZER, 64), stage, seed=3, grounded=grounded)
        for index, subject in enumerate(drawn):
            asked.clear()
            maker.examples(random.Random(index), source, index)
            assert set(asked) == {subject}


def test_what_is_asked_of_one_picture_does_not_change_the_next(
    places: Paths, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a stage that does not ask sees the same pictures when questions are worded anew."""
    maker = batches(places, ENCODER, n_tiles=6)
    before = maker.examples(random.Random(5), source, 3)
    monkeypatch.setattr(questions, "spoken", lambda rng, question, _: f"{question} {rng.random()} {rng.random()}")
    after = maker.examples(random.Random(5), source, 3)
    assert len(before) == 6
    assert any(one.pairs != other.pairs for one, other in zip(before, after, strict=True))
    assert all((one.rgb == other.rgb).all() for one, other in zip(before, after, strict=True))


def test_shares_are_whole_and_every_subject_has_one() -> None:
    for mix in MIXES:
        assert sum(row.share for row in mix.values()) == pytest.approx(1)
        assert all(sum(row.sizes) == pytest.approx(1) for row in mix.values())
    for phase in (stage.phases[-1] for stage in STAGES if stage.asks):
        assert set(subjects.GENERATED) < set(phase.mix)


def test_what_knows_something_begins_behind_the_basics_if_there_are_any() -> None:
    decoder = BY_NAME["decoder"]
    assert [decoder.mix(0) is phase.mix for phase in decoder.phases] == [True, False]
    assert [decoder.mix(0, grounded=True) is phase.mix for phase in decoder.phases] == [False, True]
    assert WHOLE.mix(0, grounded=True) is WHOLE.mix(0)


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
        asked = [question.lower() for question, _ in source.example(rng, "nlvr", 5).pairs]
        assert not any(sentence in question for sentence in sentences for question in asked)


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
        ((400, 400), 5, 0.6, ((400, 400), 0.64)),
        ((260, 100), 5, 0.9, ((260, 100), 256 / 260)),  # 2x1
        ((800, 300), 5, 0.7, ((800, 300), 0.32)),  # never legible: the best there is
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
    batch = collate([Example(rgb, []) for rgb in rgbs], Writer(TOKENIZER, 64))
    start = 0
    for rgb, overview, ids in zip(rgbs, batch["overviews"], batch["input_ids"], strict=True):
        cut = plan(rgb.shape[:2])
        wanted = np.stack(list(pixels.tiles(rgb, cut, "lanczos"))).transpose(0, 3, 1, 2)
        assert (batch["tiles"][start : start + cut.n_tiles] == wanted).all()
        assert overview == start + cut.n_tiles - 1
        assert (ids == IMAGE).sum() == 64 * cut.n_tiles
        start += cut.n_tiles
    assert start == len(batch["tiles"]) == 1 + 5 + 3 + 3
    assert LONGEST_EDGE == 256


def test_every_answer_is_labelled_and_a_segment_of_its_own_or_all_are_a_chat() -> None:
    pairs = [("what is this?", "a dog"), ("is it red?", "no")]
    examples = [Example(np.zeros((64, 64, 3), np.uint8), pairs), Example(np.zeros((64, 64, 3), np.uint8), [])]
    writer = Writer(TOKENIZER, 64)
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
    writer, training = Writer(TOKENIZER, 64), stock(places, is_held_out=False)
    for rows in subjects.tasks(places.packs).values():
        for name, task in rows.items():
            for pair in task.make(random.Random(name), training).pairs:
                assert [writer.read(writer.encode(text)) for text in pair] == list(pair)
                assert writer.read(writer.encode_letters(pair[1])) == pair[1]


def test_what_is_read_off_a_picture_is_written_letter_by_letter(source: Source) -> None:
    writer = Writer(TOKENIZER, 64)
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
    for task, parts in heldout.held_out_batches(places, Writer(TOKENIZER, 64), 9):
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


def trainer(
    places: Paths,
    work: Path,
    stage: str,
    start: Path = CHECKPOINT,
    seed: int = 0,
    repeated: dict[int, str] | None = None,
) -> Trainer:
    work.mkdir(exist_ok=True)
    for name in TOKENIZER_FILES:
        (work / name).write_bytes((CHECKPOINT / name).read_bytes())
    torch.manual_seed(seed)
    return Trainer(replace(BY_NAME[stage], steps=100, rate=0.02), places, work, start, repeated=repeated)


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
        assert training.digest() == through.digest()


def test_the_log_tells_with_what_a_run_begins(places: Paths, tmp_path: Path) -> None:
    begun = trainer(places, tmp_path, "encoder")
    begun.note_begin({"seed": 3, "start": CHECKPOINT, "steps": None})
    [line] = (tmp_path / "log.jsonl").read_text("utf-8").splitlines()
    wanted = {"kind": "begin", "step": 0, "seed": 3, "tiles": 12, "steps": 100, "weights": begun.digest()}
    assert {name: value for name, value in json.loads(line).items() if name in wanted} == wanted
    assert str(CHECKPOINT) not in line


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_shipped_log_is_of_these_stages_and_can_be_repeated(stage: Stage) -> None:
    log = CHECKPOINT.with_name("log.jsonl")
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    begun = [line for line in lines if (line["stage"], line["kind"]) == (stage.name, "begin")]
    own = {name: getattr(stage, name) for name in ("steps", "tiles", "rate", "encoder")}
    assert begun, "it may have been stopped, and gone on with"
    assert all(own.items() <= line.items() for line in begun)
    assert set(range(0, stage.steps, 300)) <= set(recorded(log, stage.name))


@pytest.mark.usefixtures("_one_thread")
def test_a_run_that_repeats_another_ends_where_their_weights_part(
    places: Paths, crowds: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    def run(name: str, repeated: dict[int, str] | None = None) -> Trainer:
        training = trainer(places, tmp_path / name, "encoder", repeated=repeated)
        training.step = 298
        training.stage = replace(training.stage, steps=300)
        training.note_begin({})
        training.run(iter([*crowds, crowds[0]]))
        return training

    first = run("first")
    log = tmp_path / "first" / "log.jsonl"
    digests = recorded(log, "encoder")
    assert digests[300] == first.digest() != digests[298]
    assert recorded(log, "decoder") == {}
    assert run("second", digests).digest() == digests[300]
    with pytest.raises(ValueError, match="encoder, step 300: the weights are not those of the log to repeat"):
        run("third", {**digests, 300: digests[298]})
    with pytest.raises(ValueError, match="encoder, step 298"):
        run("fourth", {**digests, 298: digests[300]})


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize(("stage", "held_still"), [("decoder", True), ("whole", False)])
def test_the_decoder_learns_and_the_heads_while_the_encoder_is_held_still(
    places: Paths, tmp_path: Path, stage: str, held_still: bool
) -> None:
    """Heads begun anew know nothing, and would mislead it."""
    training = trainer(places, tmp_path, stage)
    begun = {name: value.clone() for name, value in training.model.state_dict().items()}
    new = {name: value.clone() for name, value in training.heads.state_dict().items()}
    scenes_alone = replace(WHOLE, phases=(Phase(0, {"few": Share(1.0)}),))
    training.advance(tensors(places, scenes_alone, 1)[0], Statistics())
    moved = {name for name, value in training.model.state_dict().items() if not torch.equal(value, begun[name])}
    assert any(name.startswith("text.") for name in moved)
    assert any(name.startswith("projector.") for name in moved)
    assert any(name.startswith("vision.") for name in moved) != held_still
    for name in ("dense.shape.weight", "dense.colour.weight"):
        assert not torch.equal(training.heads.state_dict()[name], new[name]), name


def untold(n: int) -> dict[str, Tensor]:
    """Return the labels of `n` pictures of which nothing is told."""
    patches = {name: torch.full((n, 256), IGNORE) for name in LABELS}
    return patches | {name: torch.full((n,), IGNORE) for name in TOLD} | {"pack": torch.full((n,), -1)}


def test_image_tokens_are_taught_the_letters_that_lie_in_them() -> None:
    of_tokens, seen = TokenHeads(8, 4), Statistics()
    labels = untold(2)
    labels["left_glyph"][0, 17] = 5  # row 1, column 1: of the first token, whose patches are 2x2
    labels["right_glyph"][0, 34] = 0  # row 2, column 2: no letter, in the second row of tokens
    labels["right_glyph"][0, 255] = 7
    tokens = torch.randn(2, 64, 8, requires_grad=True)
    of_tokens.loss(tokens, {}, labels, seen).backward()
    assert seen.take().keys() == {"token_glyphs"}
    assert tokens.grad is not None
    assert (tokens.grad != 0).any(-1).nonzero().tolist() == [[0, 0], [0, 9], [0, 63]]


def test_the_tokenizer_meets_every_name_so_often_that_its_words_become_tokens(places: Paths) -> None:
    met = Counter(corpus(places, 4))
    labels = [label for pack in CLASS_PACKS for label in packs.classes(places.packs, pack)]
    inside = [f" {known.name}" for known in emoji.read_pack(places.packs / "emoji.zip").known]
    assert min(met[name] for name in (*labels, *inside, *(f" {label}" for label in labels))) >= NAMED


def test_of_all_of_a_picture_the_mean_of_its_patches_is_taught_what_is_told() -> None:
    heads, seen = PictureHeads(8), Statistics()
    labels = untold(3)
    labels["rows"][:2], labels["columns"][1] = torch.tensor([2, 9]), torch.tensor(3)
    patches = torch.randn(3, 256, 8, requires_grad=True)
    optimizer = torch.optim.Adam([patches, *heads.parameters()], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        heads.loss(patches, labels, Statistics()).backward()
        optimizer.step()
    assert float(heads.loss(patches, labels, seen).detach()) < 0.05
    assert seen.take() == {"columns": 1.0, "rows": 1.0}
    assert patches.grad is not None
    assert not patches.grad[2].any()


@pytest.mark.usefixtures("_one_thread")
def test_a_stage_begins_from_what_the_one_before_has_handed_over(
    places: Paths, crowds: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    first = trainer(places, tmp_path, "encoder")
    first.advance(crowds[0], Statistics())
    first.hand_over()
    second = trainer(places, tmp_path, "decoder", start=tmp_path / "encoder", seed=1)
    learned, shipped = first.model.state_dict(), load_checkpoint(CHECKPOINT).state_dict()
    for name, value in second.model.state_dict().items():
        kept = value if "running_" in name or "num_" in name else learned[name].to(torch.bfloat16).float()
        assert torch.equal(value, kept), name
    assert any((learned[name] != shipped[name]).any() for name in learned if name.startswith("vision."))
    assert _equal(second.heads, first.heads)
    assert _equal(second.token_heads, first.token_heads)
    assert (tmp_path / "encoder" / HEADS).exists()
    assert not (tmp_path / "encoder.part").exists()


@pytest.mark.usefixtures("_one_thread")
def test_heads_of_another_recipe_begin_anew(places: Paths, tmp_path: Path) -> None:
    first = trainer(places, tmp_path, "encoder")
    first.hand_over()
    path = tmp_path / "encoder" / HEADS
    save_file({**load_file(path), "token_heads.pictures.told.circled.bias": torch.zeros(26)}, path)
    second = trainer(places, tmp_path, "decoder", start=tmp_path / "encoder", seed=1)
    new = trainer(places, tmp_path, "decoder", seed=1)
    assert _equal(second.heads, first.heads)
    assert not _equal(second.token_heads, first.token_heads)
    assert _equal(second.token_heads, new.token_heads)


def _equal(mine: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in mine.state_dict().items())


@pytest.mark.usefixtures("_one_thread")
def test_stages_are_trained_one_after_another_and_not_twice(
    places: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "held_out_batches", lambda *_: iter(()))
    asked = ["train", "--packs", str(places.packs), "--fonts", str(places.fonts), "--words", str(places.words)]
    asked += ["--work", str(tmp_path), "--workers", "1", "--threads", "1", "--steps", "1"]
    (tmp_path / "packs").symlink_to(places.cache)
    monkeypatch.setattr("sys.argv", [*asked, "--stages", "decoder"])
    for name in TOKENIZER_FILES:
        (tmp_path / name).write_bytes((CHECKPOINT / name).read_bytes())
    with pytest.raises(FileNotFoundError, match="encoder: stage decoder begins from it; run stage encoder, or name a"):
        train.main()
    monkeypatch.setattr("sys.argv", [*asked, "--stages", "encoder", "decoder"])
    for _ in range(2):
        train.main()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert [(line["stage"], line["kind"]) for line in lines] == [
        ("encoder", "begin"),
        ("decoder", "begin"),
        ("decoder", "held_out"),
    ]
    before, after = (load_checkpoint(tmp_path / name).state_dict() for name in ("encoder", "decoder"))
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("vision."))


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
