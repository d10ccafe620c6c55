"""Which graphs are described for the decoder that is computed without them, and what is said of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevl.engine.native.plan import data_path, plan_path, read_plan
from edgevl.export.graphs import save_beside
from edgevl.export.native import write_plan
from edgevl.model import manifest
from edgevl.model.hub import BUNDLED, installed_folder

Graph = Any
NAMES = "/model/layers.{}/{}"
ATTENTION, NORM = "attn/GroupQueryAttention", "input_layernorm/SkipLayerNorm"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's decoder with all weights beside it. Do not write into its folder."""
    path = tmp_path_factory.mktemp("described") / "decoder.onnx"
    save_beside(onnx.load(installed_folder() / BUNDLED / "decoder.onnx"), path)
    assert write_plan(path) is None
    return path


def why(described: Path, folder: Path, change: Callable[[Graph], None]) -> str | None:
    """Return why the graph is not described once it is changed; a description that was there is gone then."""
    path = folder / described.name
    for name in (described, data_path(described), plan_path(described)):
        shutil.copyfile(name, folder / name.name)
    model = onnx.load(path, load_external_data=False)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    reason = write_plan(path)
    assert plan_path(path).exists() == (reason is None)
    return reason


def node(graph: Graph, layer: int, name: str) -> Any:
    return next(one for one in graph.node if one.name == NAMES.format(layer, name))


def set_attribute(one: Any, **values: Any) -> None:
    for name, value in values.items():
        for attribute in [attribute for attribute in one.attribute if attribute.name == name]:
            one.attribute.remove(attribute)
        one.attribute.append(helper.make_attribute(name, value))


def test_the_bundled_decoder_is_described(described: Path) -> None:
    plan = read_plan(described)
    assert plan is not None
    assert (plan.n_heads, plan.n_kv_heads, plan.head_dim, plan.hidden, plan.intermediate) == (3, 3, 64, 192, 512)
    assert (plan.n_positions, plan.half_rotary, plan.scale, len(plan.layers)) == (2048, 32, 0.125, 4)
    assert plan.epsilon == pytest.approx(1e-5)
    assert {layer.qkv.bias for layer in plan.layers} == {None}
    model = onnx.load(described)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    data = data_path(described).read_bytes()

    def at(start: int, like: str) -> bool:
        array = weights[like]
        return np.array_equal(np.frombuffer(data, array.dtype, array.size, start), array.ravel())

    assert at(plan.cos, "cos_cache")
    assert at(plan.sin, "sin_cache")
    assert at(plan.final_norm, "model.layers.4.final_norm_layernorm.weight")
    assert at(plan.head.weights, "lm_head.MatMul.weight_Q8")
    for number, layer in enumerate(plan.layers):
        named = f"model.layers.{number}."
        assert at(layer.norm, f"{named}input_layernorm.weight")
        assert at(layer.post_norm, f"{named}post_attention_layernorm.weight")
        for product, name in (
            *((layer.qkv, "attn.qkv_proj"), (layer.out, "attn.o_proj")),
            *((layer.gate_up, "mlp.gate_up_proj"), (layer.down, "mlp.down_proj")),
        ):
            assert at(product.weights, f"{named}{name}.MatMul.weight_Q8")
            assert at(product.scales, f"{named}{name}.MatMul.weight_scales")


def test_the_file_is_text_of_one_line_with_its_form(described: Path) -> None:
    content = plan_path(described).read_text("utf-8")
    assert content.count("\n") == 1
    assert json.loads(content)["form"] == 1


def test_the_bundled_model_comes_with_what_would_be_written(described: Path) -> None:
    assert read_plan(installed_folder() / BUNDLED / "decoder.onnx") == read_plan(described)


def test_an_export_comes_with_its_description(smolvlm_int4_dir: Path) -> None:
    assert "decoder.onnx.native.json" in manifest.read(smolvlm_int4_dir).files
    assert read_plan(smolvlm_int4_dir / "decoder.onnx") is not None


