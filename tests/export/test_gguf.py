"""GGUF files of small random checkpoints: read back with the `gguf` package, and run by llama.cpp where it is there."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevl.errors import BackendMissing, ExportError
from edgevl.export import architectures, checkpoint, vocabulary
from edgevl.export import gguf as export_gguf
from edgevl.export import mmproj as export_mmproj
from edgevl.export.families import TorchModel
from tests.checkpoints import make_edgevl_tiny, make_smolvlm

gguf = pytest.importorskip("gguf", reason="gguf is not installed; it comes with the extra bench")

N_TOKENS = 24
TEXTS = (
    "User: How many cats?",
    "1984 is 12+7",
    "caf\u00e9 \u732b\U0001f600",
    "a\n\n\nb  \t c",
    "<end_of_utterance>\nx",
)


def opened(folder: Path) -> tuple[checkpoint.Checkpoint, TorchModel]:
    source = checkpoint.read(folder)
    return source, source.row.load(folder, source.image.tile)


def weights(path: Path) -> dict[str, Any]:
    """Return the file's tensors as float32, under the format's names."""
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}


def metadata(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


@pytest.fixture(scope="module")
def small(smolvlm_checkpoint: Path) -> tuple[checkpoint.Checkpoint, TorchModel]:
    return opened(smolvlm_checkpoint)


@pytest.fixture(scope="module")
def decoder(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("gguf") / "decoder.gguf"
    export_gguf.write_decoder(small[0], small[1].text, path, "F32")
    return path


@pytest.fixture(scope="module")
def mmproj(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("gguf") / "mmproj.gguf"
    export_mmproj.write(small[0], small[1].vision, path, "Q8_0")
    return path


@pytest.fixture(scope="module")
def llama() -> Any:
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed; it comes with the extra bench")


@pytest.fixture(scope="module")
def run(llama: Any) -> Callable[[Path, list[int]], tuple[list[int], Any]]:
    def run(path: Path, token_ids: list[int]) -> tuple[list[int], Any]:
        """Return the greedy continuation, and the logits [vocab] after the prompt.

        In a thread where nothing has computed yet: on processors with a matrix unit, quantized weights give nonsense
        where another runtime has set that up.
        """
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(alone, path, token_ids).result()

    def alone(path: Path, token_ids: list[int]) -> tuple[list[int], Any]:
        model = llama.Llama(str(path), n_ctx=256, n_threads=1, logits_all=True, verbose=False)
        model.eval(token_ids)
        first, chosen = np.array(model.scores[len(token_ids) - 1]), []
        for _ in range(N_TOKENS):
            chosen.append(int(model.scores[model.n_tokens - 1].argmax()))
            model.eval(chosen[-1:])
        model.close()
        return chosen, first

    return run


@pytest.fixture(scope="module")
def reference(small: Any) -> tuple[list[int], list[int], Any]:
    """Token ids of a prompt, their greedy continuation by PyTorch, and the first logits."""
    import torch

    text = small[1].text
    ids = [int(i) for i in np.random.default_rng(3).integers(0, 256, 40)]
    with torch.no_grad():
        first = text(input_ids=torch.tensor([ids])).logits[0, -1].numpy()
        chosen: list[int] = []
        for _ in range(N_TOKENS):
            chosen.append(int(text(input_ids=torch.tensor([ids + chosen])).logits[0, -1].argmax()))
    return ids, chosen, first


class TestDecoder:
    def test_weights_come_back(self, decoder: Path, small: Any) -> None:
        found, text = weights(decoder), small[1].text
        layer = text.model.layers[1]
        assert np.array_equal(found["token_embd.weight"], text.get_input_embeddings().weight.detach())
        assert np.array_equal(found["output.weight"], text.lm_head.weight.detach())
        assert np.array_equal(found["blk.1.ffn_down.weight"], layer.mlp.down_proj.weight.detach())
        assert np.array_equal(found["blk.1.attn_norm.weight"], layer.input_layernorm.weight.detach())
        assert len(found) == len(text.state_dict())

    def test_heads_are_reordered_from_halves_to_pairs(self, decoder: Path, small: Any) -> None:
        wanted = small[1].text.model.layers[0].self_attn.k_proj.weight.detach().numpy()
        found = weights(decoder)["blk.0.attn_k.weight"]
        assert found.shape == wanted.shape == (32, 64)  # two heads of 16
        for head in (0, 16):
            assert np.array_equal(found[head : head + 16 : 2], wanted[head : head + 8])
            assert np.array_equal(found[head + 1 : head + 16 : 2], wanted[head + 8 : head + 16])

    def test_metadata(self, decoder: Path, small: Any) -> None:
        found = metadata(decoder)
        assert found["general.architecture"] == "llama"
        assert found["llama.block_count"] == 2
        assert found["llama.context_length"] == 2048
        assert found["llama.attention.head_count_kv"] == 2
        assert found["llama.rope.dimension_count"] == 16
        assert found["llama.rope.freq_base"] == 10000
        assert found["tokenizer.ggml.model"] == "gpt2"
        assert found["tokenizer.ggml.pre"] == "gpt-2"
        assert found["tokenizer.ggml.add_bos_token"] is False
        assert found["tokenizer.chat_template"] == small[0].chat_template
        tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
        assert len(tokens) == len(types) == found["llama.vocab_size"]
        assert tokens[found["tokenizer.ggml.eos_token_id"]] == "<end_of_utterance>"
        assert types[tokens.index("<image>")] == gguf.TokenType.CONTROL
        assert types[tokens.index("the")] == gguf.TokenType.NORMAL
        assert "U s" in found["tokenizer.ggml.merges"]

    def test_a_tied_head_is_written_once(self, tmp_path: Path) -> None:
        source, model = opened(make_smolvlm(tmp_path / "tied", tied=True))
        export_gguf.write_decoder(source, model.text, tmp_path / "tied.gguf")
        found = {t.name: t.tensor_type for t in gguf.GGUFReader(tmp_path / "tied.gguf").tensors}
        assert "output.weight" not in found
        assert found["token_embd.weight"] == gguf.GGMLQuantizationType.F16
        assert found["output_norm.weight"] == gguf.GGMLQuantizationType.F32

    def test_a_vocabulary_may_be_padded(self, small: Any) -> None:
        document = json.loads((small[0].folder / "tokenizer.json").read_text(encoding="utf-8"))
        n = len(document["model"]["vocab"]) + len(document["added_tokens"])
        tokens, types = vocabulary.tokens_of(document, n + 2)
        assert tokens[n:] == [f"[unused{n}]", f"[unused{n + 1}]"]
        assert types[n:] == [gguf.TokenType.UNUSED] * 2

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"hidden_act": "gelu"}, "decoder: hidden_act is 'gelu'; a GGUF file can only have 'silu'"),
            (
                {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
                "decoder: rope_type is 'yarn'; a GGUF file can only have 'default'",
            ),
            (
                {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
                "decoder: partial_rotary_factor is 0.5; a GGUF file can only have 1.0",
            ),
            (
                {"sliding_window": 512},
                "decoder: sliding_window is 512; llama.cpp lets this model see all 2048 tokens",
            ),
            (
                {"model_type": "rwkv"},
                "decoder: model_type is 'rwkv'; a GGUF file can only have llama, mistral, qwen2, qwen2_vl_text, qwen3, "
                "phi3, gemma, gemma2, gemma3_text",
            ),
        ],
    )
    def test_what_llama_cpp_would_compute_otherwise_is_refused(
        self, small: Any, change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in change.items():
            monkeypatch.setattr(small[1].text.config, name, value, raising=False)
        with pytest.raises(ExportError) as caught:
            export_gguf.write_decoder(small[0], small[1].text, tmp_path / "no.gguf")
        assert str(caught.value) == message

    def test_rotary_frequencies_of_time_height_and_width(self) -> None:
        from transformers import Qwen2VLTextConfig

        rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e4}
        for section, wanted in (([2, 3, 3], [2, 3, 3, 0]), (None, [16, 24, 24, 0])):
            own = rope if section is None else {**rope, "mrope_section": section}
            found = architectures.metadata(Qwen2VLTextConfig(rope_parameters=own), 2048)
            assert found["rope.dimension_sections"] == wanted
            assert found["rope.freq_base"] == 10000
        config = Qwen2VLTextConfig(rope_parameters={**rope, "mrope_section": [4, 4]})
        with pytest.raises(ExportError) as caught:
            architectures.metadata(config, 2048)
        assert str(caught.value) == "decoder: number of mrope_section is 2; a GGUF file can only have 3"

    def test_another_tokenizer_is_refused(self, smolvlm_checkpoint: Path, small: Any, tmp_path: Path) -> None:
        folder = tmp_path / "other"
        shutil.copytree(smolvlm_checkpoint, folder)
        path = folder / "tokenizer.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        document["pre_tokenizer"]["add_prefix_space"] = True
        path.write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(ExportError, match=r"pre_tokenizer: llama\.cpp is not known to cut text this way"):
            export_gguf.write_decoder(checkpoint.read(folder), small[1].text, tmp_path / "no.gguf")

    def test_without_the_package(self, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(
            BackendMissing, match=r"GGUF files need the gguf package \(.*\): pip install 'edgevl\[gguf\]'"
        ):
            export_gguf.write_decoder(small[0], small[1].text, tmp_path / "no.gguf")


class TestVision:
    def test_weights_come_back(self, mmproj: Path, small: Any) -> None:
        found, vision = weights(mmproj), small[1].vision
        embeddings = vision.encoder.embeddings
        assert np.array_equal(found["v.patch_embd.weight"], embeddings.patch_embedding.weight.detach())
        assert np.array_equal(found["v.position_embd.weight"], embeddings.position_embedding.weight.detach())
        assert np.array_equal(found["v.post_ln.bias"], vision.encoder.post_layernorm.bias.detach())
        projector = vision.projector.modality_projection.proj.weight.detach().numpy()
        assert np.abs(found["mm.model.fc.weight"] - projector).max() < np.abs(projector).max() / 200
        n_weights = len(vision.encoder.state_dict()) + len(vision.projector.state_dict())
        assert len(found) == n_weights

    def test_metadata(self, mmproj: Path) -> None:
        found = metadata(mmproj)
        assert found["general.architecture"] == "clip"
        assert found["clip.projector_type"] == "idefics3"
        assert found["clip.has_vision_encoder"] is True
        assert found["clip.vision.image_size"] == 64
        assert found["clip.vision.preproc_image_size"] == 256
        assert found["clip.vision.projector.scale_factor"] == 4
        assert found["clip.vision.image_mean"] == [0.5, 0.5, 0.5]

    def test_the_bundled_models_encoder_is_refused(self, small: Any, tmp_path: Path) -> None:
        source, model = opened(make_edgevl_tiny(tmp_path / "tiny"))
        with pytest.raises(ExportError) as caught:
            export_mmproj.write(source, model.vision, tmp_path / "no.gguf")
        assert str(caught.value) == ("tiny: llama.cpp has no vision encoder of this kind; only its decoder can be GGUF")

    def test_widths_that_make_no_blocks_are_refused(self, tmp_path: Path) -> None:
        source, model = opened(make_smolvlm(tmp_path / "narrow", vision_hidden=40))
        with pytest.raises(ExportError, match=r"cannot be Q8_0 \(.*\); use F16"):
            export_mmproj.write(source, model.vision, tmp_path / "no.gguf", "Q8_0")


TEXT_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    # what differs from a small Llama: the class in transformers, and settings
    "llama-3": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen-2": ("Qwen2", {}),
    "qwen-3": ("Qwen3", {}),
    "phi-3": ("Phi3", {"eos_token_id": 1, "pad_token_id": 0}),
    "gemma": ("Gemma", {}),
    "gemma-2": ("Gemma2", {"query_pre_attn_scalar": 16, "sliding_window": 16}),
    "gemma-3": (
        "Gemma3",
        {
            "query_pre_attn_scalar": 16,
            "sliding_window": 16,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
}


def text_model(name: str, vocab_size: int) -> Any:
    """Return a causal language model of transformers with small shapes and weights that tell one token from another."""
    import torch
    import transformers

    kind, settings = TEXT_MODELS[name]
    config = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
    }
    model = getattr(transformers, f"{kind}ForCausalLM")(config(**{**shape, **settings})).eval()
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                scale = 0.3 if "embed" in name else weight.shape[1] ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=noise) * (3 * scale if "lm_head" in name else scale))
            else:
                weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.1)
    return model


class TestLlamaCpp:
    """What llama.cpp makes of the files. Skipped where llama-cpp-python is not installed."""

    @pytest.mark.parametrize("kind", ["F32", "F16"])
    def test_greedy_tokens_equal_pytorch(self, kind: Any, small: Any, run: Any, reference: Any, tmp_path: Path) -> None:
        ids, wanted, first = reference
        export_gguf.write_decoder(small[0], small[1].text, tmp_path / "decoder.gguf", kind)
        chosen, logits = run(tmp_path / "decoder.gguf", ids)
        assert chosen == wanted
        assert np.abs(logits - first).max() < 0.05 * first.std()

    @pytest.mark.parametrize("name", TEXT_MODELS)
    def test_other_text_models(self, name: str, small: Any, run: Any, reference: Any, tmp_path: Path) -> None:
        import torch

        ids = reference[0]
        text = text_model(name, small[1].text.config.vocab_size)
        export_gguf.write_decoder(small[0], text, tmp_path / "decoder.gguf", "F32")
        chosen, logits = run(tmp_path / "decoder.gguf", ids)
        with torch.no_grad():
            wanted = text(input_ids=torch.tensor([ids + chosen[:-1]])).logits[0, len(ids) - 1 :].numpy()
        assert np.abs(logits - wanted[0]).max() < 0.01 * wanted[0].std()
        assert chosen == wanted.argmax(axis=-1).tolist()

    @pytest.mark.parametrize(("kind", "n_bits", "least"), [("Q8_0", 8.5, 0.999), ("Q4_0", 4.5, 0.95)])
    def test_quantizing(
        self, kind: Any, n_bits: float, least: float, small: Any, run: Any, reference: Any, tmp_path: Path
    ) -> None:
        ids, _, first = reference
        plain, path = tmp_path / "decoder.gguf", tmp_path / "quantized.gguf"
        export_gguf.write_decoder(small[0], small[1].text, plain)
        export_gguf.quantize(plain, path, kind, threads=1)
        found = [t for t in gguf.GGUFReader(path).tensors if len(t.shape) > 1]
        assert {t.tensor_type.name for t in found} == {kind}
        assert sum(int(t.n_bytes) for t in found) * 8 == n_bits * sum(int(t.n_elements) for t in found)
        logits = run(path, ids)[1]
        assert logits @ first / np.linalg.norm(logits) / np.linalg.norm(first) > least

    def test_what_is_no_decoder_is_refused(self, llama: Any, tmp_path: Path) -> None:
        (tmp_path / "no.gguf").write_bytes(b"no")
        with pytest.raises(ExportError, match=r"no\.gguf: llama\.cpp's quantizer ended with \d+"):
            export_gguf.quantize(tmp_path / "no.gguf", tmp_path / "out.gguf", "Q4_0")

    @pytest.mark.parametrize("published", [False, True])
    def test_text_is_cut_as_tokenizers_cuts_it(
        self, published: bool, smolvlm_checkpoint: Path, llama: Any, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        from tokenizers import Tokenizer

        folder = smolvlm_checkpoint
        if published:
            shared: Path = request.getfixturevalue("shared_dir")
            folder = make_smolvlm(tmp_path / "published", tokenizer=shared / "tokenizers" / "smolvlm-256m")
        source, model = opened(folder)
        export_gguf.write_decoder(source, model.text, tmp_path / "decoder.gguf")
        theirs = llama.Llama(str(tmp_path / "decoder.gguf"), vocab_only=True, verbose=False)
        ours = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for text in TEXTS:
            wanted = ours.encode(text, add_special_tokens=False).ids
            assert theirs.tokenize(text.encode(), add_bos=False, special=True) == wanted
        theirs.close()
