"""What the main job on language found, as a verdict and a report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from surpass.evaluation.guarded import Bounds, guarded_bounds, guarded_low, guarded_p
from surpass.improve import checks as look
from surpass.improve.decisions import versions
from surpass.improve.hold import SCORED_SHARE, settlement
from surpass.improve.improvement import Improvement
from surpass.improve.language_scores import best_of_curve, by_prompt
from surpass.improve.results import CandidateResult, Check, Estimate, Figure, Settlement, Verdict

if TYPE_CHECKING:
    from surpass.improve.language import Judged, Run

__all__ = ["told"]

SHOWN = 8  # prompts whose answers the report shows
FAILURES = 0.01  # share of answers that the reward may fail to judge


def told(run: Run, judged: list[Judged], best: Judged) -> Improvement:
    """The verdict on the nominated candidate, and everything beside it."""
    tested = _result(run, best, run.level, tested=True)
    others = [_result(run, j, run.level / len(judged)) for j in judged if j is not best]
    checks = _checks(run, best)
    verdict, reason = _verdict(run, best, tested, checks)
    base = _reference(run)
    settle = _settlement(run, best, base.mean) if verdict == "HOLD" else None
    return Improvement(
        verdict=verdict, reason=reason, log=run.name,
        reference=Estimate(base.mean, base.low, base.high, "reference"), best=tested,
        candidates=(tested, *others), checks=checks, rows=len(run.log), level=run.level,
        margin=run.margin, seed=run.seed, settlement=settle, diagnosis=_diagnosis(run, best),
        assumptions=_assumptions(run), versions={**versions(), **_packages()},
        seconds=run.seconds, figures=_figures(run, best), usage=_usage(), per="answer",
        reference_name=_reference_name(run),
        hand_over=None if verdict == "REJECT" else _hand_over(run, best), method=_method(run),
    )  # fmt: skip


def _reference_name(run: Run) -> str:
    if run.base is None and not run.estimated:
        return "the model that wrote the logged answers"
    return "given" if run.reference_given else "the model that was handed in"


def _hand_over(run: Run, best: Judged) -> Callable[[Path], None]:
    """Writes the tested model; until then it waits in the run's temporary folder."""

    def write(folder: Path, held: Any = run.work) -> None:
        del held  # its being here keeps the folder
        shutil.copytree(best.folder, folder, dirs_exist_ok=True)

    return write


def _packages() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"transformers": version("transformers")}
    except PackageNotFoundError:
        return {}


def _held(run: Run, values: Tensor, judged: Judged) -> Tensor:
    """Rewards [P, S] of the judging prompts."""
    return values[len(judged.choosing) :]


def _reference(run: Run) -> Bounds:
    lo, hi = run.range.lo, run.range.hi
    if run.base is not None:
        judging = len({run.log.prompts[i] for i in run.parts[2]})
        per_prompt = run.base.reward[-judging:].mean(-1)
    else:
        held = run.log.rows(run.parts[2])
        assert held.score is not None
        per_prompt = by_prompt(held.score, held)
    return guarded_bounds(per_prompt.numpy(), lo, hi, run.level)


def _result(run: Run, j: Judged, level: float, tested: bool = False) -> CandidateResult:
    base, phi = _reference(run).mean, j.judging.numpy()
    gain = float(phi.mean())
    low = guarded_low(phi, lambda m: j.floor - m, level)
    high = max(gain, -guarded_low(j.losses.numpy(), lambda m: j.floor - m, level))
    agree = []
    if j.weighed is not None:
        assert run.log.score is not None
        plain = j.weighed.normalized - float(run.log.score[run.parts[2]].double().mean())
        agree.append(Estimate(plain, plain, plain, "self-normalized weights", True))
    return CandidateResult(
        key=j.chosen.key, params=j.params, value=base + gain, low=base + low, high=base + high,
        gain=gain, gain_low=low, gain_high=high, support=1.0,
        ess=j.weighed.ess if j.weighed is not None else float("nan"),
        p_value=guarded_p(phi - run.margin, j.floor - run.margin), tested=tested,
        agreement=tuple(agree),
    )  # fmt: skip


# ------------------------------------------------------------------------------------- verdict


