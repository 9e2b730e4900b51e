"""Speed of DPO and GRPO on a tiny language model beside TRL 1.16: the same Llama (0.9 M weights, 44
tokens), the same data, batches and precision, turn and turn about.

DPO: 32 pairs a step; the reference is charged to the steps. GRPO: 64 answers a step in groups of 8,
16 new tokens, generation and rewards included. The last line is one JSON object: medians over steps
and rounds, and the ratio of ours to theirs, so more than 1 is faster; `busy_ratio` is that of
processor time, which other work on the machine lengthens little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

from language_peer import WORDS, make_folder, step

SHAPE = {
    "vocab_size": len(WORDS), "hidden_size": 128, "intermediate_size": 400,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
BATCH = {"dpo": 32, "grpo": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {t: {"ours": [], "trl": []} for t in BATCH}
    busy: dict[str, dict[str, list[float]]] = {t: {"ours": [], "trl": []} for t in BATCH}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = make_folder(folder, SHAPE, pairs=1024, length=(8, 24))
        for number in range(asked.rounds):
            for task, batch in BATCH.items():
                for side in ("ours", "trl") if number % 2 == 0 else ("trl", "ours"):
                    out = step(side, task, folder, asked.steps, batch, asked.threads)
                    rate = batch / median(out["seconds"])
                    found[task][side].append(rate)
                    busy[task][side].append(median(out["busy"]))
                    print(f"round {number + 1}: {task} {side}: {rate:.0f} a second", flush=True)
    result = {
        task: {
            "ours_per_second": round(median(rates["ours"]), 1),
            "trl_per_second": round(median(rates["trl"]), 1),
            "ratio": round(median(
                o / t for o, t in zip(rates["ours"], rates["trl"], strict=True)), 2),
            "busy_ratio": round(median(
                t / o for o, t in zip(busy[task]["ours"], busy[task]["trl"], strict=True)), 2),
        }
        for task, rates in found.items()
    }  # fmt: skip
    print(json.dumps({"benchmark": "language_speed", "weights": weights, **result}))


if __name__ == "__main__":
    main()