def test_a_graph_of_full_precision_is_not_described(smolvlm_model_dir: Path, tmp_path: Path) -> None:
    assert not plan_path(smolvlm_model_dir / "decoder.onnx").exists()
    path = tmp_path / "decoder.onnx"
    for name in (path.name, data_path(path).name):
        shutil.copyfile(smolvlm_model_dir / name, tmp_path / name)
    assert write_plan(path) == "logits: is made by MatMul, not by MatMulNBits"


def test_an_unchanged_graph_is_described(described: Path, tmp_path: Path) -> None:
    assert why(described, tmp_path, lambda graph: None) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"local_window_size": 128}, "has {'local_window_size': 128}"),
        ({"softcap": 30.0}, "has {'softcap': 30.0}"),
        ({"rotary_interleaved": 1}, "has {'rotary_interleaved': 1}"),
        ({"smooth_softmax": 1}, "has {'smooth_softmax': 1}"),
        ({"do_rotary": 0}, "takes more than queries, keys and values in one, turned by position"),
        ({"scale": 0.25}, f"attends in another way than {NAMES.format(3, ATTENTION)}"),
        ({"kv_cache_bit_width": 8}, f"attends in another way than {NAMES.format(3, ATTENTION)}"),
    ],
)
def test_attention_of_another_kind(described: Path, tmp_path: Path, value: dict[str, Any], said: str) -> None:
    """In one layer alone, too."""
    reason = why(described, tmp_path, lambda graph: set_attribute(node(graph, 1, ATTENTION), **value))
    assert reason == f"{NAMES.format(1, ATTENTION)}: {said}"


@pytest.mark.parametrize(("place", "name"), [(1, "keys"), (9, "position_ids"), (10, "bias"), (11, "sink"), (7, "")])
def test_attention_that_is_given_something_else(described: Path, tmp_path: Path, place: int, name: str) -> None:
    def change(graph: Graph) -> None:
        node(graph, 2, ATTENTION).input[place] = name

    said = "takes more than queries, keys and values in one, turned by position"
    assert why(described, tmp_path, change) == f"{NAMES.format(2, ATTENTION)}: {said}"


