"""A forward and a backward pass for training Llama-shaped models, in which padding costs nothing.

Norms, projections, gates run on the tokens that differ, a block of them at a time, so that what a
block makes stays in the processor's cache until it has been used; only attention sees padded rows.
Everything is what the model's own forward computes, and its exact gradient: root-mean-square norms,
rotary positions, grouped queries, gated silu layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["packed_states", "shared"]

SHARING = 1 << 24  # comparisons of tokens beyond which prefixes are not looked for
BLOCK = 512  # tokens at a time on a processor
WIDEST = 128  # longest rows whose attention is computed here
PIECE = 16  # rows of like length whose attention is computed together


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


def _blocks(n: int, device: torch.device) -> Iterator[slice]:
    step = BLOCK if device.type == "cpu" else max(n, 1)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


# -------------------------------------------------------------------------------------- the norm


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean x^2 + eps) of each row, [N, 1]."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return size.div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_back(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, own: Tensor) -> Tensor:
    """The gradient of w x scale with respect to x; that of the weight is added to `own`."""
    normed = x * scale
    product = grad * normed
    mean = (product @ weight).div_(x.shape[-1])[:, None]
    own += product.sum(0)
    return (grad * weight).sub_(normed.mul_(mean)).mul_(scale)


class _Norm(torch.autograd.Function):
    """w x / sqrt(mean x^2 + eps), with one pass back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = _scale(x, eps)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        own = torch.zeros_like(weight)
        return _norm_back(grad, x, weight, scale, own), own, None


# --------------------------------------------------------------------------- before attention


class _Before(torch.autograd.Function):
    """Norm, projection to queries, keys and values, and rotary positions: [N, W].

    `turn` [N, R] holds the rotations as complex numbers for the first 2 R columns. Within a head
    the two halves of a pair are put side by side, which no product of a query and a key notices.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, weight: Tensor, bias: Tensor | None, turn: Tensor,
        eps: float,
    ) -> Tensor:  # fmt: skip
        out = x.new_empty(len(x), len(weight))
        for here in _blocks(len(x), x.device):
            h = (x[here] * _scale(x[here], eps)).mul_(norm)
            if bias is None:
                torch.mm(h, weight.t(), out=out[here])
            else:
                torch.addmm(bias, h, weight.t(), out=out[here])
            _turned(out[here], turn[here])
        ctx.save_for_backward(x, norm, weight, turn)
        ctx.eps, ctx.biased = eps, bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, norm, weight, turn = ctx.saved_tensors
        out = torch.empty_like(x)
        g_norm, g_weight = torch.zeros_like(norm), torch.zeros_like(weight)
        g_bias = torch.zeros_like(weight[:, 0]) if ctx.biased else None
        for here in _blocks(len(x), x.device):
            g = grad[here].clone()
            _turned(g, turn[here].conj().resolve_conj())
            scale = _scale(x[here], ctx.eps)
            g_weight.addmm_(g.t(), (x[here] * scale).mul_(norm))
            if g_bias is not None:
                g_bias += g.sum(0)
            out[here] = _norm_back(g @ weight, x[here], norm, scale, g_norm)
        return out, g_norm, g_weight, g_bias, None, None


def _turned(x: Tensor, turn: Tensor) -> None:
    """Rotate the first columns in place, taken in pairs as complex numbers."""
    pairs = x[:, : 2 * turn.shape[1]].unflatten(1, (-1, 2))
    torch.view_as_complex(pairs).mul_(turn)


def _paired(weight: Tensor, heads: int) -> Tensor:
    """The rows of a projection, the two halves of each head interleaved."""
    halves = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).flatten(0, 2)


# ------------------------------------------------------------------------------------ attention


class _Places:
    """Where tokens stand, for attention over rows of like length, `PIECE` at a time.

    A piece of b rows of length L is a block [heads, b, L] of a flat list; queries, keys and values
    of all pieces are one such list each of three (keys and values repeated where heads share them).

    Attributes:
        shapes: (b, L) of each piece.
        spread: for each entry of the list of queries, keys and values, its row in [N x columns].
        own: for each token and column, where it stands first in that list, [N, 3 heads].
        again, copies: tokens that stand elsewhere too [M], and where, [M, 3 heads].
        first: for each token and head, where it stands first in the list of answers, [N x heads].
        back: for each entry of that list, its row in [N x heads], or the last where it is another
            token's copy or padding.
    """

    def __init__(self, index: Tensor, place: Tensor, real: Tensor, heads: int, kv: int) -> None:
        n, device = len(index), index.device
        columns = _columns(heads, kv, device)
        width = heads + 2 * kv
        length = place.shape[1]
        mine = torch.full(place.shape, -1, device=device)
        mine.view(-1)[index] = torch.arange(n, device=device)
        order = real.sum(-1).argsort(descending=True)
        long = real.sum(-1)[order].tolist()
        self.shapes: list[tuple[int, int]] = []
        tokens, owned, at, answers = [], [], [], []
        spread, start, begin = [], 0, 0
        for first in range(0, len(order), PIECE):
            rows = order[first : first + PIECE]
            size = max(int(long[first]), 1)
            here = place[rows, :size].flatten()
            many = len(here)
            self.shapes.append((len(rows), size))
            spread.append((here * width + columns[:, None]).flatten())
            spot = torch.arange(many, device=device)
            at.append(start + spot)
            answers.append(begin + spot)
            tokens.append(torch.where(real[rows, :size].flatten(), here, -1))
            owned.append(mine[rows, :size].flatten())
            start, begin = start + 3 * heads * many, begin + heads * many
        stride = torch.cat([torch.full((b * m,), b * m, device=device) for b, m in self.shapes])
        self.spread = torch.cat(spread)
        token, own, spot, answer = (torch.cat(x) for x in (tokens, owned, at, answers))
        steps = torch.arange(3 * heads, device=device)
        where = own >= 0
        self.own = torch.empty(n, 3 * heads, dtype=torch.long, device=device)
        self.own[own[where]] = spot[where][:, None] + stride[where][:, None] * steps
        more = (token >= 0) & ~where
        self.again = token[more]
        self.copies = spot[more][:, None] + stride[more][:, None] * steps
        first_of = torch.empty(n, heads, dtype=torch.long, device=device)
        first_of[own[where]] = answer[where][:, None] + stride[where][:, None] * steps[:heads]
        self.first = first_of.flatten()
        self.back = torch.full((begin,), n * heads, device=device)
        self.back[self.first] = torch.arange(n * heads, device=device)
        future = torch.ones(length, length, device=device).triu_(1).bool()
        self.mask = torch.zeros(future.shape, device=device).masked_fill_(future, -torch.inf)


def _columns(heads: int, kv: int, device: torch.device) -> Tensor:
    """The columns of each head's query, then key, then value."""
    group = torch.arange(heads, device=device) // (heads // kv)
    return torch.cat([torch.arange(heads, device=device), heads + group, heads + kv + group])


