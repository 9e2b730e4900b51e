"""Evidence on the ring bandit: narrow modes, where means and single Gaussians fall between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from surpass.evidence.declaration import Result, at_least, evidence
from surpass.forms import Learner, adam, ema, log, train
from surpass.methods.generative.guidance import cfgrl
from surpass.methods.generative.latent import dsrl, latent_sac
from surpass.methods.generative.selection import idql
from surpass.objectives.value import clone
from surpass.objectives.weights import exponential, over_value
from surpass.parts import cosine, set_at, stop
from surpass.policies.acting import InEnvironment, mean, sampled
from surpass.policies.flow import flow
from surpass.policies.gaussian import gaussian
from surpass.tasks.catalog import ControlTask
from surpass.tasks.ring import Ring
from surpass.training.run import train as fit

RING = Ring(6, 0.8, 0.1)


def _small(form: Any, net: str = "pi") -> Any:
    """Two residual blocks of twice the width."""
    return set_at(set_at(form, f"nets.{net}.blocks", 2), f"nets.{net}.expansion", 2)


def _measured(policy: Any, n: int = 300) -> tuple[float, float]:
    """Mean expected reward, and share of actions near a mode."""
    contexts = RING.contexts(n)
    action = policy.act(contexts).action
    return float(RING.worth(contexts, action).mean()), float(RING.supported(action).mean())


@evidence(
    "idql",
    claim="choosing among samples of a diffusion policy earns as much as the critic allows and "
    "stays on the behavior's modes, where Gaussians cloned by the same critic's weights do not",
    setting="ring bandit, 6 modes of deviation 0.1, 10,000 rows; cosine schedule of 20 steps, "
    "width 48, 1,600 updates",
    baseline="a Gaussian by advantage-weighted regression on the same critic, the better of "
    "temperatures 3 and 10, of its mean and its samples",
    metric="share of actions within three deviations of a mode",
    bar=at_least(0.2), seeds=10, minutes=3,
    note="On the ring it is 0.216 better than one policy, 0.196 to 0.235 where 0.2 is asked for;"
    " on another processor the same seeds gave 0.202 to 0.232. Everything else holds.",
)  # fmt: skip
def idql_evidence(seed: int, zoo: Any) -> Result:
    lr = cosine(2e-3, 1e-4, steps=1_600)
    form = _small(idql(tau=0.9, n=16, steps=20, lr=2e-3, smooth=0.01, polyak=0.02, width=48,
                       hidden=(48, 48)))  # fmt: skip
    form = set_at(form, "nets.pi.schedule", "cosine")
    heads = {f"gauss{t}": gaussian((48, 48)) for t in (3, 10)}
    advantage = over_value("q_target")
    steps = [
        train(f"gauss{t}", stop(exponential(advantage, float(t), 100.0)) * clone(f"gauss{t}"),
              adam(1e-3)) for t in (3, 10)
    ]  # fmt: skip
    update = (*form.update[:-1], replace(form.update[-1], optimizer=adam(lr)), *steps)
    form = replace(form, nets={**form.nets, **heads}, update=update)
    trained = fit(form, RING.log(10_000, seed), steps=1_600, seed=seed, compile=False)
    reward, support = _measured(trained.policy)
    others = [
        _measured(InEnvironment(act(name)(trained.nets, {}), trained.spaces))
        for name in heads for act in (mean, sampled)
    ]  # fmt: skip
    best = max(others, key=lambda pair: pair[0] + pair[1])
    return Result(support, best[1], {"reward": (reward, best[0], at_least(0.85, alone=True))})


@evidence(
    "cfgrl",
    claim="the reward rises with the guidance weight up to 3, well beyond cloning under the label",
    setting="ring bandit, 6 modes of deviation 0.1, 10,000 rows; a flow of 10 steps, width 48, "
    "1,500 updates, label from the learned advantage",
    baseline="the same net at weight 1, which clones what was better than expected",
    metric="expected reward at weight 3",
    bar=at_least(0.08), seeds=3, minutes=1,
)  # fmt: skip
def cfgrl_evidence(seed: int, zoo: Any) -> Result:
    form = _small(cfgrl(tau=0.5, null=0.5, steps=10, lr=2e-3, width=48, hidden=(48, 48), batch=256))
    trained = fit(form, RING.log(10_000, seed), steps=1_500, seed=seed, compile=False)
    found = {
        w: _measured(trained.policy.given(weight=w), 1_000) for w in (0.0, 1.0, 1.5, 3.0, 10.0)
    }
    reward = {w: pair[0] for w, pair in found.items()}
    return Result(
        reward[3.0], reward[1.0],
        {
            "reward, weight 1 over 0": (reward[1.0], reward[0.0], at_least(0.3)),
            "reward, weight 1.5 over 1": (reward[1.5], reward[1.0], at_least(-0.02)),
            "reward, weight 3 over 1.5": (reward[3.0], reward[1.5], at_least(-0.02)),
            "reward, weight 10 over 3": (reward[10.0], reward[3.0]),
            "support, weight 3 over 1": (found[3.0][1], found[1.0][1]),
        },
    )  # fmt: skip


def frozen_flow(seed: int, steps: int = 2_000) -> Any:
    """A flow that was cloned from the log, as the frozen policy of what steers it."""
    form = Learner(
        nets={"pi": flow(16, 48, 2, expansion=2), "pi_ema": ema("pi", 0.01)},
        update=(train("pi", clone(), adam(cosine(2e-3, 1e-4, steps=steps))),),
        act=sampled("pi_ema"), source=log(256),
    )  # fmt: skip
    trained = fit(form, RING.log(10_000, seed), steps=steps, seed=seed, compile=False)
    return trained.nets["pi_ema"], _measured(trained.policy)


UPDATES, WARM = 600, 512


def _steered(form: Any, base: Any, steps: int, seed: int) -> list[tuple[float, float]]:
    """Reward and support at thirds of the updates."""
    found: list[tuple[float, float]] = []
    task: Any = ControlTask("ring", "narrow modes on a circle", RING)
    fit(form, task=task, base=base, steps=steps, seed=seed, compile=False,
        log_every=UPDATES // 3, callback=lambda step, metrics, now: found.append(
            _measured(now.policy)))  # fmt: skip
    return found


@evidence(
    "dsrl",
    claim="steering a frozen flow by its noise comes within 0.06 of the best reward of its modes "
    "(0.955) and stays as near to them as the flow itself",
    setting="ring bandit, 6 modes of deviation 0.1; a frozen flow of 16 steps; 2,912 interactions",
    baseline="the frozen flow", metric="expected reward", bar=at_least(0.9, alone=True), seeds=5,
    minutes=4,
)  # fmt: skip
def dsrl_evidence(seed: int, zoo: Any) -> Result:
    """Also: SAC on the noise with as many interactions, and both after 1,312 of them."""
    base, before = frozen_flow(seed)
    hyper = {"envs": 32, "warm": WARM, "lr": 2e-3, "hidden": (48, 48), "batch": 128}
    ours = _steered(dsrl(per_step=0.25, distill=2, **hyper), base, WARM + 4 * UPDATES, seed)
    latent = _steered(latent_sac(per_step=0.25, **hyper), base, UPDATES, seed)
    return Result(
        ours[-1][0], before[0],
        {
            "support": (ours[-1][1], before[1], at_least(-0.03)),
            "reward beside SAC on the noise": (ours[-1][0], latent[-1][0]),
            "reward beside it, after a third": (ours[0][0], latent[0][0]),
            "support beside it": (ours[-1][1], latent[-1][1]),
        },
    )  # fmt: skip
