"""Open Bandit Pipeline's side of `ope_speed.py`, run by the Python of its own environment.

Reads the log from the folder given, then for each line "estimator resamples" on standard input
prints the seconds and the value: of `estimate_policy_value`, or of `estimate_interval` where
resamples > 0.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from obp.ope import (  # type: ignore[import-not-found]
    DoublyRobust,
    InverseProbabilityWeighting,
    SelfNormalizedInverseProbabilityWeighting,
)

ESTIMATORS = {
    "ips": InverseProbabilityWeighting(),
    "snips": SelfNormalizedInverseProbabilityWeighting(),
    "dr": DoublyRobust(),
}


def main() -> None:
    folder = Path(sys.argv[1])
    log = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    common = {
        "reward": log["reward"], "action": log["action"], "pscore": log["propensity"],
        "action_dist": log["target"][:, :, None],
    }  # fmt: skip
    model = {"estimated_rewards_by_reg_model": log["q"][:, :, None]}
    print("ready", flush=True)
    for line in sys.stdin:
        name, resamples = line.split()
        inputs = common | (model if name == "dr" else {})
        start = time.perf_counter()
        if int(resamples):
            found = ESTIMATORS[name].estimate_interval(
                **inputs, n_bootstrap_samples=int(resamples), random_state=1
            )
            value = found["mean"]
        else:
            value = ESTIMATORS[name].estimate_policy_value(**inputs)
        print(time.perf_counter() - start, value, flush=True)


if __name__ == "__main__":
    main()