class _Attend(torch.autograd.Function):
    """Causal attention of short rows, from scaled queries, keys and values [N, W]."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, places: _Places, heads: int, kv: int, size: int) -> Tensor:
        all_three = qkv.view(-1, size).index_select(0, places.spread)
        answers = qkv.new_empty(len(all_three) // 3, size)
        kept: list[Tensor] = []
        for (q, k, v), answer, length in _pieces(places, heads, all_three, answers):
            score = torch.baddbmm(places.mask[:length, :length], q, k.transpose(1, 2))
            kept.append(score.softmax(-1))
            torch.bmm(kept[-1], v, out=answer)
        ctx.save_for_backward(all_three, *kept)
        ctx.rest = places, heads, kv, size
        return answers.index_select(0, places.first).view(len(qkv), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        all_three, *kept = ctx.saved_tensors
        places, heads, kv, size = ctx.rest
        grads = torch.cat([grad.reshape(-1, size), grad.new_zeros(1, size)])
        grads = grads.index_select(0, places.back)
        back = torch.empty_like(all_three)
        pieces = zip(
            _pieces(places, heads, all_three, grads), _pieces(places, heads, back, grads), kept,
            strict=True,
        )  # fmt: skip
        for ((q, k, v), g, _), ((g_q, g_k, g_v), _, _), weight in pieces:
            inner = torch.bmm(g, v.transpose(1, 2))
            inner = torch._softmax_backward_data(inner, weight, -1, weight.dtype)
            torch.bmm(inner, k, out=g_q)
            torch.bmm(inner.transpose(1, 2), q, out=g_k)
            torch.bmm(weight.transpose(1, 2), g, out=g_v)
        out, more = (
            _gathered(back.index_select(0, at.flatten()).view(len(at), 3, heads, size), kv)
            for at in (places.own, places.copies)
        )
        return out.index_add_(0, places.again, more), None, None, None, None


def _pieces(
    places: _Places, heads: int, all_three: Tensor, answers: Tensor
) -> Iterator[tuple[tuple[Tensor, ...], Tensor, int]]:
    """Queries, keys and values of each piece, each [heads x b, L, size]; its answers; and L."""
    start = 0
    for b, length in places.shapes:
        count = heads * b * length
        three = all_three[3 * start : 3 * (start + count)].view(3, heads * b, length, -1)
        yield three.unbind(0), answers[start : start + count].view(three.shape[1:]), length
        start += count


def _gathered(grad: Tensor, kv: int) -> Tensor:
    """[N, 3, heads, size] to [N, W]: keys and values add up over the heads that share them."""
    if grad.shape[2] == kv:
        return grad.flatten(1)
    both = grad[:, 1:].unflatten(2, (kv, -1)).sum(3)
    return torch.cat([grad[:, 0].flatten(1), both.flatten(1)], 1)


def _plain_attention(qkv: Tensor, index: Tensor, place: Tensor, heads: int, kv: int) -> Tensor:
    """The same for rows of any length, by the device's own kernel; queries are scaled already."""
    b, length = place.shape
    rows = qkv.index_select(0, place.flatten()).view(b, length, heads + 2 * kv, -1)
    q, k, v = rows.transpose(1, 2).split([heads, kv, kv], 1)
    seen = F.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=kv != heads, scale=1.0
    )
    return seen.transpose(1, 2).reshape(b * length, -1).index_select(0, index)


