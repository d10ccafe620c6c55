"""Files of ONNX graphs: saved, looked into, and a float32 one written in another precision. Nothing here is PyTorch's.

Precisions of a vision graph:

* fp32: as the checkpoint, in float32.
* fp16: weights stored in float16, half the size; onnxruntime widens them once when the graph is loaded and computes
  in float32, because its CPU kernels for these operators are float32 ones. Inputs and outputs are float32.
* int8: weights of all MatMuls as int8 per output channel, activations quantized on the fly; everything else,
  among it the patch embedding's convolution and attention itself, stays float32.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevl.model.manifest import TensorSpec

OPSET = 20
INPUT, OUTPUT = "pixel_values", "image_features"
MAX_PROTO_BYTES = 2_000_000_000
"""A protobuf file must stay below 2 GiB; larger graphs keep their weights beside them."""
_QUANTIZER = "onnxruntime.quantization.matmul_nbits_quantizer"


def save(model: onnx.ModelProto, path: Path) -> None:
    """Save a graph without its maker's debugging notes, as one file where protobuf's limit allows."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    large = sum(len(weight.raw_data) for weight in model.graph.initializer) >= MAX_PROTO_BYTES
    _data_of(path).unlink(missing_ok=True)  # else the weights are appended to it
    onnx.save_model(model, path, save_as_external_data=large, location=_data_of(path).name if large else None)


def save_beside(model: onnx.ModelProto, path: Path) -> None:
    """Save a graph with its weights in one file beside it: a norm's too, for what is computed without the graph."""
    data = _data_of(path)
    data.unlink(missing_ok=True)  # else the weights are appended to it
    onnx.save_model(
        model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name, size_threshold=64
    )
    data.chmod(path.stat().st_mode)  # onnx makes it readable for its owner alone


def matmul_names(path: Path) -> list[str]:
    """Return the names of a graph's MatMuls that have a weight: those that int8 quantizes."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]


def graph_io(path: Path) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Return a graph's inputs and outputs with dtype (numpy's name) and shape; a string is a dynamic dimension."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return {i.name: _spec(i) for i in graph.input if i.name not in weights}, {o.name: _spec(o) for o in graph.output}


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
    return TensorSpec(dtype=dtype, shape=shape)


def write_precision(source: Path, precision: str, path: Path) -> None:
    """Write the float32 graph `source` to `path` in a precision of VISION_PRECISIONS."""
    if precision == "int8":
        quantize_int8(source, path)
    elif precision == "fp16":
        store_half(source, path)
    elif _data_of(source).exists():
        save(onnx.load(source), path)
    else:
        shutil.copyfile(source, path)


def quantize_int8(source: Path, path: Path, kept: Sequence[str] = ()) -> None:
    """Write `source` (float32) to `path` with int8 MatMul weights, except in the MatMuls called in `kept`."""
    _data_of(path).unlink(missing_ok=True)  # else the weights are appended to it
    with quiet():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            source,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(kept),
            use_external_data_format=_data_of(source).exists(),
        )


def store_half(source: Path, path: Path) -> None:
    """Write `source` to `path` with its large float32 weights stored in float16 and widened when loaded.

    Values outside float16's range are clipped to it.
    """
    model = onnx.load(source)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < 256:
            continue
        limit = np.finfo(np.float16).max
        half = np.clip(numpy_helper.to_array(weight), -limit, limit).astype(np.float16)
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_widen", to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    save(model, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence logs and warnings of the libraries that make graphs; errors still raise.

    One of them sets up logging for the whole process when it is imported, which is undone.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root", _QUANTIZER)]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    logging.getLogger(_QUANTIZER).setLevel(logging.CRITICAL)  # calls it an error that tables stay as they are
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, old in zip(noisy, levels, strict=True):
            logger.setLevel(old)
        root.handlers[:] = handlers
        root.setLevel(level)


def _data_of(path: Path) -> Path:
    """Return the file of weights beside a large graph."""
    return path.with_name(f"{path.name}.data")
