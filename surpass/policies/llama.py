"""Llama-shaped models with fused weights: decoding with a static cache, for models whose overhead
would outweigh their arithmetic.

It computes what the model's own forward computes: root-mean-square norms, rotary positions, grouped
queries, gated silu layers. `fits` says whether a model is of that shape; others take the cached
path of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FusedLlama", "fits"]

LARGEST = 60_000_000  # weights; fused copies of larger models would cost more than they give
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
        self.rotary = base.model.rotary_emb
        self._place(padding, length)

    def _place(self, padding: Tensor, length: int) -> None:
        """Angles of `length` positions, and which columns each row may see."""
        column = torch.arange(length, device=padding.device)
        angle = column[:, None] * self.rotary.inv_freq.float()
        angle = torch.cat([angle, angle], -1)
        scale = self.rotary.attention_scaling
        self.cos, self.sin = angle.cos() * scale, angle.sin() * scale
        half = self.size // 2
        self.sin = torch.cat([-self.sin[:, :half], self.sin[:, half:]], -1)
        self.padding = padding
        self.padded = bool(padding.any())
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

    def moved(self, padding: Tensor, length: int) -> None:
        """Move what each row holds until its padding is `padding` [B], in a cache of `length`
        columns: rows that differ in length end in one column again."""
        column = torch.arange(length, device=padding.device)
        old = column - (padding - self.padding)[:, None]
        have = self.allowed.shape[-1]
        inside = (old >= 0) & (old < have)
        at = old.clamp(0, have - 1)[:, None, :, None]

        def shifted(x: Tensor) -> Tensor:
            found = x.gather(2, at.expand(-1, x.shape[1], -1, x.shape[3]))
            return torch.where(inside[:, None, :, None], found, 0.0)

        self._rows(shifted, cache_only=True)
        self._place(padding, length)

    def _rows(self, change: Any, cache_only: bool = False) -> None:
        for layer in self.layers:
            layer.keys, layer.values = change(layer.keys), change(layer.values)
        if not cache_only:
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
