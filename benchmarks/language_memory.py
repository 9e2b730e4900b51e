"""Memory and time of DPO with a large vocabulary beside TRL 1.16: 151,936 tokens, hidden size 256,
4 layers, tied embeddings, 4 pairs a step of about 240 tokens a side.

Peak memory is the peak of the resident set of a process that does nothing else. Ours is measured at
once, twice and four times the tokens, to show what grows. `busy` is processor time, which other
work on the machine lengthens little. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from language_peer import make_folder, step

SHAPE = {
    "vocab_size": 151_936, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}  # fmt: skip


def measured(side: str, length: int, steps: int, threads: int) -> dict[str, Any]:
    """Median time of a step and peak memory, at a number of tokens per side."""
    with tempfile.TemporaryDirectory() as name:
        make_folder(Path(name), SHAPE, pairs=32, length=(length - 16, length))
        out = step(side, "dpo", Path(name), steps, 4, threads, warm=1)
    out = {
        "seconds": round(median(out["seconds"]), 2), "busy": round(median(out["busy"]), 2),
        "peak_mb": round(out["peak_mb"]),
    }  # fmt: skip
    print(f"{side}, {length} tokens a side: {out}", flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    rounds = []
    for _ in range(asked.rounds):
        both = {s: measured(s, 232, asked.steps, asked.threads) for s in ("ours", "trl")}
        rounds.append(both)
    more = {f"{n}x": measured("ours", 232 * n, 2, asked.threads) for n in (2, 4)}
    result = {
        "benchmark": "language_memory",
        "peak_ratio": round(median(r["ours"]["peak_mb"] / r["trl"]["peak_mb"] for r in rounds), 3),
        "time_ratio": round(median(r["ours"]["seconds"] / r["trl"]["seconds"] for r in rounds), 3),
        "busy_ratio": round(median(r["ours"]["busy"] / r["trl"]["busy"] for r in rounds), 3),
        "ours": rounds[0]["ours"], "trl": rounds[0]["trl"], "ours_with_more_tokens": more,
        "logits_mb_at_1x": round(8 * 244 * 151_936 * 4 / 2**20),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
