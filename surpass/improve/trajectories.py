"""The main job on episodes: learn on some, choose on others, test on the rest; and, with an
environment, play.

Of logged episodes only an unbiased score can promote: per-decision importance sampling with a value
baseline (`surpass.objectives.episode_gain`), with the behavior policy's probabilities known. What
rests on fitted Q evaluation, or on an estimated behavior policy, is HOLD with what it suggests.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from surpass.critics.fitted_values import fit_values
from surpass.data.records import Transitions
from surpass.data.statistics import episode_lengths, episode_returns, statistics
from surpass.errors import InputError
from surpass.evaluation.guarded import guarded_bounds, guarded_low, guarded_p
from surpass.improve import checks as look
from surpass.improve.decisions import versions
from surpass.improve.episode_agreement import beside
from surpass.improve.episode_candidates import (
    EpisodeCandidate,
    flat,
    learn,
    n_actions_of,
    recipes_for,
    tilts,
)
from surpass.improve.episode_report import episodes_needed, figures, usage
from surpass.improve.episodes import (
    GAMMA,
    Grid,
    ToGo,
    Weighed,
    horizon_of,
    split_episodes,
    step_range,
)
from surpass.improve.improvement import Improvement
from surpass.improve.on_policy import Confirmation, confirm, open_env
from surpass.improve.portfolios import portfolio_of
from surpass.improve.results import CandidateResult, Check, Estimate, Settlement, Verdict
from surpass.objectives.episode_gain import episode_gains
from surpass.policies.tilted import fit_multinomial

__all__ = ["improve_trajectories"]

Say = Callable[[str], None]


def improve_trajectories(
    log: Transitions,
    methods: str | Sequence[str] = "auto",
    *,
    env: str | None = None,
    reference: Any = None,
    accept_estimated_behavior: bool = False,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    reward_limits: tuple[float, float] | None = None,
    accept_observed_range: bool = False,
    episodes: int = 200,
    steps: int | None = None,
    name: str = "",
    say: Say = lambda _: None,
) -> Improvement:
    """From a log of episodes to a verdict on mean returns per episode (undiscounted).

    Args:
        log: steps. methods: recipes to learn with, or "auto"; "tilt" is always among them where
            actions are discrete.
        env: an environment (a task's name or a Gymnasium id) in which the chosen policy plays; then
            that decides. reference: a policy that acts (observations to actions); with `env` it
            plays the same seeds. Without it, logged episodes stand for it.
        accept_estimated_behavior: let a log without behavior log-probs promote; the report repeats
            the condition.
        level, margin, seed: of the verdict; the margin is in units of the return.
        reward_limits: lowest and highest reward of one step.
        accept_observed_range: let the observed range stand for it.
        episodes: played in the environment. steps: updates of each recipe; by default few on small
            logs (`episode_candidates.updates_for`).
        name: what the report calls the log. say: is told what happens.

    Raises:
        InputError: when the log, the environment or an option cannot be used.
    """
    run = _Run(
        log, methods, env, reference, accept_estimated_behavior, level, margin, seed,
        accept_observed_range, episodes, steps, name or log.about.name or "episodes", say,
    )  # fmt: skip
    return run.go(reward_limits)


@dataclass
class _Run:
    log: Transitions
    methods: str | Sequence[str]
    env: str | None
    reference: Any
    accept_estimated: bool
    level: float
    margin: float
    seed: int
    accept_observed: bool
    episodes: int
    steps: int | None
    name: str
    say: Say

    def go(self, stated: tuple[float, float] | None) -> Improvement:
        """Everything, in order."""
        started = clock.perf_counter()
        self._check()
        self.seconds: dict[str, float] = {}
        self.discrete = n_actions_of(self.log)
        task = open_env(self.env, self.log) if self.env else None
        self.range = step_range(self.log, stated, self.env)
        self.horizon = horizon_of(self.log, task)
        self.parts = split_episodes(self.log, self.seed)
        self.estimated = self.log.behavior_logp is None
        self._behavior()
        self.seconds["checks"] = clock.perf_counter() - started
        scored = self._learn()
        started = clock.perf_counter()
        best = self._choose(scored, task is not None)
        self.seconds["choosing and scoring"] = clock.perf_counter() - started
        started = clock.perf_counter()
        self.beside, self.why = beside(best.candidate, self.parts.judging, self.fitted, self.level)
        self.seconds["other estimators"] = clock.perf_counter() - started
        found = self._play(task, best) if task is not None else None
        self.best = best
        return self._told(scored, best, found)

    def _check(self) -> None:
        if not 0 < self.level < 0.5:
            raise InputError(f"--level is {self.level:g}; give a chance between 0 and 0.5")
        count = len(episode_lengths(self.log))
        if count < 20:
            raise InputError(
                f"the log has {count} episodes; at least 20 are needed to learn on some and judge "
                "by others"
            )
        if self.reference is not None and not self.env:
            raise InputError(
                "a given reference has to play against the candidate; add --env ID, or leave the "
                "reference out: then logged episodes stand for it"
            )

    # ------------------------------------------------------------------------------------------
    # learning and choosing

    def _behavior(self) -> None:
        """The fitted behavior policy of discrete actions: where log-probs are missing it stands for
        them, and everywhere it bounds the ratios that the baseline has to expect."""
        self.fitted = None
        if self.discrete:
            part = self.parts.learning
            self.fitted = fit_multinomial(flat(part.obs), part.action.long(), self.discrete)

    def _learn(self) -> list[Weighed]:
        started = clock.perf_counter()
        part, found = self.parts.learning, []
        keys = recipes_for(self.methods, bool(self.discrete))
        if self.discrete:
            self.say(f"tilting the behavior policy on {len(part.reward):,} steps")
            found += tilts(part, GAMMA)
        for key in keys:
            if key != "tilt":
                found.append(learn(key, part, steps=self.steps, seed=self.seed, say=self.say))
        self.seconds["learning"] = clock.perf_counter() - started
        started = clock.perf_counter()
        self.say("evaluating candidates on other episodes")
        base = _worth(self.parts.choosing, None, self.discrete)
        out = [
            Weighed(c, _worth(self.parts.choosing, c, self.discrete) - base)
            if c.key != "tilt" or c.params["c"] >= 0.5  # gentler ones lie in between
            else Weighed(c, float("-inf"))
            for c in found
        ]
        self.seconds["fitted Q evaluation"] = clock.perf_counter() - started
        return out

    def _choose(self, scored: list[Weighed], plays: bool) -> Weighed:
        """The candidate to test: without an environment the one whose gain the judging episodes can
        most likely prove, with one the best by fitted Q evaluation."""
        rows = len(episode_lengths(self.parts.judging))
        if self.discrete and self.fitted is not None:
            model = ToGo.fit(self.parts.learning, self._limits(), self.horizon)
            for s in scored:
                if s.candidate.probabilities is not None:
                    (s.choosing, _), _, s.chosen_ess = self._gains(
                        s.candidate, self.parts.choosing, model
                    )
                    up, down, s.ess = self._gains(s.candidate, self.parts.judging, model)
                    s.judging, s.floor = up
                    s.losses, s.losses_floor = down
        provable = [s for s in scored if s.choosing is not None]
        if provable and not plays:
            share = rows / len(episode_lengths(self.parts.choosing))
            enough = [s for s in provable if s.chosen_ess * share > 1.3 * look.LEAST_ESS]
            provable = enough or provable  # the rest would not pass the check of overlap
            return max(provable, key=lambda s: s.promise(rows))
        return max(scored, key=lambda s: s.worth)

    def _limits(self) -> tuple[float, float]:
        return self.range.lo, self.range.hi

    @torch.no_grad()
    def _gains(
        self, candidate: EpisodeCandidate, part: Transitions, model: ToGo
    ) -> tuple[tuple[Tensor, float], tuple[Tensor, float], float]:
        """Scores [E] of a part's episodes with their lower limit, as gains and as losses, and the
        effective number of episodes."""
        assert self.fitted is not None and candidate.probabilities is not None
        pi, mu = candidate.probabilities(part.obs).double(), self.fitted(flat(part.obs))
        action = part.action.long()[:, None]
        if part.behavior_logp is None:
            logged = mu.gather(1, action)[:, 0].clamp_min(1e-6)
        else:
            logged = part.behavior_logp.double().exp()
        ratio = pi.gather(1, action)[:, 0] / logged
        top = 1.0 + 2.0 * ((pi / mu.clamp_min(1e-6)).amax(-1) - 1.0)
        grid = Grid.of(part)
        ratios, tops = grid.spread(ratio, 1.0), grid.spread(top, 1.0)
        reward, value = grid.spread(part.reward), grid.spread(model.of(part))
        lo, hi = min(self.range.lo, 0.0), max(self.range.hi, 0.0)
        left = (hi - lo) * (self.horizon - torch.arange(reward.shape[1]).double())
        up = episode_gains(
            ratios, tops, reward, grid.mask, value, limits=(lo, hi), horizon=self.horizon
        )
        down = episode_gains(
            ratios, tops, -reward, grid.mask, left - value, limits=(-hi, -lo), horizon=self.horizon
        )
        whole = ratios.prod(1)
        return up, down, float(whole.sum() ** 2 / whole.square().sum().clamp_min(1e-300))

    # ------------------------------------------------------------------------------------------
    # verdict

    def _play(self, task: Any, best: Weighed) -> Confirmation:
        self.say(f"playing {best.candidate.label} in {self.env}")
        started = clock.perf_counter()
        against: Any = episode_returns(self.parts.judging)
        if self.reference is not None:
            against = _acting(self.reference)
        found = confirm(
            task, best.candidate.act, against, self._limits(), horizon=self.horizon,
            episodes=self.episodes, level=self.level, margin=self.margin, seed=self.seed,
        )  # fmt: skip
        self.seconds["playing"] = clock.perf_counter() - started
        return found

    def _told(
        self, scored: list[Weighed], best: Weighed, found: Confirmation | None
    ) -> Improvement:
        paid = episode_returns(self.log)
        phi = best.judging
        result = self._result(best, found, tested=found is not None or phi is not None)
        verdict, reason, checks = self._verdict(best, found, result)
        others = tuple(self._result(s, None) for s in scored if s is not best)
        bounds = self._return_bounds(found.against if found is not None and found.paired else paid)
        best_known = result if result.gain == result.gain else replace(result, gain=0.0)
        settle = None
        if verdict == "HOLD" and phi is not None and found is None:
            settle = episodes_needed(phi, best.floor, self.margin, paid, self.level)
        elif verdict == "HOLD":
            settle = Settlement(None, None, None, self._advice(found))
        return Improvement(
            verdict=verdict, reason=reason, log=self.name,
            reference=Estimate(bounds[0], bounds[1], bounds[2], "reference"),
            best=best_known, candidates=(result, *others), checks=checks,
            rows=len(self.log.reward), level=self.level, margin=self.margin, seed=self.seed,
            settlement=settle, diagnosis=self._diagnosis(scored, paid),
            assumptions=self._assumptions(found), versions=versions(), seconds=self.seconds,
            figures=figures(paid, scored, found, best), per="episode",
            reference_name="the policy that wrote the log" if self.reference is None else "given",
            hand_over=None if verdict == "REJECT" else best.candidate.save,
            usage=usage(best.candidate),
        )  # fmt: skip

    def _return_bounds(self, paid: Tensor) -> tuple[float, float, float]:
        low, high = min(self.range.lo, 0.0), max(self.range.hi, 0.0)
        found = guarded_bounds(paid.numpy(), low * self.horizon, high * self.horizon, self.level)
        return found.mean, found.low, found.high

    def _result(
        self, s: Weighed, found: Confirmation | None, tested: bool = False
    ) -> CandidateResult:
        paid = float(episode_returns(self.parts.judging).mean())
        c, params = s.candidate, dict(s.candidate.params)
        agree: list[Estimate] = []
        gain, low, high, p = float("nan"), float("nan"), float("nan"), None
        if s.judging is not None:
            assert s.losses is not None
            phi, losses = s.judging.numpy(), s.losses.numpy()
            gain = float(phi.mean())
            low = guarded_low(phi, lambda m: s.floor - m, self.level)
            high = max(gain, -guarded_low(losses, lambda m: s.losses_floor - m, self.level))
            p = guarded_p(s.judging.numpy() - self.margin, s.floor - self.margin)
        model = f"fitted Q evaluation, discount {GAMMA}"
        fqe = [] if s.worth == float("-inf") else [Estimate(s.worth, s.worth, s.worth, model, True)]
        if found is not None:
            if s.judging is not None:
                agree.append(Estimate(gain, low, high, "logged episodes, importance weighted"))
            agree += fqe
            b, p = found.bounds, found.p
            gain, low, high, paid = b.mean, b.low, b.high, float(found.against.mean())
        elif s.judging is None:
            agree += fqe
            gain, low, high = s.worth, float("-inf"), float("inf")
        else:
            agree += fqe
        if tested or s.judging is None:
            agree += self.beside if s is self.best else ()
        return CandidateResult(
            key=c.key, params=params, value=paid + gain, low=paid + low, high=paid + high,
            gain=gain, gain_low=low, gain_high=high, support=1.0, p_value=p,
            ess=s.ess if s.judging is not None else float("nan"), tested=tested,
            agreement=tuple(agree),
        )  # fmt: skip

    def _verdict(
        self, best: Weighed, found: Confirmation | None, result: CandidateResult
    ) -> tuple[Verdict, str, tuple[Check, ...]]:
        checks = self._checks(best, found)
        if found is not None:
            proved, worse = found.p <= self.level, found.p_worse <= self.level
            how = "the same seeds" if found.paired else "the log's held-out episodes"
            what = f"{len(found.returns)} episodes in {self.env}, against {how}"
        elif best.judging is None:
            return "HOLD", (
                f"{best.candidate.label} looks best by fitted Q evaluation ({best.worth:+.3g}, "
                f"discounted), but that rests on a model, which cannot promote; play it with "
                "--env ID."
            ), checks  # fmt: skip
        else:
            assert result.p_value is not None
            proved, worse = result.p_value <= self.level, self._worse(best)
            what = f"{len(best.judging)} held-out episodes with importance weights"
        failed = next((c for c in checks if not c.passed), None)
        if failed is not None and (proved or worse):
            return "HOLD", failed.reason, checks
        if worse:
            return "REJECT", f"Not better by more than the margin, on {what}.", checks
        if not proved:
            return "HOLD", f"The gain is not proven on {what}.", checks
        if self.range.source == "observed" and not self.accept_observed:
            lo, hi = self._limits()
            return "HOLD", (
                "State the range of a step's reward (--reward-range LO HI); with the observed "
                f"one, [{lo:g}, {hi:g}], the gain would be at least {result.gain_low:.4g}."
            ), checks  # fmt: skip
        if self.estimated and found is None and not self.accept_estimated:
            return "HOLD", (
                "The log has no behavior log-probs, so the gain of at least "
                f"{result.gain_low:.4g} rests on an estimated behavior policy; log them, or accept "
                "that with --accept-estimated-behavior."
            ), checks  # fmt: skip
        reason = f"The mean return is proven higher, on {what}."
        if self.estimated and found is None:
            reason += " This takes the estimated behavior policy for the true one, as accepted."
        if self.range.source == "observed":
            reason += " This takes the observed range of rewards for the whole, as accepted."
        return "PROMOTE", reason, checks

    def _worse(self, best: Weighed) -> bool:
        """Whether the gain is proven not to exceed the margin."""
        assert best.losses is not None
        scores = best.losses.numpy() + self.margin
        return guarded_p(scores, best.losses_floor + self.margin) <= self.level

    def _checks(self, best: Weighed, found: Confirmation | None) -> tuple[Check, ...]:
        out = []
        part = self.parts.judging
        if self.discrete and not self.estimated and self.fitted is not None:
            assert part.behavior_logp is not None
            check = look.propensities_logged(
                part.action.numpy(), part.behavior_logp.double().exp().numpy(),
                self.fitted(flat(part.obs)).detach().numpy(), flat(part.obs).numpy(),
            )  # fmt: skip
            mend = "Mend the logging of behavior log-probs."
            reason = check.reason.split(" Mend the logging")[0]
            out.append(replace(check, reason=reason if check.passed else f"{reason} {mend}"))
        if best.judging is not None and found is None:
            passed = best.ess >= look.LEAST_ESS
            text = (
                f"The {len(best.judging)} judging episodes speak for the policy like "
                f"{best.ess:.0f} of its own."
            )
            if not passed:
                text += " That is too few; a policy nearer to the log's, or more episodes, are."
            out.append(Check("effective episodes", passed, best.ess, look.LEAST_ESS, text))
        return tuple(out)

    def _assumptions(self, found: Confirmation | None) -> tuple[str, ...]:
        said = [f"No episode has more than {self.horizon} steps."]
        if self.range.assumption:
            said.append(self.range.assumption[:1].upper() + self.range.assumption[1:] + ".")
        if found is None:
            said.append("Episodes are independent, and start as those of the log do.")
            said.append(
                "The behavior policy is the one estimated from the log."
                if self.estimated
                else "The logged log-probs are those that the actions were drawn with."
            )
        elif not found.paired:
            said.append(f"The log's episodes come from {self.env}, starts and rewards included.")
        return tuple(said)

    def _advice(self, found: Confirmation | None) -> str:
        if found is None:
            return "Playing the candidate with --env ID would settle it; so would a log of its own."
        return "More episodes in the environment would settle it."

    def _portfolio(self, scored: list[Weighed]) -> dict[str, Any]:
        """Candidates by what chose them, judged by the judging episodes."""
        weighed = {s.candidate.label: s for s in scored if s.judging is not None}
        by = {
            "importance weights on choosing episodes": {
                k: float(s.choosing.mean()) for k, s in weighed.items() if s.choosing is not None
            },
            "fitted Q evaluation on choosing episodes": {k: s.worth for k, s in weighed.items()},
        }
        judged = {k: float(s.judging.mean()) for k, s in weighed.items() if s.judging is not None}
        return portfolio_of(by, judged, "the paired score of episodes that judged")

    def _diagnosis(self, scored: list[Weighed], paid: Tensor) -> dict[str, Any]:
        told = statistics(self.log)
        notes = [
            f"{told.episodes:,} episodes of {told.lengths[0]} to {told.lengths[1]} steps; mean "
            f"return {told.mean_return:.4g} (standard deviation {told.return_deviation:.3g}).",
            f"Coverage: {told.coverage:.0%} of the steps show a state-action pair (100 bins a "
            "dimension) that no other shows first.",
            "Action spread: " + ", ".join(f"{s:.2f}" for s in told.spread) + ".",
        ]
        if self.estimated:
            notes.append("No behavior log-probs were logged; the behavior policy was estimated.")
        judged = len(episode_lengths(self.parts.judging))
        return {
            "rows": told.steps, "scored": judged, "units": told.episodes, "unit": "episode",
            "reward": {"mean": float(paid.mean()), "range": list(self._limits()),
                       "range_source": self.range.source},
            "notes": notes, "statistics": told.to_json(), "estimators": list(self.why),
            "portfolio": self._portfolio(scored),
        }  # fmt: skip


def _worth(log: Transitions, candidate: EpisodeCandidate | None, discrete: int) -> float:
    """Fitted Q evaluation of a candidate (of the logged actions, without one) at the starts."""
    starts = log.obs[Grid.of(log).step == 0]
    if candidate is None:
        returns = episode_returns(log, GAMMA)
        return float(returns.mean())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        values = fit_values(log, candidate.chosen, actions=discrete, gamma=GAMMA)
        return float(values.value(starts).mean())


def _acting(reference: Any) -> Callable[[Tensor], Tensor]:
    if hasattr(reference, "act"):
        act: Any = reference.act
        return lambda obs: act(obs).action
    if not callable(reference):
        raise InputError("the reference has to act: give a function of observations, or a policy")
    return cast("Callable[[Tensor], Tensor]", reference)
