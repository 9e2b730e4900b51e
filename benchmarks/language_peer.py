"""What both language benchmarks need: the peer's environment, a model with tokenizer, and data."""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

from peers import peer

__all__ = ["make_folder", "step"]

PEER = ("trl-1.16", ("torch==2.13.0", "trl==1.16.0", "transformers==5.23.0"))
WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *string.ascii_lowercase, *string.digits, *"+-= "]


def make_folder(folder: Path, shape: dict[str, Any], pairs: int, length: tuple[int, int]) -> int:
    """A Llama of a shape with a tokenizer of one letter per token, and pairs and prompts of random
    letters; gives its number of weights."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        unk_token="<unk>",
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlamaConfig(pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape)
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    draw = random.Random(0)

    def text(low: int, high: int) -> str:
        return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(low, high)))

    rows = [{"prompt": text(8, 16), "chosen": text(*length), "rejected": text(*length)}
            for _ in range(pairs)]  # fmt: skip
    for name, kept in (("dpo", ("prompt", "chosen", "rejected")), ("grpo", ("prompt",))):
        lines = [json.dumps({k: r[k] for k in kept}) for r in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return sum(p.numel() for p in model.parameters())


def step(
    side: str, task: str, folder: Path, steps: int, batch: int, threads: int, warm: int = 3
) -> dict[str, Any]:
    """Some training steps of one side ("ours" or "trl") in a process of its own, after `warm` that
    are not timed."""
    python = Path(sys.executable) if side == "ours" else peer(*PEER)
    worker = Path(__file__).with_name("language_workers.py")
    found = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false",
             "HF_HUB_OFFLINE": "1", "MALLOC_ARENA_MAX": "2"}  # fmt: skip
    done = subprocess.run(
        [python, worker, side, task, folder, str(steps), str(batch), str(warm)], text=True,
        capture_output=True, env=found,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side} {task} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
