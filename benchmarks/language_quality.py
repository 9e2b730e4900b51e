"""What training comes to on the toy testbed `modsum-lm`, with the zoo's sloppy reference.

GRPO: how long until 0.9 of the answers to held-out prompts are right (ours; one seed a time, two
threads). DPO: accuracy after the same pairs, updates, batches, learning rate and schedule as TRL
1.16 in its own environment; the rate is the better of three for TRL on a seed of its own, so that
the comparison leans to neither. Results are kept in a file as they come, so a run that was stopped
goes on. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from language_peer import PEER
from peers import peer

PAIRS, STEPS, BATCH, BETA = 4096, 256, 64, 0.1
RATES = (1e-4, 3e-4, 1e-3)


def reference() -> Any:
    from surpass.zoo.shelf import Zoo

    return Zoo(lambda line: print(line, file=sys.stderr))("modsum-reference")


def right(policy: Any, task: Any, seed: int = 12345) -> float:
    """Accuracy on 512 held-out prompts, 4 samples each."""
    from surpass.zoo.language import accuracy

    return accuracy(policy, task, each=4, seed=seed)


def grpo(seed: int, bar: float = 0.9, seconds: float = 300.0) -> dict[str, float]:
    """Seconds of training until the bar; measuring is not counted."""
    import surpass
    from surpass.training.module_run import open_stream
    from surpass.training.modules import ModuleTrainer

    bed = reference()
    form = surpass.grpo(beta=0.0, group=8, batch=256, horizon=bed.task.response_length, lr=1e-3)
    stream = open_stream(form, bed.policy, None, task=bed.task, seed=seed)
    trainer = ModuleTrainer(form, bed.policy, stream, seed=seed)
    spent, reached, start = 0.0, 0.0, right(bed.policy, bed.task)
    while spent < seconds and reached <= bar:
        begun = time.perf_counter()
        for _ in range(20):
            trainer.update()
        spent += time.perf_counter() - begun
        reached = right(bed.policy, bed.task)
    return {"start": start, "reached": reached, "seconds": spent, "updates": trainer.step}


def make_pairs(seed: int, count: int = PAIRS) -> list[dict[str, str]]:
    """A right and a wrong answer of the reference to each of `count` prompts, as text."""
    import torch

    from surpass.policies.generation import Sampling, generate

    bed, generator, rows = reference(), torch.Generator().manual_seed(seed), []
    words = bed.task.vocabulary
    while len(rows) < count:
        asked = bed.task.prompts(256, generator)
        sampling = Sampling(new=bed.task.response_length)
        seq = generate(bed.policy, asked.tokens, asked.mask, sampling, group=8, generator=generator)
        filled = torch.where(seq.mask > 0, seq.action, words.pad)
        score = bed.task.verify(seq.prompt, filled, seq.mask).view(-1, 8)
        for i in range(256):
            good, bad = score[i].argmax(), score[i].argmin()
            if score[i, good] > score[i, bad]:
                texts = [words.decode(filled[8 * i + int(j)]) for j in (good, bad)]
                if all(texts):
                    rows.append({"prompt": words.decode(asked.tokens[i]), "chosen": texts[0],
                                 "rejected": texts[1]})  # fmt: skip
    return rows[:count]


def dpo_ours(rows: list[dict[str, str]], lr: float, seed: int) -> float:
    import surpass
    from surpass.parts import linear

    bed = reference()
    form = surpass.dpo(beta=BETA, lr=linear(lr, 0.0, steps=STEPS), batch=BATCH)
    policy = surpass.train(form, rows, model=bed.policy, steps=STEPS, seed=seed)
    return right(policy, bed.task)


def dpo_trl(rows: list[dict[str, str]], lr: float, seed: int) -> float:
    from surpass.policies.language import LanguagePolicy

    bed = reference()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bed.policy.save(folder / "model")
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        code = [__file__, "--worker", str(folder), str(lr), str(seed)]
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run([peer(*PEER), *code], env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"TRL failed:\n{done.stderr[-3000:]}")
        return right(LanguagePolicy.load(folder / "trained"), bed.task)


def worker(folder: Path, lr: float, seed: int) -> None:
    """TRL's side, in its own environment."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportMissingImports]

    lines = (folder / "rows.jsonl").read_text().splitlines()
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    config = DPOConfig(
        output_dir=str(folder / "out"), per_device_train_batch_size=BATCH, max_steps=STEPS,
        learning_rate=lr, beta=BETA, lr_scheduler_type="linear", warmup_steps=0, max_grad_norm=1.0,
        weight_decay=0.0, use_cpu=True, bf16=False, gradient_checkpointing=False, seed=seed,
        report_to="none", save_strategy="no", disable_tqdm=True, max_length=None,
    )  # fmt: skip
    trainer = DPOTrainer(model, args=config, train_dataset=Dataset.from_list(
        [json.loads(line) for line in lines]), processing_class=tokenizer)  # fmt: skip
    trainer.train()
    model.save_pretrained(folder / "trained")


class Kept:
    """Results as they come, by name, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.found: dict[str, Any] = dict(json.loads(line) for line in lines)

    def get(self, name: str, make: Any) -> Any:
        """A result; made, and written down, where it is not there yet."""
        if name not in self.found:
            self.found[name] = make()
            with self.path.open("a") as file:
                file.write(json.dumps([name, self.found[name]]) + "\n")
            print(f"{name}: {self.found[name]}", file=sys.stderr, flush=True)
        return self.found[name]


def interval(values: list[float]) -> list[float]:
    """Mean and 95 % t interval."""
    import numpy as np
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    mean = float(np.mean(values))
    return [round(v, 4) for v in (mean, mean - half, mean + half)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kept", type=Path, default=None, help="the file of results so far")
    parser.add_argument("--worker", nargs=3, default=None)
    asked = parser.parse_args()
    if asked.worker:
        worker(Path(asked.worker[0]), float(asked.worker[1]), int(asked.worker[2]))
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "surpass"
    kept = Kept(asked.kept or base / "language_quality.jsonl")
    start = kept.get("reference", lambda: right(reference().policy, reference().task))
    runs = [kept.get(f"grpo {s}", lambda s=s: grpo(s)) for s in range(asked.seeds)]
    made: dict[int, Any] = {}

    def rows(seed: int) -> Any:
        if seed not in made:
            made[seed] = make_pairs(1000 + seed)
        return copy.deepcopy(made[seed])

    tuned = {lr: kept.get(f"trl {lr:g} tuning", lambda lr=lr: dpo_trl(rows(99), lr, 99))
             for lr in RATES}  # fmt: skip
    lr = max(tuned, key=lambda r: tuned[r])
    sides = {"ours": dpo_ours, "trl": dpo_trl}
    found = {
        name: [kept.get(f"{name} {lr:g} {s}", lambda f=f, s=s: f(rows(s), lr, s))
               for s in range(asked.seeds)]
        for name, f in sides.items()
    }  # fmt: skip
    apart = [a - b for a, b in zip(found["ours"], found["trl"], strict=True)]
    print(json.dumps({
        "benchmark": "language_quality", "reference": round(start, 4),
        "grpo": {"seconds": [round(r["seconds"], 1) for r in runs],
                 "reached": [round(r["reached"], 4) for r in runs]},
        "dpo": {"lr": lr, "ours": interval(found["ours"]), "trl": interval(found["trl"]),
                "difference": interval(apart)},
    }))  # fmt: skip


if __name__ == "__main__":
    main()
