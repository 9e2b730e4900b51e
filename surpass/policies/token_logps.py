"""Log-probs of tokens under a causal language model, without ever holding logits whole.

The head is applied to the decided positions only, block by block of tokens and vocabulary; the
backward pass computes the blocks again and adds up the gradients of the hidden states and of the
head. Memory is a few blocks whatever the vocabulary and the length; the values and the gradients
are those of the plain computation. Entropy and other sums over the vocabulary come from the same
pass (`surpass.objectives.divergence.Readout`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from surpass.objectives.divergence import Draws, Readout, draws_of, moments_of, read_out
from surpass.policies.llama import fits
from surpass.policies.packed_llama import packed_states

__all__ = [
    "Head",
    "TokenStats",
    "Tokens",
    "aligned",
    "base_of",
    "decoder_of",
    "drawn",
    "head_of",
    "head_squares",
    "packed",
    "readout",
    "token_logps",
    "trains_fused",
    "trunk",
    "unaligned",
    "unpacked",
]  # fmt: skip

BLOCK = {"cpu": 1 << 21, "cuda": 1 << 26}  # logits that are held at a time
ROWS = 2048


# ------------------------------------------------------------------------------ the head, in blocks


@dataclass(frozen=True)
class Head:
    """z = softcap(scale (W h + b)), the last layer of a language model."""

    weight: Float[Tensor, "V H"]
    bias: Float[Tensor, "V"] | None = None
    scale: float = 1.0
    softcap: float = 0.0


def readout(
    hidden: Float[Tensor, "N H"], head: Head, action: Int[Tensor, "N"],
    moments: tuple[str, ...] = (), block: int | None = None,
) -> Readout:  # fmt: skip
    """The sums over the vocabulary at N positions: `chosen`, `lse`, and the moments asked for.

    Args:
        hidden: what the head sees.
        action: the token whose logit is `chosen`.
        moments: of "mean", "lse2", "total".
        block: how many logits are held at a time.
    """
    block = block or BLOCK.get(hidden.device.type, BLOCK["cpu"])
    flags = tuple(m in moments for m in ("mean", "lse2", "total"))
    chosen, lse, mean, lse2, total = _Blocks.apply(
        hidden, head.weight, head.bias, action, head.scale, head.softcap, flags, block
    )  # type: ignore[misc]
    return Readout(chosen, lse, head.weight.shape[0], *(
        value if flag else None for value, flag in zip((mean, lse2, total), flags, strict=True)
    ))  # fmt: skip


def drawn(
    hidden: Float[Tensor, "N H"], head: Head, action: Int[Tensor, "N"], draws: Draws,
    block: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`Readout.hits` and `.drawn` at N positions, [N].

    Whole rows of logits are needed to draw from, as many at a time as `block` allows; backward
    computes them again, and draws the same.
    """
    block = block or BLOCK.get(hidden.device.type, BLOCK["cpu"])
    rows = max(1, block // head.weight.shape[0])

    def of(h: Tensor, w: Tensor, b: Tensor | None, a: Tensor) -> tuple[Tensor, Tensor]:
        return draws.read(_logits(h, w, b, head.scale, head.softcap), a)

    parts: list[Any] = [
        checkpoint(of, hidden[i : i + rows], head.weight, head.bias, action[i : i + rows],
                   use_reentrant=False)
        for i in range(0, len(hidden), rows)
    ]  # fmt: skip
    hits, mean = (torch.cat([p[k] for p in parts]) if parts else hidden.new_zeros(0)
                  for k in (0, 1))  # fmt: skip
    return hits, mean


def _sizes(n: int, vocabulary: int, block: int) -> tuple[int, int]:
    """Rows and columns of a block: as many rows as the budget allows, since each pass over the head
    costs as much memory traffic as the head is large."""
    rows = max(1, min(n, ROWS))
    return rows, max(1, min(vocabulary, block // rows))


class _Blocks(torch.autograd.Function):
    """Forward keeps hidden states, head and `lse`; backward computes each block of logits again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, action: Tensor,
        scale: float, softcap: float, flags: tuple[bool, bool, bool], block: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        n, vocabulary = hidden.shape[0], weight.shape[0]
        kw: dict[str, Any] = {"dtype": torch.float32, "device": hidden.device}
        top = torch.full((n,), -torch.inf, **kw)
        sums = torch.zeros(4, n, **kw)  # of e^z, z e^z, e^2z (all relative to `top`), and z
        rows, columns = _sizes(n, vocabulary, block)
        for first in range(0, vocabulary, columns):
            piece = weight[first : first + columns]
            shift = None if bias is None else bias[first : first + columns]
            for start in range(0, n, rows):
                here = slice(start, start + rows)
                z = _logits(hidden[here], piece, shift, scale, softcap)
                _merge(z, top[here], sums[:, here], flags)
        lse = top + sums[0].log()
        mean = sums[1] / sums[0]
        lse2 = 2 * top + sums[2].log()
        chosen = (hidden.float() * weight[action].float()).sum(-1)
        chosen = chosen if bias is None else chosen + bias[action].float()
        chosen = _capped(chosen * scale, softcap)
        ctx.save_for_backward(hidden, weight, bias, action, lse, mean, lse2, chosen)
        ctx.rest = scale, softcap, flags, rows, columns
        return chosen, lse, mean, lse2, sums[3]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, action, lse, mean, lse2, chosen = ctx.saved_tensors
        scale, softcap, flags, rows, columns = ctx.rest
        g_chosen, g_lse, g_mean, g_lse2, g_total = grads
        wants_w, wants_b = ctx.needs_input_grad[1:3]
        n, vocabulary = hidden.shape[0], weight.shape[0]
        g_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        g_weight = torch.empty_like(weight) if wants_w else None
        g_bias = torch.zeros_like(bias) if bias is not None and wants_b else None
        for first in range(0, vocabulary, columns):
            last = min(first + columns, vocabulary)
            piece = weight[first:last]
            shift = None if bias is None else bias[first:last]
            own = torch.zeros(piece.shape, dtype=torch.float32, device=weight.device)
            for start in range(0, n, rows):
                here = slice(start, start + rows)
                z = _logits(hidden[here], piece, shift, scale, softcap)
                bent = 1 - (z / softcap).square() if softcap else None
                dz = _of_logits(
                    z, flags, g_lse[here], lse[here], g_mean[here], mean[here], g_lse2[here],
                    lse2[here], g_total[here],
                )  # fmt: skip
                dz = dz if bent is None else dz.mul_(bent)
                low = dz.to(weight.dtype)
                g_hidden[here] += low @ piece
                if g_weight is not None:
                    own.addmm_(low.t().to(own.dtype), hidden[here].to(own.dtype), alpha=scale)
                if g_bias is not None:
                    g_bias[first:last] += scale * dz.sum(0).to(g_bias.dtype)
            if g_weight is not None:
                g_weight[first:last] = own
        direct = scale * g_chosen * ((1 - (chosen / softcap).square()) if softcap else 1.0)
        g_hidden.mul_(scale).addcmul_(direct[:, None], weight[action].float())
        if g_weight is not None:
            g_weight.index_add_(0, action, (direct[:, None] * hidden.float()).to(weight.dtype))
        if g_bias is not None:
            g_bias.index_add_(0, action, direct.to(g_bias.dtype))
        return g_hidden.to(hidden.dtype), g_weight, g_bias, None, None, None, None, None


def _logits(h: Tensor, w: Tensor, b: Tensor | None, scale: float, softcap: float) -> Tensor:
    z = (h @ w.t() if b is None else torch.addmm(b, h, w.t())).float()
    return _capped(z if scale == 1.0 else z.mul_(scale), softcap)


def _capped(z: Tensor, softcap: float) -> Tensor:
    return softcap * torch.tanh(z / softcap) if softcap else z


def _merge(z: Tensor, top: Tensor, sums: Tensor, flags: tuple[bool, bool, bool]) -> None:
    """Add a block of logits to the running sums, in place; `z` is used up."""
    mean, lse2, total = flags
    if total:
        sums[3] += z.sum(-1)
    new = torch.maximum(top, z.amax(-1))
    old = (top - new).exp_()
    top.copy_(new)
    sums[0] *= old
    if mean or lse2:
        e = (z - new[:, None]).exp_()
        if mean:
            sums[1].mul_(old).add_((e * z).sum(-1))
        if lse2:
            sums[2].mul_(old * old).add_(e.square().sum(-1))
    else:
        e = z.sub_(new[:, None]).exp_()
    sums[0] += e.sum(-1)


def _of_logits(
    z: Tensor, flags: tuple[bool, bool, bool], g_lse: Tensor, lse: Tensor, g_mean: Tensor,
    mean: Tensor, g_lse2: Tensor, lse2: Tensor, g_total: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient of all sums with respect to a block of logits; `z` is used up."""
    wants_mean, wants_lse2, wants_total = flags
    extra = None
    if wants_lse2:
        extra = (2 * z - lse2[:, None]).exp_().mul_(2 * g_lse2[:, None])
    if wants_total:
        extra = g_total[:, None] if extra is None else extra.add_(g_total[:, None])
    factor = g_lse[:, None]
    if wants_mean:
        factor = factor + g_mean[:, None] * (z - mean[:, None] + 1)
    dz = z.sub_(lse[:, None]).exp_().mul_(factor)
    return dz if extra is None else dz.add_(extra)


# -------------------------------------------------------------------------------------- the tokens


@dataclass(frozen=True)
class Tokens:
    """What a language model sees and what is scored of it.

    Attributes:
        ids: tokens, padded on either side or packed.
        attention: 1 at tokens, 0 at padding.
        scored: 1 where the log-prob of the token at that place is wanted; the first token of a row
            or of a packed sequence has none.
        segment: where rows are packed, the number of the sequence that a token belongs to.
        follows: of packed rows, how many tokens of the row's first sequence (segment 0, which
            begins in column 0) a token sees and stands behind: branches of one text.
    """

    ids: Int[Tensor, "B L"]
    attention: Tensor
    scored: Bool[Tensor, "B L"]
    segment: Int[Tensor, "B L"] | None = None
    follows: Int[Tensor, "B L"] | None = None


@dataclass(frozen=True)
class TokenStats:
    """Per token, 0 where not scored: `logp` [B, L], and the statistics asked for by their names."""

    logp: Float[Tensor, "B L"]
    statistics: dict[str, Float[Tensor, "B L"]] = field(default_factory=dict)


def aligned(tokens: Tokens) -> tuple[Tokens, Tensor]:
    """The same rows shifted to the left and cut to the longest, and the places [B, L'] where each
    came from.

    Causal attention then needs no mask: what stands after a token cannot reach it.
    """
    real = tokens.attention > 0
    first = real.to(torch.int8).argmax(-1)
    width = int((real.shape[1] - real.flip(-1).to(torch.int8).argmax(-1) - first).max())
    place = first[:, None] + torch.arange(max(width, 1), device=real.device)
    inside = place < real.shape[1]
    place = place.clamp(max=real.shape[1] - 1)
    return Tokens(
        tokens.ids.gather(1, place),
        real.gather(1, place) & inside,
        tokens.scored.gather(1, place) & inside,
    ), place


def token_logps(
    model: nn.Module, batch: Tokens, *, needs: tuple[Callable[[Readout], Tensor], ...] = (),
    temperature: float = 1.0, block: int | None = None,
) -> TokenStats:  # fmt: skip
    """The log-prob of every scored token given what stands before it, and statistics of each
    distribution.

    Args:
        model: a causal language model of transformers, bare or with adapters.
        needs: statistics, functions of a `Readout`, such as `divergence.entropy`.
        temperature: of the softmax; log-probs are those of the distribution that was sampled.

    Padding may be on either side. Packed rows (`segment`) see their own sequence only.
    """
    packed = batch.segment is not None
    inner, place = (batch, None) if packed else aligned(batch)
    scored = inner.scored.bool()
    scored = torch.cat([torch.zeros_like(scored[:, :1]), scored[:, 1:]], 1)
    if packed:
        assert batch.segment is not None
        same = batch.segment[:, 1:] == batch.segment[:, :-1]
        scored = torch.cat([scored[:, :1], scored[:, 1:] & same], 1)
    at = scored[:, 1:].nonzero(as_tuple=True)
    action = inner.ids[:, 1:][at]
    head, draws = head_of(model), draws_of(needs)
    if head is None:
        logits = model(input_ids=inner.ids, **_arguments(inner)).logits[:, :-1][at]
        read = read_out(logits.float() / temperature, action, moments_of(needs), draws)
    else:
        rows = _states(model, inner, at)
        scale, softcap = head.scale / temperature, head.softcap / temperature
        weight, bias = head.weight.to(rows.dtype), head.bias  # bfloat16 within autocast
        bias = None if bias is None else bias.to(rows.dtype)
        head = Head(weight, bias, scale, softcap)
        read = readout(rows, head, action, moments_of(needs), block)
        if draws is not None:
            hits, mean = drawn(rows, head, action, draws, block)
            read = replace(read, hits=hits, drawn=mean)

    def spread(value: Tensor) -> Tensor:
        out = value.new_zeros(scored.shape).index_put((at[0], at[1] + 1), value)
        return out if place is None else unaligned(out, place, batch)

    statistics = {need.__name__: spread(need(read)) for need in needs}
    return TokenStats(spread(read.logp), statistics)


def _states(model: nn.Module, inner: Tokens, at: tuple[Tensor, ...]) -> Float[Tensor, "N H"]:
    """What the head sees of left-aligned or packed rows, at places of all tokens but the last."""
    if inner.segment is None and trains_fused(model):
        states, position = packed_states(model, inner.ids, inner.attention.bool())
        return states[position[:, :-1][at]]
    return trunk(model, inner)[:, :-1][at]


@torch.no_grad()
def head_squares(
    model: nn.Module, batch: Tokens, temperature: float = 1.0, block: int | None = None
) -> Float[Tensor, "B"] | None:
    """|G_i|^2 of each row, G_i the gradient of the log-prob of its scored tokens with respect to
    the head's matrix: sum over s, t of (v_s . v_t) (h_s . h_t), v = one-hot of the token less the
    probabilities, h the hidden state. None where the head is no linear layer.

    Of probabilities, as many are held at a time as `block` allows.
    """
    head = head_of(model)
    if head is None or head.softcap:
        return None
    block = block or BLOCK.get(batch.ids.device.type, BLOCK["cpu"])
    inner, _ = aligned(batch)
    scored = inner.scored.bool()
    scored = torch.cat([torch.zeros_like(scored[:, :1]), scored[:, 1:]], 1)
    at = scored[:, 1:].nonzero(as_tuple=True)
    action, hidden = inner.ids[:, 1:][at], _states(model, inner, at)
    scale = head.scale / temperature
    weight, bias = head.weight.to(hidden.dtype), head.bias
    bias = None if bias is None else bias.to(hidden.dtype)
    lse = readout(hidden, Head(weight, bias, scale), action, (), block).lse
    out = torch.zeros(len(batch.ids), device=hidden.device)
    for i, rows in enumerate(torch.arange(len(action), device=hidden.device).split(
            scored.sum(-1).tolist())):  # fmt: skip
        h, a = hidden[rows].float(), action[rows]
        alike = torch.zeros(len(rows), len(rows), device=h.device)
        columns = max(1, block // max(len(rows), 1))
        for first in range(0, len(weight), columns):
            piece = weight[first : first + columns]
            shift = None if bias is None else bias[first : first + columns]
            v = -(_logits(hidden[rows], piece, shift, scale, 0.0) - lse[rows, None]).exp()
            here = (a >= first) & (a < first + columns)
            v[here, a[here] - first] += 1
            alike += v @ v.t()
        out[i] = scale**2 * (alike * (h @ h.t())).sum()
    return out


def packed(tokens: Tokens) -> tuple[Tokens, Tensor]:
    """The same sequences, several to a row where they fit into the width of the longest, and the
    flat place [B, L] of each token there (-1 at padding)."""
    real = tokens.attention > 0
    lengths, device = real.sum(-1), real.device
    width = max(int(lengths.max()), 1)
    room: list[int] = []  # left in each row
    start = torch.zeros_like(lengths)
    for i in lengths.argsort(descending=True).tolist():
        size = int(lengths[i])
        row = next((r for r, left in enumerate(room) if left >= size), len(room))
        if row == len(room):
            room.append(width)
        start[i] = row * width + width - room[row]
        room[row] -= size
    order = real.long().cumsum(-1) - 1
    place = torch.where(real, start[:, None] + order, -1)
    shape = (len(room), width)
    ids, scored = (torch.zeros(shape, dtype=x.dtype, device=device)
                   for x in (tokens.ids, tokens.scored))  # fmt: skip
    segment = torch.full(shape, -1, device=device)
    ids.view(-1)[place[real]] = tokens.ids[real]
    scored.view(-1)[place[real]] = tokens.scored[real]
    number = torch.arange(len(real), device=device)[:, None].expand(real.shape)
    segment.view(-1)[place[real]] = number[real]
    return Tokens(ids, (segment >= 0).long(), scored, segment), place


def unpacked(stats: TokenStats, place: Tensor) -> TokenStats:
    """Numbers of packed tokens where the tokens came from, 0 elsewhere."""

    def back(value: Tensor) -> Tensor:
        return torch.where(place >= 0, value.flatten()[place.clamp_min(0)], 0.0)

    return TokenStats(back(stats.logp), {k: back(v) for k, v in stats.statistics.items()})


def unaligned(value: Float[Tensor, "B M"], place: Tensor, batch: Tokens) -> Float[Tensor, "B L"]:
    """Numbers of left-aligned tokens at the places where the tokens came from, 0 elsewhere."""
    # Places past the end of a short row repeat its last one; only the first of them counts.
    first = place.diff(dim=1, prepend=place[:, :1] - 1) > 0
    value = torch.where(first, value, torch.zeros_like(value))
    return value.new_zeros(batch.ids.shape).scatter_add(1, place, value)


def trunk(model: nn.Module, tokens: Tokens) -> Tensor:
    """The last hidden states [B, L, H] of left-aligned or packed rows."""
    return decoder_of(model)(input_ids=tokens.ids, **_arguments(tokens)).last_hidden_state


def trains_fused(model: nn.Module) -> bool:
    """Whether `packed_states` computes a model's trunk: a known shape, small, in float32 as it
    is."""
    saving = getattr(model, "is_activation_checkpointing", None)  # its name since transformers 5
    if saving is None:
        saving = getattr(model, "is_gradient_checkpointing", False)
    first = next(model.parameters())
    plain = first.dtype == torch.float32 and not torch.is_autocast_enabled(first.device.type)
    return plain and not saving and fits(model)


def _arguments(tokens: Tokens) -> dict[str, Any]:
    if tokens.segment is None:
        return {"use_cache": False}
    seen = tokens.segment[:, :, None] == tokens.segment[:, None, :]
    seen &= torch.ones(seen.shape[1:], dtype=torch.bool, device=seen.device).tril()
    position = _positions(tokens.segment)
    if tokens.follows is not None:
        column = torch.arange(seen.shape[1], device=seen.device)
        stem = (tokens.segment == 0)[:, None] & (column < tokens.follows[:, :, None])
        seen, position = seen | stem, position + tokens.follows
    return {
        "use_cache": False,
        "position_ids": position,
        "attention_mask": seen[:, None],
    }


def _positions(segment: Tensor) -> Tensor:
    place = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
    new = torch.cat([torch.ones_like(segment[:, :1]), segment.diff(dim=1).ne(0).long()], 1)
    return place - torch.where(new > 0, place, torch.zeros_like(place)).cummax(1).values


# --------------------------------------------------------------------------------- the model's head

_HEADS: weakref.WeakKeyDictionary[nn.Module, tuple[float, float] | None] = (
    weakref.WeakKeyDictionary()
)


def base_of(model: nn.Module) -> nn.Module:
    """The transformers model inside its adapters."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model  # type: ignore[return-value]


def decoder_of(model: nn.Module) -> nn.Module:
    """The trunk of a causal language model: what gives hidden states."""
    return base_of(model).get_decoder()  # type: ignore[operator]


def head_of(model: nn.Module) -> Head | None:
    """The head, or None where it is more than a linear layer with scale and soft cap.

    That it is what it seems is checked once against the model's own logits.
    """
    base = base_of(model)
    layer = base.get_output_embeddings()  # type: ignore[operator]
    if type(layer) is not nn.Linear:
        return None
    if base not in _HEADS:
        _HEADS[base] = _checked(base, layer)
    known = _HEADS[base]
    return None if known is None else Head(layer.weight, layer.bias, *known)


def _checked(base: nn.Module, layer: nn.Linear) -> tuple[float, float] | None:
    config: Any = base.config
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
    with torch.no_grad():
        ids = torch.arange(4, device=layer.weight.device)[None] % layer.weight.shape[0]
        theirs = base(input_ids=ids, use_cache=False).logits.float()
        states = decoder_of(base)(input_ids=ids, use_cache=False).last_hidden_state
        ours = _capped(layer(states).float() * scale, softcap)
    size = theirs.abs().max().clamp_min(1.0)
    close = 1e-4 if layer.weight.dtype == torch.float32 else 2e-2
    return (scale, softcap) if bool(((ours - theirs).abs().max() / size) < close) else None
