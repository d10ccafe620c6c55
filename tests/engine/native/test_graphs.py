"""An exported decoder computes without its graph what the graph computes, and what PyTorch computes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

import edgevl
from edgevl.engine.decoder import OnnxDecoder, read_embeddings
from edgevl.engine.graph import Graph
from edgevl.engine.native.decoder import NativeDecoder, can_run
from edgevl.engine.native.plan import read_plan
from edgevl.export import checkpoint
from edgevl.export.decoder import export_decoder, write_embeddings
from edgevl.model import manifest
from edgevl.model.hub import BUNDLED, installed_folder
from edgevl.model.manifest import DecoderSpec
from tests.checkpoints import make_internvl, make_llava, make_smolvlm
from tests.engine.native.plans import needs_library

pytestmark = needs_library
PROMPTS = (1, 2, 4, 5, 19, 40)
N_TOKENS = 40
CLEAR = 0.2
"""How far ahead of all others a score is that rounding does not move behind one, in their standard deviations."""
SHAPES = Path(__file__).parents[3] / "models" / "samples" / "shapes.png"
QUESTIONS = ("what's here?", "is it red?", "how many shapes are there?")


@dataclass(frozen=True)
class Exported:
    """A decoder as a graph and without it, the text model that it was made of, if PyTorch has it, and what it says.

    `said` are tokens for a model that was trained: after those of no sense its scores hang on the last bit. Both are
    as far from float32 there, and as far from one another.
    """

    graph: OnnxDecoder
    native: NativeDecoder
    text: Any = None
    said: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Case:
    """A checkpoint, and the precision that its decoder is exported in."""

    make: Callable[..., Path]
    precision: str
    shapes: dict[str, Any]
    has_biases: bool = False
    is_as_torch: bool = True


CASES = {
    "smolvlm int8": Case(make_smolvlm, "int8", {"seed": 11}),
    "smolvlm int4": Case(make_smolvlm, "int4", {"seed": 12, "layers": 3}, is_as_torch=False),
    "llava int8": Case(make_llava, "int8", {"seed": 13}),
    "internvl int8": Case(make_internvl, "int8", {"seed": 14}, has_biases=True),
    "internvl int4": Case(make_internvl, "int4", {"seed": 15}, has_biases=True, is_as_torch=False),
}


def opened(
    path: Path, spec: DecoderSpec, embeddings: NDArray[Any], text: Any = None, said: NDArray[np.int64] | None = None
) -> Exported:
    assert can_run(path)
    graph = OnnxDecoder(Graph(path, threads=1), spec, embeddings)
    return Exported(graph, NativeDecoder(path, spec, embeddings, n_threads=2), text, said)


def conversation(source: Path) -> NDArray[np.int64]:
    """Return a long conversation of the bundled model as tokens."""
    turns = "".join(
        f"<|user|>how many {kind} are there?<|end|><|assistant|>{n}<|end|><|user|>where is the {kind[:-1]}?<|end|>"
        f"<|assistant|>{place}<|end|>"
        for n, (kind, place) in enumerate((("stars", "left"), ("red hearts", "top"), ("moons", "right")), start=1)
    )
    encode = Tokenizer.from_file(str(source / "tokenizer.json")).encode
    return np.array(encode(turns, add_special_tokens=False).ids, np.int64)


@pytest.fixture(scope="module", params=[*CASES, "bundled int8"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    if request.param == "bundled int8":
        source = installed_folder() / BUNDLED
        spec = manifest.read(source).decoder
        embeddings = read_embeddings(source / "embeddings.npy", spec)
        return opened(source / spec.file, spec, embeddings, said=conversation(source))
    case, folder = CASES[request.param], tmp_path_factory.mktemp("both")
    path = folder / "decoder.onnx"
    source = case.make(folder / "checkpoint", **case.shapes)
    read = checkpoint.read(source)
    text = read.row.load(source, read.image.tile).text
    export_decoder(text, source, case.precision, path, folder / "work")
    write_embeddings(text, case.precision, folder / "embeddings.npy")
    plan = read_plan(path)
    assert plan is not None
    assert (plan.layers[0].qkv.bias is not None) is case.has_biases
    config = text.config
    spec = DecoderSpec(
        "onnx", path.name, case.precision, config.num_hidden_layers, config.num_key_value_heads, plan.head_dim,
        config.hidden_size, config.vocab_size, read.context_length, {}, {},
    )  # fmt: skip
    shutil.rmtree(folder / "checkpoint")
    embeddings = read_embeddings(folder / "embeddings.npy", spec)
    return opened(path, spec, embeddings, text if case.is_as_torch else None)


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def prompt(both: Exported, n: int) -> NDArray[np.int64]:
    if both.said is not None:
        assert len(both.said) >= n
        return both.said[:n]
    return np.random.default_rng(n).integers(0, len(both.native._embeddings), n)


@pytest.mark.parametrize("n", PROMPTS)
def test_scores_and_cache_are_the_graphs(both: Exported, n: int) -> None:
    """Both multiply values in 8 bits; the graph's cache is in full precision where this one's is in half."""
    found = []
    for decoder in (both.graph, both.native):
        decoder.truncate(0)
        decoder.extend(prompt(both, n))
        scores = [decoder.logits()]
        for token in (3, 7, 11):
            decoder.extend(np.array([token]))
            scores.append(decoder.logits())
        decoder.settle()
        found.append((np.array(scores), decoder.save()))
    (wanted, wanted_cache), (scores, cache) = found
    assert cache.shape == wanted_cache.shape
    assert min(cosine(one, other) for one, other in zip(scores, wanted, strict=True)) > 0.9995
    assert min(cosine(one, other) for one, other in zip(cache, wanted_cache, strict=True)) > 0.9995


def scored(decoder: Any, ids: NDArray[np.int64], n_fed: int) -> NDArray[np.float32]:
    """Feed the first `n_fed` ids at once and the others one by one; return the scores after each time."""
    decoder.truncate(0)
    decoder.extend(ids[:n_fed])
    scores = [decoder.logits()]
    for token in ids[n_fed:]:
        decoder.extend(token[None])
        scores.append(decoder.logits())
    return np.array(scores)


def check_best(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    """Check that the best tokens are the same, except where the second best is hardly worse: chance decides there."""
    ranked = np.sort(wanted, axis=-1)
    is_clear = ranked[:, -1] - ranked[:, -2] > CLEAR * wanted.std(-1)
    assert is_clear.sum() > N_TOKENS // 4
    assert found.argmax(-1)[is_clear].tolist() == wanted.argmax(-1)[is_clear].tolist()


@pytest.mark.parametrize("n", [3, 17])
def test_the_best_tokens_are_the_graphs(both: Exported, n: int) -> None:
    ids = prompt(both, n + N_TOKENS)
    check_best(scored(both.native, ids, n), scored(both.graph, ids, n))


@pytest.mark.parametrize("n", [3, 17])
def test_the_best_tokens_are_pytorchs(both: Exported, n: int) -> None:
    if both.text is None:
        pytest.skip("4 bits are far from PyTorch's weights, and the bundled model's own are not here")
    import torch

    ids = prompt(both, n + N_TOKENS)
    with torch.inference_mode():
        wanted = both.text(input_ids=torch.from_numpy(ids)[None]).logits[0, n - 1 :].numpy()
    found = scored(both.native, ids, n)
    check_best(found, wanted)
    assert min(cosine(one, other) for one, other in zip(found, wanted, strict=True)) > 0.998


@pytest.mark.parametrize("n", [1, 12])
def test_answers_of_the_bundled_model_are_the_graphs(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {}
    for chosen, backend in (("", "edgevl "), ("off", "onnxruntime ")):
        monkeypatch.setenv("EDGEVL_NATIVE", chosen)
        with edgevl.load(store=False, device="cpu") as vlm:
            assert vlm._open().decoder.backend.startswith(backend)
            answers[backend] = [vlm.ask(SHAPES, question, max_tokens=n).token_ids for question in QUESTIONS]
    first, second = answers.values()
    assert first == second
