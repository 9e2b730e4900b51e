"""A trained reward model of answers as a reward: what `surpass.reward_model` gives, and its folder.

model = surpass.train("reward-model", "pairs.jsonl", model="my-model", out="run")
surpass.train("grpo", "prompts.jsonl", model="my-model", reward="run/policy")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from surpass.critics.verifiers import Answered
from surpass.data.language import collate
from surpass.errors import InputError, atomic_dir, extra
from surpass.policies.language import LanguagePolicy
from surpass.policies.token_logps import base_of
from surpass.policies.token_nets import RewardNet

__all__ = ["LearnedReward", "is_reward_folder"]

WEIGHTS, NOTE = "reward.safetensors", "surpass.json"


def is_reward_folder(path: str | Path) -> bool:
    """Whether a folder holds a reward model that `LearnedReward.save` wrote."""
    return (Path(path) / WEIGHTS).exists()


class LearnedReward:
    """r(x, y) of a trained scalar head, read at the last token.

    Args:
        net: the trunk with its head.
        policy: the model it was made of: its configuration and tokenizer.
        batch: answers that are judged at a time.
    """

    def __init__(self, net: RewardNet, policy: LanguagePolicy, batch: int = 64) -> None:
        self.net, self.batch = net.eval(), batch
        self.tokenizer, self.eos, self.context = policy.tokenizer, policy.eos, policy.context
        self.config: Any = base_of(policy.model).config
        self.failed = 0

    @torch.no_grad()
    def __call__(self, answers: Sequence[Answered]) -> Tensor:
        """One number per answer; what does not fit into the context is cut at its end.

        Raises:
            InputError: when the model came without a tokenizer, so that texts cannot be read.
        """
        if self.tokenizer is None:
            raise InputError("the reward model has no tokenizer; save one beside it")
        rows = [self._tokens(a) for a in answers]
        device, out = next(self.net.parameters()).device, []
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            seq = collate([p for p, _ in part], [a for _, a in part])
            out.append(self.net(seq.to(device)).cpu())
        return torch.cat(out) if out else torch.zeros(0)

    def _tokens(self, answer: Answered) -> tuple[list[int], list[int]]:
        prompt = list(self.tokenizer(answer.prompt).input_ids)
        said = list(self.tokenizer(answer.completion, add_special_tokens=False).input_ids)
        said = said if self.eos is None else [*said, self.eos]
        return prompt, said[: max(self.context - len(prompt), 1)]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write weights (safetensors), configuration and tokenizer, whole or not at all."""
        with atomic_dir(path, overwrite=overwrite) as folder:
            save_file({k: v.contiguous() for k, v in self.net.state_dict().items()},
                      folder / WEIGHTS)  # fmt: skip
            self.config.save_pretrained(folder)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(folder)
            (folder / NOTE).write_text(json.dumps({"kind": "reward"}), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> LearnedReward:
        """The reward model that `save` wrote.

        Raises:
            InputError: when the folder holds none, or a damaged one.
        """
        transformers = extra("transformers")
        place = Path(path)
        if not is_reward_folder(place):
            raise InputError(f"{path} holds no reward model; train one: surpass train reward-model")
        config = transformers.AutoConfig.from_pretrained(place)
        has = (place / "tokenizer_config.json").exists()
        tokenizer = transformers.AutoTokenizer.from_pretrained(place) if has else None
        policy = LanguagePolicy(transformers.AutoModelForCausalLM.from_config(config), tokenizer)
        net = RewardNet(policy)
        try:
            net.load_state_dict(load_file(place / WEIGHTS))
        except RuntimeError as error:
            raise InputError(f"{place / WEIGHTS} does not fit its configuration; train the reward "
                             "model again") from error  # fmt: skip
        return cls(net, policy)