def _verdict(
    run: Run, best: Judged, result: CandidateResult, checks: tuple[Check, ...]
) -> tuple[Verdict, str]:
    assert result.p_value is not None
    proved = result.p_value <= run.level
    worse = guarded_p(best.losses.numpy() + run.margin, best.floor + run.margin) <= run.level
    count = len(best.judging)
    what = (
        f"{count} held-out prompts, {run.samples} answers of each model to each"
        if run.reward is not None
        else f"logged answers to {count} held-out prompts, importance weighted"
    )
    failed = next((c for c in checks if c.ran and not c.passed), None)
    if failed is not None and (proved or worse):
        return "HOLD", failed.reason
    if run.judge_is_fitted:
        return "HOLD", (
            f"By a reward model fitted to held-out pairs, {best.chosen.key} gains "
            f"{result.gain:+.3g} per answer; such a model cannot promote. Say what a good answer "
            "is with --reward."
        )
    if worse:
        return "REJECT", f"Not better by more than the margin, on {what}."
    if not proved:
        return "HOLD", f"The gain is not proven on {what}."
    if run.range.source == "observed" and not run.accept_observed:
        return "HOLD", (
            "State the range of the reward (--reward-range LO HI); with the observed one, "
            f"[{run.range.lo:g}, {run.range.hi:g}], the gain would be at least "
            f"{result.gain_low:.4g}."
        )
    if run.estimated and not run.accept_estimated:
        return "HOLD", (
            "The log has no probabilities of its answers, so the gain of at least "
            f"{result.gain_low:.4g} takes the reference for their author; log behavior_logp, or "
            "accept that with --accept-estimated-behavior."
        )
    reason = f"The mean reward is proven higher, on {what}."
    if run.estimated:
        reason += " This takes the reference for the author of the logged answers, as accepted."
    if run.range.source == "observed":
        reason += " This takes the observed range of rewards for the whole, as accepted."
    return "PROMOTE", reason


def _checks(run: Run, best: Judged) -> tuple[Check, ...]:
    out = [_prompts(len(best.judging))]
    if run.reward is not None and best.answers is not None and run.base is not None:
        failed = best.answers.failed + run.base.failed
        count = best.answers.reward.numel() + run.base.reward.numel()
        share = failed / count
        text = f"{failed} of {count} answers could not be judged and counted 0."
        if share > FAILURES:
            text += " Mend the reward: it raised or took too long."
        out.append(Check("the reward", share <= FAILURES, share, FAILURES, text))
    if best.weighed is not None:
        w = best.weighed
        passed = w.ess >= look.LEAST_ESS
        text = f"The judging answers speak for the model like {w.ess:.0f} of its own."
        if not passed:
            text += " That is too few; train less far from the reference, or log more answers."
        out.append(Check("effective answers", passed, w.ess, look.LEAST_ESS, text))
        out.append(_weights(w.ratio))
    return tuple(out)


def _prompts(count: int) -> Check:
    passed = count >= look.LEAST_GROUPS
    text = f"{count} prompts that no model learned from judged both"
    text += (
        "." if passed else f"; at least {look.LEAST_GROUPS} are needed to tell chance from gain."
    )
    return Check("held-out prompts", passed, count, look.LEAST_GROUPS, text)


def _weights(ratio: Tensor) -> Check:
    """The mean importance weight is 1 where the logged probabilities are right; heavy tails leave
    it below in most samples, so only a mean too high speaks against them."""
    z = float((ratio.mean() - 1) / (ratio.std() / len(ratio) ** 0.5).clamp_min(1e-12))
    passed = z < 4.0
    text = f"The mean importance weight is {float(ratio.mean()):.3g}; it should be 1."
    if not passed:
        text += " The logged probabilities are not those of the answers; mend their logging."
    return Check("logged probabilities", passed, z, 4.0, text)


def _settlement(run: Run, best: Judged, base: float) -> Settlement:
    if run.judge_is_fitted:
        return Settlement(None, None, None, "A reward of answers (--reward) would settle it.")
    found = settlement(
        float(best.judging.mean()) - run.margin, float(best.judging.std()),
        best.floor - run.margin, len(best.judging), base, run.level,
    )  # fmt: skip
    scale = SCORED_SHARE * len(run.log) / len(best.judging)

    def more(rows: float | None) -> float | None:
        return None if rows is None else rows * scale

    total = more(found.rows)
    mean, sd = float(best.judging.mean()) - run.margin, float(best.judging.std())
    if mean * len(best.judging) ** 0.5 <= sd:
        sentence = (
            "No candidate looks better than the reference by more than chance; other recipes or "
            "more updates might"
        )
    else:
        sentence = (
            f"About {total or 0:,.0f} rows of this kind in all would prove a gain of this size "
            "four times in five"
        )
    if run.reward is not None:
        sentence += "; more answers to each prompt (samples) help where their rewards vary"
    return Settlement(total, more(found.rows_low), more(found.rows_high), sentence + ".")


# -------------------------------------------------------------------------------------- report


def _assumptions(run: Run) -> tuple[str, ...]:
    said = ["Prompts are independent, and those to come are like those of the data."]
    if run.reward is not None:
        said.append(f"What {run.reward_name} rewards is what is wanted; answers are drawn at the "
                    f"temperature {run.start.temperature:g}.")  # fmt: skip
    else:
        said.append("The logged log-probabilities are those that whole answers were drawn with, "
                    "their end included.")  # fmt: skip
    if run.range.assumption:
        said.append(run.range.assumption[:1].upper() + run.range.assumption[1:] + ".")
    return tuple(said)


