"""The ONNX graph of all-MiniLM-L6-v2: BERT, 6 layers, 12 heads, exact (erf) GELU, pooled by mean and brought to length 1.

Inputs  `input_ids`, `attention_mask`: int64, shape (texts, tokens), both dynamic; at most 512 tokens.
Output  `vectors`: float32, shape (texts, 384), length 1.

The graph file is small: its weights are *external data* that point into the published `model.safetensors` beside it, which keeps
them as raw little-endian float32. So they are on disk once, and processes share the pages. A linear layer is `Gemm` with
`transB` because the published matrices are (out, in).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

from adapters.providers.local.files import DIMENSIONS, MODEL, WEIGHTS, ModelError, ModelFiles, sync

HEADS = 12
HEAD_SIZE = DIMENSIONS // HEADS
LAYERS = 6
EPSILON = 1e-12
"""`layer_norm_eps` of the model's configuration."""

# Added to the scores of padding: large enough that softmax gives exactly 0, small enough to stay far from overflow.
MASKED = -10_000.0


def build(files: ModelFiles) -> None:
    """Write the graph beside the weights, by rename. Raises `ModelError` when the weights are not laid out as expected."""
    model = _Graph(_header(files.weights)).model()
    staging = files.graph.with_name(f".{files.graph.name}.new")
    save_model(model, staging)
    sync(staging)
    staging.replace(files.graph)


