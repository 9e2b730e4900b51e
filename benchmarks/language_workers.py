"""One side of a language benchmark in a process of its own: `SIDE TASK FOLDER STEPS BATCH WARM`.

Both sides load the same model and tokenizer, read the same file, take the same batch sizes, and
train in float32 on a CPU. Prints one JSON object: seconds of every step after WARM for warming up
(on the wall, and of the processor, which other work on the machine does not lengthen), and the peak
of resident memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def rewarded(completions: list[str], **_: Any) -> list[float]:
    """The share of one letter, in [0, 1]."""
    return [c.count("a") / max(len(c), 1) for c in completions]


class Clock:
    """Time on the wall and processor time at the end of every step."""

    def __init__(self, warm: int) -> None:
        self.warm = warm
        self.ends: list[tuple[float, float]] = []

    def tick(self) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))

    def report(self, more: float = 0.0, busy: float = 0.0) -> dict[str, list[float]]:
        """Seconds of each step after the first ones, `more` and `busy` added to each."""
        pairs = list(zip(self.ends[self.warm - 1 :], self.ends[self.warm :], strict=False))
        return {
            "seconds": [b[0] - a[0] + more for a, b in pairs],
            "busy": [b[1] - a[1] + busy for a, b in pairs],
        }


def ours(task: str, folder: Path, steps: int, batch: int, warm: int) -> dict[str, Any]:
    import torch

    from surpass.methods.preference.pairs import dpo
    from surpass.methods.rlvr.policy_gradients import grpo
    from surpass.policies.language import LanguagePolicy, load_model
    from surpass.training.module_run import open_stream
    from surpass.training.modules import ModuleTrainer

    torch.manual_seed(0)
    form = (
        dpo(lr=1e-4, batch=batch)
        if task == "dpo"
        else grpo(beta=0.0, group=8, lr=1e-4, batch=batch, horizon=16)
    )
    policy = LanguagePolicy(*load_model(folder / "model"))
    stream = open_stream(form, policy, folder / f"{task}.jsonl", reward=rewarded,
                         steps=warm + steps)  # fmt: skip
    trainer = ModuleTrainer(form, policy, stream)
    reference = busy = 0.0
    if task == "dpo":  # what the stored reference costs belongs to the steps that use it
        rows = stream.coming()
        start, working = time.perf_counter(), time.process_time()
        trainer.store(("chosen", "rejected"), rows)
        reference = (time.perf_counter() - start) / len(rows) * batch
        busy = (time.process_time() - working) / len(rows) * batch
    clock = Clock(warm)
    for _ in range(warm + steps):
        trainer.update()
        clock.tick()
    return clock.report(reference, busy)


def theirs(task: str, folder: Path, steps: int, batch: int, warm: int) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    lines = (folder / f"{task}.jsonl").read_text().splitlines()
    rows = Dataset.from_list([json.loads(line) for line in lines])
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    clock = Clock(warm)
    shared: dict[str, Any] = {
        "output_dir": str(folder / "trl"), "per_device_train_batch_size": batch,
        "max_steps": warm + steps, "learning_rate": 1e-4, "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no",
        "disable_tqdm": True,
    }  # fmt: skip
    if task == "dpo":
        trainer: Any = DPOTrainer(
            model, args=DPOConfig(max_length=None, **shared), train_dataset=rows,
            processing_class=tokenizer, callbacks=[Watch()],
        )  # fmt: skip
    else:
        config = GRPOConfig(num_generations=8, max_completion_length=16, beta=0.0, **shared)
        trainer = GRPOTrainer(
            model, reward_funcs=rewarded, args=config, train_dataset=rows,
            processing_class=tokenizer, callbacks=[Watch()],
        )  # fmt: skip
    trainer.train()
    return clock.report()


def main() -> None:
    side, task, folder, steps, batch, warm = sys.argv[1:]
    run = ours if side == "ours" else theirs
    out = run(task, Path(folder), int(steps), int(batch), int(warm))
    out["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(out))


if __name__ == "__main__":
    main()
