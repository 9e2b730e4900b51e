"""Each operator's translation against torch itself, in ONNX Runtime, for any number of rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from surpass.errors import InputError
from surpass.policies.onnx_graph import Graph


class Function(nn.Module):
    """A function as a module, with a few buffers to look into."""

    def __init__(self, function: Callable[[Function, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("table", torch.tensor([0.5, -1.5, 2.5, 7.0], dtype=torch.float64))
        self.register_buffer("weight", torch.randn(4, 3))

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        return self.function(self, x, codes)


FUNCTIONS: dict[str, Callable[[Function, Tensor, Tensor], Tensor]] = {
    "arithmetic of mixed types": lambda m, x, c: (x.double() * 2 - c + 1.5) / (c + 3) - x,
    "linear": lambda m, x, c: nn.functional.linear(x, m.weight.T, m.weight[0]),
    "softmax with masks": lambda m, x, c: x.masked_fill(x < 0, float("-inf")).softmax(-1),
    "where and comparisons": lambda m, x, c: torch.where((x >= 0.5) | (c == 2), x, -x.abs()),
    "both": lambda m, x, c: ((x > -0.5) & ~(x > 0.5)).float() + torch.where(c <= 1, 1, 0),
    "clamp": lambda m, x, c: x.clamp(-0.5, 0.5) + x.clamp_min(0.2) + x.clamp(max=0.1),
    "extremes": lambda m, x, c: torch.minimum(x, x.amax(-1, keepdim=True) - 1) + x.sum(),
    "sums": lambda m, x, c: x.sum(-1, keepdim=True) + x.sum((0, 1)) + c.sum(1, keepdim=True),
    "shapes": lambda m, x, c: x.unsqueeze(1).expand(-1, 2, -1).reshape(x.shape[0], 8)[:, 1:7:2],
    "parts": lambda m, x, c: torch.cat([x[:, 0:1], torch.stack([x[:, 3], x[:, 1]], -1)], 1),
    "transposes": lambda m, x, c: (x.T @ x).T + x[0].unsqueeze(0),
    "look-ups": lambda m, x, c: m.table[c] + x.gather(1, c) + m.table.index_select(0, c[0]),
    "functions": lambda m, x, c: x.exp().log() + x.sigmoid() + x.tanh() + x.abs().sqrt() + x.relu(),
    "missing": lambda m, x, c: torch.where(x.isnan(), torch.ones_like(x), x + torch.zeros_like(x)),
    "made inside": lambda m, x, c: x + torch.arange(4) + torch.full((x.shape[0], 4), 2.0),
    "means": lambda m, x, c: x.mean(-1, keepdim=True) + x.unsqueeze(1).mean((1, 2)).unsqueeze(-1),
    "norms": lambda m, x, c: nn.functional.layer_norm(x, (4,))
    + nn.functional.layer_norm(x, (4,), m.weight[:, 0], m.weight[:, 1], 0.1),
    "stacked products": lambda m, x, c: x.expand(2, -1, -1) @ m.weight.expand(2, -1, -1),
    "products of sizes": lambda m, x, c: (x.reshape(-1, 2) + 1.0).reshape(x.shape[0], 4),
    "types": lambda m, x, c: (x.double().to(torch.int64) + c).float() * c.bool(),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_operator_equals_torch(name, tmp_path):
    torch.manual_seed(0)
    module = Function(FUNCTIONS[name])
    examples = (torch.randn(3, 4), torch.randint(0, 4, (3, 4)))
    graph = Graph(taken=("x", "codes", "out"))
    values = [graph.input("x", "float32", ("n", 4)), graph.input("codes", "int64", ("n", 4))]
    out = graph.add_module(module, examples, values)
    expected = module(*examples)
    kind = str(expected.dtype).removeprefix("torch.")
    graph.output(out, "out", kind, ["n"] + ["m"] * (expected.dim() - 1))
    session = onnxruntime.InferenceSession(graph.model("test", {}))
    for rows in (1, 3, 7):
        x, codes = torch.randn(rows, 4), torch.randint(0, 4, (rows, 4))
        if name == "missing":
            x[0, 2] = float("nan")
        if name == "softmax with masks":
            x[:, 0] = 1.0
        (ours,) = session.run(None, {"x": x.numpy(), "codes": codes.numpy()})
        np.testing.assert_allclose(ours, module(x, codes).numpy(), rtol=1e-5, atol=1e-6)


def test_what_is_not_known_is_refused_by_name():
    graph = Graph()
    value = graph.input("x", "float32", ("n", 4))
    with pytest.raises(InputError, match=r"cumsum.* has no ONNX translation"):
        graph.add_module(
            Function(lambda m, x, c: x.cumsum(-1)),
            (torch.randn(3, 4), torch.zeros(3, 1).long()),
            [value, graph.input("codes", "int64", ("n", 1))],
        )


def test_words_become_codes_and_names_do_not_collide():
    graph = Graph(taken=("labelencoder.1", "word"))
    word = graph.input("word", "string", ("n",))
    code = graph.op("LabelEncoder", word, domain="ai.onnx.ml", keys_strings=["a", "b"],
                    values_int64s=[5, 7], default_int64=-1)  # fmt: skip
    assert code != "labelencoder.1"
    graph.output(code, "code", "int64", ("n",))
    session = onnxruntime.InferenceSession(graph.model("words", {"by": "hand"}))
    (codes,) = session.run(None, {"word": np.array(["b", "?", "a"], dtype=object)})
    assert codes.tolist() == [7, -1, 5]
    assert session.get_modelmeta().custom_metadata_map == {"by": "hand"}
