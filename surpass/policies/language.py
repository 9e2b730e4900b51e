"""A causal language model as a policy: its decisions are tokens, its observation is the prefix.

It scores `Sequences` whose `prompt` [B, P] is the observation and whose `action` [B, T] are the
tokens that follow; those with mask 0 between decisions (a tool's answer, a user's turn) are seen
and not scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surpass.data.records import Sequences
from surpass.errors import InputError, atomic_dir, extra
from surpass.objectives.divergence import entropy
from surpass.objectives.views import Steps
from surpass.policies.sharding import Sharded, rank, whole_of
from surpass.policies.token_logps import (
    Tokens,
    TokenStats,
    base_of,
    packed,
    token_logps,
    trains_fused,
    unpacked,
)

__all__ = ["LanguagePolicy", "attended", "load_model", "tokens_of", "without_bars"]


def attended(seq: Sequences) -> Float[Tensor, "B T"]:
    """1 up to each row's last decision: what stands between decisions is seen, what stands after
    the last is padding."""
    return (seq.mask.flip(-1).cumsum(-1).flip(-1) > 0).to(torch.int64)


def tokens_of(seq: Sequences) -> Tokens:
    """Prompt and answer of each row, as the model sees them."""
    seen = attended(seq)
    if seq.prompt is None:
        return Tokens(seq.action, seen, seq.mask > 0)
    before = torch.ones_like(seq.prompt) if seq.prompt_mask is None else seq.prompt_mask.long()
    return Tokens(
        torch.cat([seq.prompt, seq.action], 1),
        torch.cat([before, seen], 1),
        torch.cat([torch.zeros_like(before), (seq.mask > 0).long()], 1).bool(),
    )


class LanguagePolicy:
    """A model of transformers (bare or with adapters), its tokenizer, and the temperature at which
    it acts.

    Args:
        model: a causal language model.
        tokenizer: of transformers; None where data are token ids already.
        temperature: of sampling, and of the log-probs that training sees.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None, temperature: float = 1.0) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.sharded: Sharded | None = None
        self.packing = False
        self.begun = False  # trained by an earlier stage: the base of its adapters is not its start
        self.precision: torch.dtype | None = None
        self.sampler: Any = None
        self._whole = 0
        check_pair(model, tokenizer)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return int(base_of(self.model).config.vocab_size)  # type: ignore[union-attr, arg-type]

    @property
    def context(self) -> int:
        """How many tokens the model can see."""
        config: Any = base_of(self.model).config
        return int(getattr(config, "max_position_embeddings", None) or 1 << 30)

    @property
    def eos(self) -> int | None:
        """The token that ends an answer."""
        found = getattr(self.tokenizer, "eos_token_id", None)
        if found is None:
            found = getattr(base_of(self.model).config, "eos_token_id", None)
        return found[0] if isinstance(found, list | tuple) else found

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def adapted(self) -> bool:
        """Whether adapters stand on a frozen base model, the reference for free if they are new."""
        return hasattr(self.model, "disable_adapter")

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The base model alone."""
        with self.model.disable_adapter():  # type: ignore[operator]
            yield

    def shard(self) -> None:
        """Spread the model over all processes."""
        self.sharded = Sharded(self.model)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """The weights whole, to be read without gradients, where they are spread over processes."""
        if self.sharded is None or self._whole:
            yield
            return
        with self.sharded.gathered():
            self._whole += 1
            try:
                yield
            finally:
                self._whole -= 1

    def score(self, seq: Sequences, needs: tuple[Any, ...] = ()) -> TokenStats:
        """Log-probs and statistics of the answers, [B, T]."""
        prompt = 0 if seq.prompt is None else seq.prompt.shape[1]
        asked: tuple[Any, ...] = tuple(n for n in needs if callable(n))
        tokens, place = tokens_of(seq), None
        if self.packing and not trains_fused(self.model):
            tokens, place = packed(tokens)
        with self.precise():
            stats = self._scored(tokens, asked)
        if place is not None:
            stats = unpacked(stats, place)
        return TokenStats(
            stats.logp[:, prompt:], {k: v[:, prompt:] for k, v in stats.statistics.items()}
        )

    def _scored(self, tokens: Tokens, needs: tuple[Any, ...]) -> TokenStats:
        if self.sharded is not None and torch.is_grad_enabled():
            return self.sharded.score(tokens, needs, self.temperature)
        with self.gathered():
            return token_logps(self.model, tokens, needs=needs, temperature=self.temperature)

    def precise(self) -> Any:
        """The precision that products are computed in."""
        kind = self.device.type
        return torch.autocast(kind, self.precision, enabled=self.precision is not None)

    def steps(self, record: Sequences, needs: tuple[Any, ...] = ()) -> Steps:
        """What losses see of a record under this policy."""
        return steps_of(record, self.score(record, needs))

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write weights (safetensors), configuration and tokenizer to a folder, whole or not at
        all; of several processes the first writes, and all have to call it."""
        weights = self.weights() if self.sharded is not None else None
        if rank() == 0:
            with atomic_dir(path, overwrite=overwrite) as folder:
                self.write(folder, weights)

    def weights(self) -> dict[str, Tensor]:
        """The state of the model, whole."""
        state = self.model.state_dict()
        return {name: whole_of(value) for name, value in state.items()}

    def write(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write into a folder that is there already."""
        named: Any = {} if weights is None else {"state_dict": weights}
        self.model.save_pretrained(folder, **named)  # type: ignore[operator]
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        about = {"temperature": self.temperature, "kind": "language"}
        (folder / "surpass.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> LanguagePolicy:
        """The policy that `save` wrote, or any local model folder."""
        model, tokenizer = load_model(path, **options)
        return cls(model, tokenizer, temperature_of(path))


def temperature_of(path: str | Path) -> float:
    """The temperature of the policy that a folder holds; 1 for a folder that `save` did not
    write."""
    note = Path(path) / "surpass.json"
    about = json.loads(note.read_text()) if note.exists() else {}
    return about.get("temperature", 1.0)


def steps_of(seq: Sequences, stats: TokenStats, **columns: Any) -> Steps:
    """A record and its log-probs as `Steps`."""
    extras = dict(stats.statistics)
    if seq.extras is not None:
        extras |= {k: v for k, v in seq.extras.items() if isinstance(v, Tensor)}  # type: ignore[union-attr]
    ref = columns.pop("ref_logp", extras.pop("ref_logp", None))
    return Steps(
        logp=stats.logp, mask=seq.mask, behavior_logp=seq.behavior_logp, ref_logp=ref,
        turn=seq.turn, group=seq.group, source=seq.source,
        entropy=stats.statistics.get(entropy.__name__), extras=extras, **columns,
    )  # fmt: skip


def chosen_precision(name: str, device: torch.device) -> torch.dtype | None:
    """None for full precision, or bfloat16; "auto" takes it on a GPU that has it.

    Raises:
        InputError: on another name, or where the GPU does not have it.
    """
    if name not in ("auto", "fp32", "bf16"):
        raise InputError(f"precision={name!r}: fp32, bf16 or auto")
    has = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if name == "bf16" and device.type == "cuda" and not has:
        raise InputError("this GPU does not compute in bfloat16; give precision='fp32'")
    return torch.bfloat16 if name == "bf16" or (name == "auto" and has) else None


def without_bars() -> None:
    """No progress bars of transformers from here on: the command line has its own."""
    extra("transformers").utils.logging.disable_progress_bar()


def check_pair(model: nn.Module, tokenizer: Any) -> None:
    """That a model knows every token of its tokenizer.

    Raises:
        InputError: when the tokenizer has more tokens than the model.
    """
    if tokenizer is None:
        return
    size = int(base_of(model).config.vocab_size)  # type: ignore[union-attr, arg-type]
    if len(tokenizer) > size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens but the model knows {size}: they do not "
            "belong together; give the tokenizer that the model was trained with"
        )


def load_model(
    model: Any, tokenizer: Any = None, *, lora: Any = None, dtype: Any = None,
    device: str | None = None, checkpointing: bool = False,
) -> tuple[nn.Module, Any]:  # fmt: skip
    """A model and its tokenizer, from a folder or as given.

    Args:
        model: a folder, or a causal language model of transformers.
        tokenizer: a folder or a tokenizer; None takes the model folder's, where it has one.
        lora: None, a rank, or a PEFT configuration.
        dtype: such as torch.bfloat16; None keeps the stored one, in float32 on a CPU.
        checkpointing: compute activations again in the backward pass.

    Raises:
        InputError: when the folder holds no causal language model, or an adapter of another one, or
            the rank is none.
    """
    if isinstance(lora, int) and lora < 1:
        raise InputError(f"--lora is {lora}; give a rank of at least 1")
    transformers = extra("transformers")
    place = Path(model) if isinstance(model, str | Path) else None
    loaded: Any = model
    if place is not None:
        if not place.exists():
            raise InputError(f"--model {place}: no such folder; give a local model folder")
        kind = torch.float32 if dtype is None and not torch.cuda.is_available() else dtype
        loaded = _from_folder(place, kind)
        if tokenizer is None and _has_tokenizer(place):
            tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    elif dtype is not None:
        loaded = loaded.to(dtype)
    if isinstance(tokenizer, str | Path):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer)
    if lora is not None and not hasattr(loaded, "disable_adapter"):
        peft = extra("peft")
        config = lora if not isinstance(lora, int) else peft.LoraConfig(
            r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type="CAUSAL_LM"
        )  # fmt: skip
        loaded = peft.get_peft_model(loaded, config)
    if checkpointing:
        loaded.gradient_checkpointing_enable({"use_reentrant": False})
        loaded.enable_input_require_grads()
    if device is not None:
        loaded = loaded.to(device)
    return loaded, tokenizer


def _has_tokenizer(place: Path) -> bool:
    return any((place / n).exists() for n in ("tokenizer.json", "tokenizer_config.json"))


def _from_folder(place: Path, dtype: Any) -> nn.Module:
    transformers = extra("transformers")
    try:
        if (place / "adapter_config.json").exists():
            peft = extra("peft")
            return peft.AutoPeftModelForCausalLM.from_pretrained(
                place, is_trainable=True, dtype=dtype
            )
        return transformers.AutoModelForCausalLM.from_pretrained(place, dtype=dtype or "auto")
    except (OSError, ValueError, KeyError) as error:
        line = (str(error).splitlines() or [""])[0]
        raise InputError(f"--model {place} is not a causal language model: {line}") from error
