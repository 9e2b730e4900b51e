"""Llama-shaped models with fused weights: decoding with a static cache, and a forward pass for
training in which padding costs nothing; for models whose overhead would outweigh their arithmetic.

Both compute what the model's own forward computes: root-mean-square norms, rotary positions,
grouped queries, gated silu layers. `fits` says whether a model is of that shape; others take the
cached
path of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["FusedLlama", "fits", "packed_states"]

LARGEST = 60_000_000  # weights; fused copies of larger models would cost more than they give
SHARING = 1 << 24  # comparisons of tokens beyond which prefixes are not looked for
KNOWN = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


def fits(model: nn.Module) -> bool:
    """Whether `FusedLlama` can stand in for a model when sampling."""
    if type(model).__name__ not in KNOWN:
        return False
    config: Any = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    windows = getattr(config, "layer_types", None) or []
    return (
        config.hidden_act == "silu"
        and not any(kind != "full_attention" for kind in windows)
        and not (type(model).__name__ == "MistralForCausalLM" and config.sliding_window)
        and rope.get("rope_type", "default") in ("default", "linear", "llama3")
        and sum(p.numel() for p in model.parameters()) <= LARGEST
        and all(type(m) is nn.Linear for m in model.modules() if isinstance(m, nn.Linear))
    )


# ---------------------------------------------------------------------------------- training


class _Norm(torch.autograd.Function):
    """w x / sqrt(mean x^2 + eps), with one pass back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1]) + eps
        scale = scale.rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        product = grad * normed
        mean = (product @ weight).div_(x.shape[-1])[:, None]
        out = (grad * weight).addcmul_(normed, mean, value=-1.0).mul_(scale)
        return out, product.sum(0), None


class _Gate(torch.autograd.Function):
    """silu(g) u of the two halves of a row."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, -1)
        out = torch.empty_like(both)
        first, second = out.chunk(2, -1)
        torch.mul(grad, F.silu(gate), out=second)
        first.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return out


class _Rotate(torch.autograd.Function):
    """Rotary positions on the first heads of rows [N, heads, size]; the others pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.heads = heads
        return _rotated(x, cos, sin, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin, ctx.heads), None, None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Each pair (i, i + half) turned by its angle; `cos` and `sin` are [N, 1, half]."""
    half = x.shape[-1] // 2
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out[:, heads:] = x[:, heads:]
    a, b = x[:, :heads, :half], x[:, :heads, half:]
    torch.mul(a, cos, out=out[:, :heads, :half]).addcmul_(b, sin, value=-1.0)
    torch.mul(b, cos, out=out[:, :heads, half:]).addcmul_(a, sin)
    return out


def shared(ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens of left-aligned rows [B, L] have to be computed, and where each token is found
    among them.

    Rows that begin alike, as the answers to one prompt do, share what they begin with: under causal
    attention it is the same. Gives the flat places [N] of the tokens to compute, and [B, L] numbers
    into them (0 at padding).
    """
    b, length = ids.shape
    own = real
    first = torch.arange(b, device=ids.device)[:, None].expand(b, length)
    if b * b * length <= SHARING:
        alike = (ids[:, None] == ids[None]) & real[:, None] & real[None]
        alike = alike.to(torch.int8).cumprod(-1)
        first = alike.argmax(1)  # the first row with the same tokens up to here
        own = real & (first == torch.arange(b, device=ids.device)[:, None])
    flat = own.flatten()
    number = (flat.cumsum(0) - 1).clamp_min(0).view(b, length)
    place = torch.where(real, number.gather(0, torch.where(real, first, 0)), 0)
    return flat.nonzero()[:, 0], place


