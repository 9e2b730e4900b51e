"""Sampling by an engine of its own: vLLM, where it is installed and there is a GPU.

The engine holds a copy of the weights in its own layout; they are handed over before every batch of
answers. Its log-probs are those of its own kernels, so they are not taken for the policy's own:
trust is centered on a forward pass of the policy.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from surpass.data.records import Sequences
from surpass.errors import InputError

__all__ = ["Vllm", "open_sampler"]


def open_sampler(name: str, policy: Any) -> Vllm:
    """A sampler by its name.

    Raises:
        InputError: on an unknown name, without a GPU, with adapters, or where vLLM is missing.
    """
    if name != "vllm":
        raise InputError(f"sampler={name!r}: own or vllm")
    if not torch.cuda.is_available():
        raise InputError("sampler='vllm' needs a GPU, and there is none; leave it out")
    if policy.adapted or policy.sharded is not None:
        raise InputError("sampler='vllm' takes a whole model without adapters; leave it out")
    try:
        package = importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        raise InputError("sampler='vllm': vllm is not installed; pip install vllm") from error
    return Vllm(package, policy)


class Vllm:
    """An engine beside the model that is trained, on the same device.

    Args:
        vllm: the package.
        policy: the language policy whose weights it takes over.
        memory: the share of the device's memory that it may use.
    """

    def __init__(self, vllm: Any, policy: Any, memory: float = 0.3) -> None:
        self.vllm = vllm
        with tempfile.TemporaryDirectory() as folder:
            policy.write(Path(folder))
            self.engine = vllm.LLM(
                model=folder, skip_tokenizer_init=True, gpu_memory_utilization=memory,
                max_model_len=min(policy.context, 1 << 15), enable_sleep_mode=False,
            )  # fmt: skip

    def hand_over(self, policy: Any) -> None:
        """The weights as they are now."""
        weights = [(n, p.detach()) for n, p in policy.model.state_dict().items()]
        self.engine.apply_model(lambda model: model.load_weights(weights))

    def answers(
        self, policy: Any, prompt: Tensor, prompt_mask: Tensor, sampling: Any, group: int,
        generator: torch.Generator | None,
    ) -> Sequences:  # fmt: skip
        """As `generation.generate`: `group` answers in a row to each prompt."""
        self.hand_over(policy)
        eos = policy.eos if sampling.eos is None else sampling.eos
        seed = torch.randint(1 << 31, (1,), generator=generator, device=prompt.device)
        temperature = policy.temperature if sampling.temperature is None else sampling.temperature
        asked = self.vllm.SamplingParams(
            n=group, temperature=temperature, max_tokens=sampling.new, logprobs=0, seed=int(seed),
            stop_token_ids=[] if eos is None or eos < 0 else [eos], detokenize=False,
        )  # fmt: skip
        if sampling.stop:
            raise InputError("stop strings are not handed to vLLM here; sample with sampler='own'")
        ids = [{"prompt_token_ids": row[own > 0].tolist()}
               for row, own in zip(prompt, prompt_mask, strict=True)]  # fmt: skip
        found = [o for out in self.engine.generate(ids, asked, use_tqdm=False) for o in out.outputs]
        width = max(len(o.token_ids) for o in found)
        action = torch.zeros(len(found), width, dtype=torch.long)
        mask, logp = torch.zeros(len(found), width), torch.zeros(len(found), width)
        for i, out in enumerate(found):
            n = len(out.token_ids)
            action[i, :n] = torch.tensor(list(out.token_ids))
            mask[i, :n] = 1.0
            pairs = zip(out.logprobs, out.token_ids, strict=True)
            logp[i, :n] = torch.tensor([step[token].logprob for step, token in pairs])
        device = prompt.device
        return Sequences(
            action=action.to(device), mask=mask.to(device), behavior_logp=logp.to(device),
            prompt=prompt.repeat_interleave(group, 0),
            prompt_mask=prompt_mask.repeat_interleave(group, 0).float(),
            group=torch.arange(len(prompt), device=device).repeat_interleave(group),
            batch_size=[len(found)],  # pyright: ignore[reportCallIssue]
        )  # fmt: skip
