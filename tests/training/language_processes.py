"""What two processes (or one) train, for `test_module_processes.py`; run by torchrun."""

import sys
from pathlib import Path

import torch
import transformers

from surpass.methods.preference.pairs import dpo, ipo
from surpass.methods.rlvr.policy_gradients import dapo, ppo_lm
from surpass.policies.sharding import leave
from surpass.tasks.language import ModSum
from surpass.training.module_run import train_language

SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 15,
    "eos_token_id": 14, "bos_token_id": 13, "vocab_size": 18,
}  # fmt: skip


def model(kind="Llama"):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SIZES)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def rows(n=12):
    g = torch.Generator().manual_seed(1)

    def ids(length):
        return torch.randint(0, 12, (length,), generator=g).tolist()

    return [
        {"prompt": ids(3 + i % 3), "chosen": ids(2 + i % 4), "rejected": ids(5 - i % 3)}
        for i in range(n)
    ]


def fixed(out: Path) -> None:
    """Recipes on logs: what they come to does not depend on the number of processes."""
    named = {"log_every": 1, "seed": 5}
    train_language(dpo(lr=1e-2, batch=6), rows(), model=model(), steps=5, out=out / "dpo", **named)
    # In pieces, one layer at a time, stopped and carried on.
    for steps, resume in ((2, False), (4, True)):
        train_language(ipo(lr=1e-2, batch=6), rows(), model=model("Granite"), steps=steps,
                       out=out / "ipo", piece=4, resume=resume, **named)  # fmt: skip


def sampled(out: Path) -> None:
    """Recipes that sample: each process answers prompts of its own."""
    named = {"log_every": 1, "seed": 5, "task": ModSum(), "steps": 2}
    train_language(dapo(lr=1e-2, batch=16, group=4, horizon=4, minibatches=2), model=model(),
                   out=out / "dapo", **named)  # fmt: skip
    train_language(ppo_lm(lr=1e-2, batch=8, horizon=4, epochs=1), model=model(), out=out / "ppo",
                   **named)  # fmt: skip


if __name__ == "__main__":
    fixed(Path(sys.argv[1]))
    sampled(Path(sys.argv[1]))
    leave()