def packed_states(model: nn.Module, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The last hidden states [N, H], with gradients, of the tokens that differ, and the place of
    each token of the left-aligned rows [B, L] among them.

    Norms, projections and gates run on the N tokens; attention alone sees padded rows.
    """
    base: Any = model
    config = base.config
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    b, length = ids.shape
    index, place = shared(ids, real)
    everywhere = place.flatten()
    rotary = base.model.rotary_emb
    angle = (index % length)[:, None] * rotary.inv_freq.float()
    cos = (angle.cos() * rotary.attention_scaling)[:, None]
    sin = (angle.sin() * rotary.attention_scaling)[:, None]
    x = base.model.embed_tokens(ids.flatten()[index])
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    eps = config.rms_norm_eps
    for layer in base.model.layers:
        a, m = layer.self_attn, layer.mlp
        three = (a.q_proj, a.k_proj, a.v_proj)
        bias = None if a.q_proj.bias is None else torch.cat([p.bias for p in three])
        h = _Norm.apply(x, layer.input_layernorm.weight, eps)
        qkv = F.linear(h, torch.cat([p.weight for p in three]), bias)
        qkv = _Rotate.apply(qkv.view(-1, heads + 2 * kv, size), cos, sin, heads + kv)
        rows = qkv.flatten(1).index_select(0, everywhere)
        rows = rows.view(b, length, -1, size).transpose(1, 2)
        q, k, v = rows.split([heads, kv, kv], 1)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv != heads)
        seen = seen.transpose(1, 2).reshape(b * length, -1).index_select(0, index)
        x = x + F.linear(seen, a.o_proj.weight, a.o_proj.bias)
        h = _Norm.apply(x, layer.post_attention_layernorm.weight, eps)
        both = F.linear(h, torch.cat([m.gate_proj.weight, m.up_proj.weight]))
        x = x + F.linear(_Gate.apply(both), m.down_proj.weight)
    return _Norm.apply(x, base.model.norm.weight, eps), place


# ---------------------------------------------------------------------------------- decoding


@dataclass
class _Layer:
    first: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    second: Tensor
    up: Tensor
    down: Tensor
    keys: Tensor
    values: Tensor


class FusedLlama:
    """A model's weights, gathered for decoding, and the cache of `rows` sequences of `length`.

    `feed(ids, place)` runs tokens [B, n] that stand at columns place .. place + n - 1 and gives the
    logits after the last of them, [B, V].

    Args:
        padding: columns of padding on the left of each row, [B].
    """

    def __init__(self, model: nn.Module, padding: Tensor, length: int) -> None:
        base: Any = model
        config = base.config
        self.heads, self.kv = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding = base.model.embed_tokens.weight
        self.norm, self.head = base.model.norm.weight, base.lm_head.weight
        self.dtype = self.embedding.dtype
        rows = len(padding)
        self.layers = [self._layer(layer, rows, length) for layer in base.model.layers]
        rotary = base.model.rotary_emb
        angle = torch.arange(length, device=padding.device)[:, None] * rotary.inv_freq.float()
        angle = torch.cat([angle, angle], -1)
        scale = rotary.attention_scaling
        self.cos, self.sin = angle.cos() * scale, angle.sin() * scale
        half = self.size // 2
        self.sin = torch.cat([-self.sin[:, :half], self.sin[:, half:]], -1)
        self.padding = padding
        self.padded = bool(padding.any())
        column = torch.arange(length, device=padding.device)
        self.allowed = (column >= padding[:, None])[:, None, None]

    def _layer(self, layer: Any, rows: int, length: int) -> _Layer:
        a, m = layer.self_attn, layer.mlp
        three = (a.q_proj, a.k_proj, a.v_proj)
        bias = None if a.q_proj.bias is None else torch.cat([p.bias for p in three])
        shape = (rows, self.kv, length, self.size)
        # Zeros, since what an unused column holds times a weight of zero must be zero.
        keys = self.embedding.new_zeros(shape)
        return _Layer(
            layer.input_layernorm.weight, torch.cat([p.weight for p in three]), bias,
            a.o_proj.weight, a.o_proj.bias, layer.post_attention_layernorm.weight,
            torch.cat([m.gate_proj.weight, m.up_proj.weight]), m.down_proj.weight,
            keys, torch.zeros_like(keys),
        )  # fmt: skip

    def repeat(self, times: int) -> None:
        """Every row `times` in a row: one prompt, several answers."""
        self._rows(lambda x: x.repeat_interleave(times, 0))

    def keep(self, rows: Tensor) -> None:
        """Only some of the rows, those that go on."""
        self._rows(lambda x: x[rows])

    def _rows(self, change: Any) -> None:
        for layer in self.layers:
            layer.keys, layer.values = change(layer.keys), change(layer.values)
        self.padding, self.allowed = change(self.padding), change(self.allowed)

    def feed(self, ids: Tensor, place: int) -> Tensor:
        """Run tokens [B, n] at columns `place` and on; the logits after the last, [B, V]."""
        b, n = ids.shape
        x = self.embedding[ids]
        columns = torch.arange(place, place + n, device=ids.device)
        position = (columns - self.padding[:, None]).clamp_min(0)
        cos = self.cos[position][:, None].to(self.dtype)
        sin = self.sin[position][:, None].to(self.dtype)
        end = place + n
        mask = self._mask(place, n)
        for layer in self.layers:
            h = self._normed(x, layer.first)
            qkv = F.linear(h, layer.qkv, layer.qkv_bias)
            qkv = qkv.view(b, n, self.heads + 2 * self.kv, self.size).transpose(1, 2)
            qk, v = qkv[:, : self.heads + self.kv], qkv[:, self.heads + self.kv :]
            half = self.size // 2
            turned = torch.cat([qk[..., half:], qk[..., :half]], -1)
            qk = qk * cos + turned * sin
            layer.keys[:, :, place:end] = qk[:, self.heads :]
            layer.values[:, :, place:end] = v
            attended = F.scaled_dot_product_attention(
                qk[:, : self.heads], layer.keys[:, :, :end], layer.values[:, :, :end],
                attn_mask=mask, is_causal=mask is None and n > 1,
                enable_gqa=self.kv != self.heads,
            )  # fmt: skip
            attended = attended.transpose(1, 2).reshape(b, n, -1)
            x = x + F.linear(attended, layer.out, layer.out_bias)
            gate, up = F.linear(self._normed(x, layer.second), layer.up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return F.linear(self._normed(x[:, -1], self.norm), self.head)

    def _mask(self, place: int, n: int) -> Tensor | None:
        end = place + n
        if n == 1:
            return self.allowed[..., :end] if self.padded else None
        if not self.padded and place == 0:
            return None
        rows = torch.arange(place, end, device=self.padding.device)
        columns = torch.arange(end, device=self.padding.device)
        causal = columns <= rows[:, None]
        # A padding row sees itself, so that its softmax is defined.
        return (self.allowed[..., :end] & causal) | (columns == rows[:, None])

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.eps)