def test_attention_that_is_given_less(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        del node(graph, 2, ATTENTION).input[7:]

    said = "takes more than queries, keys and values in one, turned by position"
    assert why(described, tmp_path, change) == f"{NAMES.format(2, ATTENTION)}: {said}"


def test_positions_that_are_computed(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        for one in graph.node:
            if one.op_type == "GroupQueryAttention":
                one.input[7] = "long_cos"
        graph.node.append(helper.make_node("Identity", ["cos_cache"], ["long_cos"], "long"))

    assert why(described, tmp_path, change) == "long: is not expected"

    def of_inputs(graph: Graph) -> None:
        for one in graph.node:
            if one.op_type == "GroupQueryAttention":
                one.input[7] = "cos"

    assert why(described, tmp_path, of_inputs) == "cos: is no such weight, or does not lie beside the graph"


def test_layers_that_are_turned_by_other_tables(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        node(graph, 1, ATTENTION).input[7] = "sin_cache"

    said = f"attends in another way than {NAMES.format(3, ATTENTION)}"
    assert why(described, tmp_path, change) == f"{NAMES.format(1, ATTENTION)}: {said}"


def test_norms_with_a_bias(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        node(graph, 2, NORM).input.append("model.layers.2.input_layernorm.weight")

    assert why(described, tmp_path, change) == f"{NAMES.format(2, NORM)}: is no RMS norm without a bias"


def test_norms_that_differ(described: Path, tmp_path: Path) -> None:
    reason = why(described, tmp_path, lambda graph: set_attribute(node(graph, 2, NORM), epsilon=0.5))
    assert reason == "norms: have the epsilons ['0.5', '9.999999747378752e-06']"


def test_a_sum_of_something_else(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        node(graph, 2, NORM).input[0] = "inputs_embeds"

    assert why(described, tmp_path, change) == f"{NAMES.format(2, NORM)}: adds up something else"


def test_zero_points(described: Path, tmp_path: Path) -> None:
    name = "attn/o_proj/MatMul_Q8"

    def change(graph: Graph) -> None:
        node(graph, 1, name).input.append("zeros")

    assert why(described, tmp_path, change) == f"{NAMES.format(1, name)}: has zero points or a bias of its own"


@pytest.mark.parametrize("name", ["spare", ""])
def test_a_node_that_nothing_is_known_of(described: Path, tmp_path: Path, name: str) -> None:
    """Whether it has a name or not."""

    def change(graph: Graph) -> None:
        graph.node.append(helper.make_node("Identity", ["inputs_embeds"], ["copied"], name))
        for one in graph.node:
            one.name = one.name if name else ""

    assert why(described, tmp_path, change) == f"{name or 'copied'}: is not expected"


def test_embeddings_that_are_scaled(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        for one in graph.node:
            one.input[:] = ["scaled" if name == "inputs_embeds" else name for name in one.input]
        graph.node.append(helper.make_node("Mul", ["inputs_embeds", "factor"], ["scaled"], "scaling"))

    first = NAMES.format(0, "input_layernorm/LayerNorm")
    assert why(described, tmp_path, change) == f"{first}: is not the first norm"


def test_scores_that_are_bounded(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        next(one for one in graph.node if "logits" in one.output).output[0] = "unbounded"
        graph.node.append(helper.make_node("Tanh", ["unbounded"], ["logits"], "bound"))

    assert why(described, tmp_path, change) == "logits: is made by Tanh, not by MatMulNBits"


def test_scores_of_another_token(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        last = next(one for one in graph.node if one.name == "/lm_head/prune/Gather")
        last.input[1] = "/model/constants/INT64/1"

    reason = why(described, tmp_path, change)
    assert reason == "/lm_head/prune/Gather: takes other tokens' scores than the last one's"


def test_another_gate(described: Path, tmp_path: Path) -> None:
    gate = NAMES.format(1, "mlp/act_fn/Sigmoid/output_0")

    def tanh(graph: Graph) -> None:
        next(one for one in graph.node if gate in one.output).op_type = "Tanh"

    assert why(described, tmp_path, tanh) == f"{gate}: is made by Tanh, not by Sigmoid"

    def turned(graph: Graph) -> None:
        split = node(graph, 1, "mlp/gate_up_proj/Split")
        split.output[:] = reversed(split.output)

    assert why(described, tmp_path, turned) == f"{NAMES.format(1, 'mlp/Mul/output_0')}: is no SwiGLU"


@pytest.mark.parametrize("name", ["model.layers.0.input_layernorm.weight", "lm_head.MatMul.weight_scales", "cos_cache"])
def test_weights_that_lie_elsewhere(described: Path, tmp_path: Path, name: str) -> None:
    said = f"{name}: is no such weight, or does not lie beside the graph"

    def elsewhere(graph: Graph) -> None:
        weight = next(one for one in graph.initializer if one.name == name)
        next(entry for entry in weight.external_data if entry.key == "location").value = "other.data"

    assert why(described, tmp_path, elsewhere) == said

    def within(graph: Graph) -> None:
        weight = next(one for one in graph.initializer if one.name == name)
        weight.CopyFrom(numpy_helper.from_array(np.zeros(tuple(weight.dims), np.float32), name))

    assert why(described, tmp_path, within) == said

    def half(graph: Graph) -> None:
        next(one for one in graph.initializer if one.name == name).data_type = TensorProto.FLOAT16

    assert why(described, tmp_path, half) == said


def test_weights_of_another_size(described: Path, tmp_path: Path) -> None:
    name = "model.layers.3.post_attention_layernorm.weight"

    def change(graph: Graph) -> None:
        next(one for one in graph.initializer if one.name == name).dims[0] = 96

    assert why(described, tmp_path, change) == f"{name}: has 96 values, not 192"


def test_what_the_plan_cannot_hold(described: Path, tmp_path: Path) -> None:
    def change(graph: Graph) -> None:
        for one in graph.node:
            if one.op_type == "GroupQueryAttention":
                set_attribute(one, kv_num_heads=2)

    assert why(described, tmp_path, change) == "has 3 heads for 2 of keys"