def _method(run: Run) -> tuple[str, ...]:
    said = [
        "Prompts are split at random: half to learn on, a fifth to choose one candidate by, the "
        "rest to judge it, once. Rows of one prompt stay together.",
    ]
    if run.reward is not None:
        said.append(
            f"Candidate and reference answer each judging prompt {run.samples} times; the score of "
            "a prompt is the difference of the mean rewards."
        )
    else:
        said.append(
            "A logged answer scores (min(w, 20) - 1)(r - lo), w the ratio of the candidate's to "
            "the logged probability of the whole answer: on average at most the gain, and never "
            "below lo - hi. Answers to one prompt are averaged."
        )
    said.append("The guarded test adds one imaginary prompt with the worst score that the reward's "
                "range allows.")  # fmt: skip
    return tuple(said)


def _usage() -> tuple[tuple[str, str], ...]:
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("report/policy")\n'
        'tokenizer = AutoTokenizer.from_pretrained("report/policy")'
    )
    return (("In Python", code),)


def _diagnosis(run: Run, best: Judged) -> dict[str, Any]:
    learned, chose, judged = (len(p) for p in run.parts)
    notes = [
        f"{len(run.log):,} rows of {run.log.kind}, {len(set(run.log.prompts)):,} different "
        f"prompts: {learned:,} rows to learn on, {chose:,} to choose, {judged:,} to judge.",
        f"{best.chosen.key} was trained for {best.updates} updates.",
    ]
    notes += [f"{n} rows were {word}: too long for the model's context."
              for word, n in run.log.counts.items() if n]  # fmt: skip
    if best.answers is not None and run.base is not None:
        a, b = best.answers, run.base
        notes.append(
            f"Mean answer: {b.length:.1f} tokens of the reference, {a.length:.1f} of the "
            f"candidate; log-ratio to the reference {a.kl:.3g} nats per answer."
        )
        if a.cut:
            notes.append(f"{a.cut} of {a.reward.numel()} answers of the candidate reached the "
                         f"limit of {run.horizon} tokens.")  # fmt: skip
    out: dict[str, Any] = {
        "rows": len(run.log), "scored": len(best.judging), "units": len(set(run.log.prompts)),
        "unit": "prompt", "notes": notes,
        "reward": {"range": [run.range.lo, run.range.hi], "range_source": run.range.source},
        "samples": _samples(run, best),
    }  # fmt: skip
    if best.weighed is not None:
        out["overlap"] = _overlap(best.weighed.ratio, best.weighed.ess)
    return out


def _overlap(ratio: Tensor, ess: float) -> dict[str, Any]:
    top = float(torch.quantile(ratio, 0.99).clamp_min(1.0))
    counts = torch.histc(ratio.clamp(max=top).float(), 20, 0.0, top)
    edges = torch.linspace(0.0, top, 21)
    return {
        "ess": ess, "ess_share": ess / len(ratio), "max": float(ratio.max()),
        "histogram": {"edges": edges.tolist(), "counts": counts.long().tolist()},
    }  # fmt: skip


def _samples(run: Run, best: Judged) -> list[dict[str, Any]]:
    """Some judging prompts with the first answer of each model: where they differ most first."""
    if best.answers is None or run.base is None:
        return []
    skip = len(best.choosing)
    order = sorted(range(len(best.judging)), key=lambda i: -abs(float(best.judging[i])))
    prompts = list({run.log.prompts[i]: i for i in reversed(run.parts[2])}.values())[::-1]
    out = []
    for i in order[:SHOWN]:
        row = prompts[i]
        text = run.log.texts[row] if run.log.texts else str(list(run.log.prompts[row]))
        out.append({
            "prompt": text,
            "reference": run.base.texts[skip + i][0], "candidate": best.answers.texts[skip + i][0],
            "rewards": [float(run.base.reward[skip + i].mean()),
                        float(best.answers.reward[skip + i].mean())],
        })  # fmt: skip
    return out


def _figures(run: Run, best: Judged) -> tuple[Figure, ...]:
    if best.answers is None or run.base is None or run.samples < 2:
        return ()
    curves = [best_of_curve(_held(run, a.reward, best)) for a in (run.base, best.answers)]
    binary = (run.range.lo, run.range.hi) == (0.0, 1.0) and all(
        bool(((a.reward == 0) | (a.reward == 1)).all()) for a in (run.base, best.answers)
    )
    if not binary:
        lines = [{"name": n, "values": list(c.values())}
                 for n, c in zip(("reference", "candidate"), curves, strict=True)]  # fmt: skip
        return (Figure(
            "series", "The best of k answers",
            {"lines": lines, "labels": [str(k) for k in curves[0]], "x": "answers"},
            "The mean of the highest reward among k answers to a judging prompt, unbiased.",
        ),)  # fmt: skip
    rows = [
        {"label": f"pass@{k}", "values": [curves[0][k], curves[1][k]]} for k in curves[0]
    ]  # fmt: skip
    return (Figure(
        "bars", "How often one of k answers is right",
        {"rows": rows, "series": ["reference", "candidate"]},
        "Share of judging prompts that at least one of k answers solves, by the unbiased "
        "estimator. A candidate that gains at one answer and loses at many has grown narrow.",
    ),)  # fmt: skip
