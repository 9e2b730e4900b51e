"""`surpass.improve`: whatever the logs are, from them to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from surpass.errors import InputError, refuse_unwritable
from surpass.improve.improvement import Improvement

__all__ = ["improve"]


def improve(
    logs: Any,
    reference: Any = None,
    methods: str | Sequence[str] = "auto",
    *,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    candidates: Mapping[str, Any] | None = None,
    ordered: bool = False,
    reward_range: tuple[float, float] | None = None,
    accept_observed_range: bool = False,
    winsorize: float | None = None,
    propensity_model: str = "logged",
    journal: str | Path | None = None,
    looks: int | None = None,
    env: str | None = None,
    accept_estimated_behavior: bool = False,
    steps: int | None = None,
    model: Any = None,
    language: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda _: None,
    **columns: Any,
) -> Improvement:
    """Learn better policies from logs, test one, and say PROMOTE, HOLD or REJECT.

    Args:
        logs: a file, a folder of parts, a name such as "digits" or "open-bandit:random/men", a
            data frame, a dict of columns, `Decisions`, or `Transitions`.
        reference: the policy to surpass: a policy folder, a module, or probabilities [N, A] or
            [A]; by default the policy that wrote the log.
        methods: keys of learners, or "auto".
        level: the allowed chance of promoting a policy that is not better.
        margin: the gain over the reference that has to be proven, in units of the reward.
        seed: of everything random: the same seed gives the same verdict.
        out: a folder for report.html, report.json, verdict.md and the policy.
        overwrite: replace that folder if it exists.
        candidates: policies made before the log was seen, by name; they are tested instead of
            learned ones.
        ordered: the order of `candidates` was fixed beforehand: each is tested at the full level
            until one fails.
        reward_range: the smallest and largest reward that may ever occur.
        accept_observed_range: let the observed range stand for it; the verdict repeats that
            condition.
        winsorize: also test rewards cut at this quantile; both tests must pass.
        propensity_model: "logged", or "fitted" where the logged ones are wrong; the claim then
            rests on the model.
        journal: a file that keeps repeated looks at a growing log honest (see
            `surpass.improve.journal`).
        looks: the number of looks, where it is planned beforehand.
        env: for episodes: an environment (a task's name or a Gymnasium id) in which the chosen
            policy plays; then that decides.
        accept_estimated_behavior: for episodes without logged probabilities: let the verdict rest
            on an estimated behavior policy; the reason repeats that condition.
        steps: for episodes and language: updates of each recipe; few on small logs by default.
        model: for prompts, preference pairs, scored answers or demonstrations: the language model
            to improve, a folder or a model; `reward=` then is the reward of answers.
        language: what `improve_language` takes besides, such as `{"samples": 8, "lora": 16}`.
        say: is told what happens, a line at a time.
        columns: which column is what, such as `reward="clicked"`, `group="user"`.

    Returns:
        The verdict with everything it rests on; `.save(folder)` writes the report.

    Raises:
        InputError: when something given cannot be used, in one line that says how to mend it.
    """
    from surpass.data import open_log
    from surpass.data.records import Transitions
    from surpass.improve.decisions import improve_decisions
    from surpass.methods.decisions.threads import threads_for

    if out is not None and Path(out).exists() and not overwrite:
        raise InputError(f"{out} exists; it was kept as it is. Give another --out, or --overwrite")
    for place, option in ((out, "--out"), (journal, "--journal")):
        if place is not None:
            refuse_unwritable(place, option)
    if seed < 0:
        raise InputError(f"--seed is {seed}; give 0 or more")
    if propensity_model not in ("logged", "fitted"):
        raise InputError(f"the propensity model is logged or fitted, not {propensity_model!r}")
    if journal is not None:
        _fit_a_journal(reference, methods, candidates, winsorize, propensity_model)
    if model is not None:
        refused = {"--journal": journal, "--looks": looks, "--winsorize": winsorize, "--env": env,
                   "--propensity-model": _other(propensity_model), "candidates": candidates,
                   **{f"--{k}": v for k, v in columns.items()
                      if k not in ("reward", "tokenizer")}}  # fmt: skip
        if (odd := next((k for k, v in refused.items() if v is not None), None)) is not None:
            raise InputError(f"{odd} is not for language models (--model); leave it out")
        from surpass.improve.language import improve_language

        result = improve_language(
            logs, model, methods, reference=reference, level=level, margin=margin, seed=seed,
            reward_limits=reward_range, accept_observed_range=accept_observed_range,
            accept_estimated_behavior=accept_estimated_behavior,
            name=logs if isinstance(logs, str) else "", say=say,
            **{k: v for k, v in {**(language or {}), "steps": steps}.items() if v is not None},
            **columns,
        )  # fmt: skip
        return _written(result, out, overwrite, say)
    say("reading the log")
    opened = open_log(logs, **({"seed": seed} if _takes_seed(logs) else {}), **columns)
    guessed = getattr(opened, "columns", None)
    for role, named, how in guessed.table() if guessed is not None else ():
        say(f"column {role}: {named} ({how})")
    log = _read(opened, journal)
    options: dict[str, Any] = {
        "level": level, "margin": margin, "seed": seed, "reward_limits": reward_range,
        "accept_observed_range": accept_observed_range,
    }  # fmt: skip
    if isinstance(log, Transitions):
        refused = {"--journal": journal, "--looks": looks, "--winsorize": winsorize,
                   "candidates": candidates,
                   "--propensity-model": _other(propensity_model)}  # fmt: skip
        if (odd := next((k for k, v in refused.items() if v is not None), None)) is not None:
            raise InputError(f"{odd} is for decision logs; this one holds episodes: leave it out")
        from surpass.improve.trajectories import improve_trajectories

        result = improve_trajectories(
            log, methods, env=env, reference=_acting(reference), name=opened.name, say=say,
            accept_estimated_behavior=accept_estimated_behavior, steps=steps, **options,
        )  # fmt: skip
    elif steps is not None:
        raise InputError(
            "--steps is for logs of episodes and for language models; the learners on decisions "
            "know when they are done: leave it out"
        )
    elif env is not None:
        raise InputError(f"--env {env} is for logs of episodes; this one holds single decisions")
    elif journal is not None:
        from surpass.improve.journal import improve_with_journal

        result = improve_with_journal(
            log, Path(journal), looks=looks, name=opened.name, say=say, **options
        )
    elif accept_estimated_behavior:
        raise InputError(
            "--accept-estimated-behavior is for episodes and language models; of decisions say "
            "--propensity-model fitted"
        )
    elif looks is not None:
        raise InputError("--looks needs --journal FILE, which remembers the looks that were taken")
    else:
        with threads_for(log.context.numel() * log.n_actions):
            result = improve_decisions(
                log,
                _policy(reference),
                methods,
                candidates=_policies(candidates),
                ordered=ordered,
                winsorize=winsorize,
                propensity=propensity_model,
                truth=opened.truth,
                opened=opened,
                name=opened.name,
                say=say,
                **options,
            )
    return _written(result, out, overwrite, say)


def _written(
    result: Improvement, out: str | Path | None, overwrite: bool, say: Callable[[str], None]
) -> Improvement:
    if out is not None:
        say(f"writing {out}")
        result.save(out, overwrite=overwrite)
    return result


def _other(propensity_model: str) -> str | None:
    """The propensity model, where it was asked for."""
    return None if propensity_model == "logged" else propensity_model


def _fit_a_journal(
    reference: Any, methods: Any, candidates: Any, winsorize: float | None, propensity_model: str
) -> None:
    """Refuse what a look of a journal would not heed."""
    tilts = {methods} if isinstance(methods, str) else set(methods)
    given = {"--reference": reference is not None, "--methods": not tilts <= {"auto", "tilt"},
             "candidates": bool(candidates), "--winsorize": winsorize is not None,
             "--propensity-model": propensity_model != "logged"}  # fmt: skip
    if (odd := next((k for k, v in given.items() if v), None)) is not None:
        raise InputError(
            f"{odd} does not go with --journal, which tests tilts of the policy that wrote the log "
            "by its logged propensities; leave it out"
        )


def _read(opened: Any, journal: str | Path | None) -> Any:
    """The log; with a journal by the encoder that it began with, since levels and medians of a
    longer log are others."""
    from surpass.data.tables import TableLog

    if journal is not None and isinstance(opened, TableLog):
        from surpass.improve.journal import encoder_of

        return opened.read(encoder=encoder_of(Path(journal)))
    return opened.read()


def _takes_seed(logs: Any) -> bool:
    """Files draw the rows of their encoder from the seed; named sources and held logs have their
    own."""
    return isinstance(logs, str | Path) and Path(logs).exists()


def _policy(reference: Any) -> Any:
    if isinstance(reference, str | Path):
        from surpass.policies.handover import load

        return load(reference)
    return reference


def _acting(reference: Any) -> Any:
    """A reference for episodes: one that acts, or the folder of a trained or handed policy."""
    if not isinstance(reference, str | Path):
        return reference
    if not (Path(reference) / "policy.json").exists():
        from surpass.training.run import load_trained

        return load_trained(reference).policy
    handed = _policy(reference)
    return lambda obs: handed.sample(obs)[0]


def _policies(candidates: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if candidates is None else {name: _policy(p) for name, p in candidates.items()}