def _header(weights: Path) -> dict[str, tuple[list[int], int, int]]:
    """Name -> (shape, offset in the file, bytes) of each float32 tensor. The format: length (u64), JSON, then the raw tensors."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 1 << 20:
            raise ModelError(
                f"{weights} is not a safetensors file: its header would be {length} bytes; delete it and start again"
            )
        entries: dict[str, Any] = json.loads(file.read(length))
    found = {}
    for name, entry in entries.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            found[name] = (entry["shape"], 8 + length + begin, end - begin)
    return found


class _Graph:
    """Collects nodes and weights; each method adds one part and answers the name of its result."""

    def __init__(self, tensors: dict[str, tuple[list[int], int, int]]) -> None:
        self._tensors = tensors
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}

    def model(self) -> Any:
        """The whole model as an ONNX `ModelProto`."""
        ids, mask = "input_ids", "attention_mask"
        hidden, shape = self._embeddings(ids)
        bias = self._mask_bias(mask)
        for layer in range(LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias, shape)
        self._pool(hidden, mask, shape)
        axes = ["texts", "tokens"]
        graph = helper.make_graph(
            self._nodes,
            MODEL,
            [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in (ids, mask)],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", DIMENSIONS])],
            list(self._weights.values()),
        )
        return helper.make_model(
            graph, producer_name="emberlog", ir_version=9, opset_imports=[helper.make_opsetid("", 17)]
        )

    def _embeddings(self, ids: str) -> tuple[str, str]:
        """The first hidden states, flat as (texts x tokens, 384), and the shape (texts, tokens, 12, 32) to unfold heads by."""
        words = self._add("Gather", self._weight("embeddings.word_embeddings.weight"), ids)
        tokens = self._add("Shape", ids, start=1, end=2)
        table = self._weight("embeddings.position_embeddings.weight")
        positions = self._add("Slice", table, self._ints("zero", 0), tokens, self._ints("zero", 0))
        # One text, no pairs: every token is of type 0.
        kind = self._add("Gather", self._weight("embeddings.token_type_embeddings.weight"), self._ints("zero", 0))
        total = self._add("Add", words, self._add("Add", positions, kind))
        normed = self._norm("embeddings.LayerNorm", total)
        unfold = self._add("Concat", self._add("Shape", ids), self._ints("heads", HEADS, HEAD_SIZE), axis=0)
        return self._add("Reshape", normed, self._ints("flat", -1, DIMENSIONS)), unfold

    def _mask_bias(self, mask: str) -> str:
        """0 for tokens and `MASKED` for padding, shaped (texts, 1, 1, tokens) to be added to the scores."""
        wide = self._add("Unsqueeze", self._add("Cast", mask, to=TensorProto.FLOAT), self._ints("score_axes", 1, 2))
        return self._add("Mul", self._add("Sub", self._float("one", 1.0), wide), self._float("masked", MASKED))

    def _layer(self, name: str, hidden: str, bias: str, shape: str) -> str:
        mixed = self._linear(
            f"{name}.attention.output.dense", self._attention(f"{name}.attention.self", hidden, bias, shape)
        )
        middle = self._norm(f"{name}.attention.output.LayerNorm", self._add("Add", mixed, hidden))
        wide = self._gelu(self._linear(f"{name}.intermediate.dense", middle))
        out = self._linear(f"{name}.output.dense", wide)
        return self._norm(f"{name}.output.LayerNorm", self._add("Add", out, middle))

    def _attention(self, name: str, hidden: str, bias: str, shape: str) -> str:
        def heads(part: str, order: list[int]) -> str:
            return self._add(
                "Transpose", self._add("Reshape", self._linear(f"{name}.{part}", hidden), shape), perm=order
            )

        scores = self._add("MatMul", heads("query", [0, 2, 1, 3]), heads("key", [0, 2, 3, 1]))
        scaled = self._add("Div", scores, self._float("scale", math.sqrt(HEAD_SIZE)))
        shares = self._add("Softmax", self._add("Add", scaled, bias), axis=-1)
        mixed = self._add("MatMul", shares, heads("value", [0, 2, 1, 3]))
        return self._add(
            "Reshape", self._add("Transpose", mixed, perm=[0, 2, 1, 3]), self._ints("flat", -1, DIMENSIONS)
        )

    def _gelu(self, x: str) -> str:
        """Exact GELU, x / 2 * (1 + erf(x / sqrt 2)), spelled out in the order that ONNX Runtime fuses with the bias before it."""
        error = self._add("Erf", self._add("Div", x, self._float("sqrt_two", math.sqrt(2.0))))
        return self._add(
            "Mul", self._add("Mul", x, self._add("Add", error, self._float("one", 1.0))), self._float("half", 0.5)
        )

    def _pool(self, hidden: str, mask: str, shape: str) -> None:
        """The mean over the tokens that are no padding, brought to length 1. The sum will do: its direction is the mean's."""
        rows = self._add("Concat", self._add("Shape", mask), self._ints("width", DIMENSIONS), axis=0)
        weights = self._add("Unsqueeze", self._add("Cast", mask, to=TensorProto.FLOAT), self._ints("row_axis", 1))
        summed = self._add("MatMul", weights, self._add("Reshape", hidden, rows))
        flat = self._add("Squeeze", summed, self._ints("row_axis", 1))
        self._nodes.append(helper.make_node("LpNormalization", [flat], ["vectors"], axis=-1, p=2))

    def _linear(self, name: str, x: str) -> str:
        return self._add("Gemm", x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"), transB=1)

    def _norm(self, name: str, x: str) -> str:
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._add("LayerNormalization", x, weight, bias, axis=-1, epsilon=EPSILON)

    def _add(self, op: str, *inputs: str, **attributes: Any) -> str:
        result = f"{op}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [result], name=result, **attributes))
        return result

    def _ints(self, name: str, *values: int) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _float(self, name: str, value: float) -> str:
        return self._constant(name, np.array(value, np.float32))

    def _constant(self, name: str, value: Any) -> str:
        self._weights.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def _weight(self, name: str) -> str:
        """A published tensor, by reference to its bytes in the weights' file."""
        if name not in self._weights:
            if name not in self._tensors:
                raise ModelError(f"{WEIGHTS} holds no tensor {name!r}: it is not {MODEL}; delete it and start again")
            shape, offset, size = self._tensors[name]
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", WEIGHTS), ("offset", offset), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
            self._weights[name] = tensor
        return name