# -------------------------------------------------------------------------------- after attention


class _After(torch.autograd.Function):
    """x1 = x + W_o seen; x1 + W_d (silu(W_g n) * W_u n) with n the norm of x1: [N, H]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, seen: Tensor, out_weight: Tensor, out_bias: Tensor | None,
        norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float,
    ) -> Tensor:  # fmt: skip
        middle, result = torch.empty_like(x), torch.empty_like(x)
        gates, ups = (x.new_empty(len(x), len(up)) for _ in range(2))
        for here in _blocks(len(x), x.device):
            mid = torch.addmm(x[here], seen[here], out_weight.t(), out=middle[here])
            if out_bias is not None:
                mid += out_bias
            h = (mid * _scale(mid, eps)).mul_(norm)
            g = torch.mm(h, gate.t(), out=gates[here])
            u = torch.mm(h, up.t(), out=ups[here])
            torch.addmm(mid, F.silu(g).mul_(u), down.t(), out=result[here])
        ctx.save_for_backward(seen, out_weight, norm, gate, up, down, middle, gates, ups)
        ctx.eps, ctx.biased = eps, out_bias is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        seen, out_weight, norm, gate, up, down, middle, gates, ups = ctx.saved_tensors
        g_x, g_seen = torch.empty_like(middle), torch.empty_like(seen)
        own = [torch.zeros_like(w) for w in (out_weight, norm, gate, up, down)]
        g_out, g_norm, g_gate, g_up, g_down = own
        g_bias = torch.zeros_like(norm) if ctx.biased else None
        for here in _blocks(len(middle), middle.device):
            g, mid, a, u = grad[here], middle[here], gates[here], ups[here]
            passed = F.silu(a)
            inner = g @ down
            g_down.addmm_(g.t(), passed * u)
            to_up = passed.mul_(inner)
            to_gate = torch.ops.aten.silu_backward(inner.mul_(u), a)
            scale = _scale(mid, ctx.eps)
            h = (mid * scale).mul_(norm)
            g_up.addmm_(to_up.t(), h)
            g_gate.addmm_(to_gate.t(), h)
            inner_h = torch.mm(to_up, up).addmm_(to_gate, gate)
            back = _norm_back(inner_h, mid, norm, scale, g_norm).add_(g)
            g_x[here] = back
            torch.mm(back, out_weight, out=g_seen[here])
            g_out.addmm_(back.t(), seen[here])
            if g_bias is not None:
                g_bias += back.sum(0)
        return g_x, g_seen, g_out, g_bias, g_norm, g_gate, g_up, g_down, None


# ------------------------------------------------------------------------------------ the trunk


def packed_states(model: nn.Module, ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The last hidden states [N, H], with gradients, of the tokens that differ, and the place of
    each token of the left-aligned rows [B, L] among them."""
    base: Any = model
    config = base.config
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    index, place = shared(ids, real)
    short = ids.shape[1] <= WIDEST and ids.device.type == "cpu"
    places = _Places(index, place, real, heads, kv) if short else None
    rotary = base.model.rotary_emb
    angle = (index % ids.shape[1])[:, None] * rotary.inv_freq.float()
    scale = torch.full_like(angle, rotary.attention_scaling)
    turn = torch.polar(scale, angle)
    turn = torch.cat([(turn * size**-0.5).repeat(1, heads), turn.repeat(1, kv)], 1)
    x = base.model.embed_tokens(ids.flatten()[index])
    eps = config.rms_norm_eps
    for layer in base.model.layers:
        a, m = layer.self_attn, layer.mlp
        q, k, v = a.q_proj, a.k_proj, a.v_proj
        three = torch.cat([_paired(q.weight, heads), _paired(k.weight, kv), v.weight])
        bias = None if q.bias is None else torch.cat(
            [_paired(q.bias, heads), _paired(k.bias, kv), v.bias]
        )  # fmt: skip
        qkv: Any = _Before.apply(x, layer.input_layernorm.weight, three, bias, turn, eps)
        if places is not None:
            seen = _Attend.apply(qkv, places, heads, kv, size)
        else:
            seen = _plain_attention(qkv, index, place, heads, kv)
        x = _After.apply(
            x, seen, a.o_proj.weight, a.o_proj.bias, layer.post_attention_layernorm.weight,
            m.gate_proj.weight, m.up_proj.weight, m.down_proj.weight, eps,
        )  # fmt: skip
    return _Norm.apply(x, base.model.norm.weight, eps), place  # type: ignore[return-value]
