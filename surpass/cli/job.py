"""The main job and what follows it: improve, serve, monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from surpass.cli.reading import Column, Many, flat, mapping, named

__all__ = ["improve", "monitor", "serve"]


def improve(
    logs: Annotated[Positional[str], arg(metavar="LOGS")],
    /,
    *,
    reference: Annotated[str | None, arg(metavar="POLICY")] = None,
    methods: Annotated[str, arg(metavar="KEY,KEY")] = "auto",
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    overwrite: bool = False,
    level: float = 0.05,
    margin: float = 0.0,
    seed: int = 0,
    action: Column = None,
    reward: Column = None,
    propensity: Column = None,
    context: Annotated[str | None, arg(metavar="A,B,C")] = None,
    time: Column = None,
    position: Column = None,
    group: Column = None,
    cost: Column = None,
    instrument: Column = None,
    available: Column = None,
    row_id: Column = None,
    actions: Annotated[str | None, arg(metavar="A,B,C")] = None,
    categorical: Annotated[str | None, arg(metavar="A,B")] = None,
    reward_range: tuple[float, float] | None = None,
    accept_observed_range: bool = False,
    winsorize: float | None = None,
    journal: Annotated[Path | None, arg(metavar="FILE")] = None,
    looks: int | None = None,
    env: Annotated[str | None, arg(metavar="ID")] = None,
    model: Annotated[str | None, arg(metavar="PATH")] = None,
    columns: Annotated[str | None, arg(metavar="ROLE=COLUMN,...")] = None,
    samples: int | None = None,
    horizon: int | None = None,
    steps: int | None = None,
    lora: int | None = None,
    accept_estimated_behavior: bool = False,
    propensity_model: Literal["logged", "fitted"] = "logged",
) -> None:
    """From logs to a verdict: learn better policies, test one, and say PROMOTE, HOLD or REJECT.

    LOGS is a Parquet, CSV, JSONL or Arrow file (or a folder of parts), or a name such as
    open-bandit:random/men or digits. Columns are guessed and shown; name them where the guess is
    wrong. Decision logs need an action, a reward and the propensity of the logged action.

    Trajectories are read from D4RL-style HDF5, npz, Minari data sets and Parquet; with --env the
    chosen policy plays there too. With --model, LOGS are prompts, preference pairs, scored answers
    or demonstrations (JSONL, Parquet), and --reward says what a good answer is: exact, numeric,
    math, regex:PATTERN, module:function, or the folder of a reward model.

    In Python: surpass.improve("logs.parquet").save("report").

    Try: surpass improve clicks.parquet --out report

    Or: surpass improve clicks.csv --reward clicked --group user_id --time shown_at

    Or: surpass improve sales.parquet --reward-range 0 500 --margin 0.1

    Or: surpass improve open-bandit:random/men

    Or: surpass improve prompts.jsonl --model ./my-model --reward exact

    Args:
        logs: The logs: a file, a folder of parts, or a name.
        reference: The policy to surpass: a policy folder; the policy that wrote the log by default.
        methods: The learners to try, by key, separated by commas; auto tries those that fit.
        out: Where the report goes; ./surpass-report-NAME by default.
        overwrite: Replace an existing report folder.
        level: The allowed chance of promoting a policy that is not better.
        margin: The gain over the reference that has to be proven, in units of the reward.
        seed: Of everything random; the same seed gives the same report.
        action: The column that holds the action.
        reward: The column that holds the reward; with --model, the reward of answers.
        propensity: The probability with which the logged action was chosen, a prefix of columns
            that hold all actions' probabilities, or uniform.
        context: The columns the policy may look at; all that remain by default.
        time: The column that orders the rows in time; also right for loggers that learned on the
            way.
        position: The slot in which the action was shown.
        group: Rows with one value of it (a user, a session) count as one unit; none if a guess
            is wrong.
        cost: A column of costs, reported beside the reward.
        instrument: A column of 0 and 1 that moved the action and touches the reward through it
            only.
        available: A list column of the actions that were on offer.
        row_id: A column that identifies rows, so that duplicates are refused; none if there is
            none.
        actions: All actions, in order, where the log does not show every one.
        categorical: Context columns that are categories although they hold numbers.
        reward_range: The smallest and largest reward that may ever occur. Without it, and with more
            than two values in the log, the verdict is HOLD.
        accept_observed_range: Take the observed range of rewards as the whole range; the report
            repeats that condition.
        winsorize: Also test rewards cut at this quantile; both tests must pass.
        journal: A file that keeps weekly looks at a growing log honest.
        looks: The number of looks planned, with --journal.
        env: For trajectories: an environment that confirms the result.
        model: For prompts, pairs and scored answers: the language model to improve, by path.
        columns: With --model: where what stands, as in prompt=question,answer=solution.
        samples: With --model: answers of each model to each held-out prompt; 4 by default.
        horizon: With --model: most tokens of an answer.
        steps: For trajectories and with --model: updates of each recipe; few on small logs by
            default.
        lora: With --model: train adapters of this rank instead of all weights.
        propensity_model: logged, or fitted where the logged propensities are wrong; the claim then
            rests on the fitted model.
        accept_estimated_behavior: For trajectories without logged probabilities: accept a promotion
            that rests on an estimated behavior policy; the report repeats that condition.
    """
    from surpass.improve.command import run

    run(
        logs,
        reference=reference,
        methods="auto" if methods == "auto" else methods.split(","),
        out=out,
        overwrite=overwrite,
        journal=journal,
        looks=looks,
        env=env,
        model=model,
        language={
            "columns": mapping(columns),
            "samples": samples,
            "horizon": horizon,
            "lora": lora,
        },
        columns=named(
            action=action,
            reward=reward,
            propensity=propensity,
            context=context.split(",") if context is not None else None,
            time=time,
            position=position,
            group=group,
            cost=cost,
            instrument=instrument,
            available=available,
            row_id=row_id,
            actions=actions,
            categorical=categorical,
        ),
        options={
            "level": level,
            "margin": margin,
            "seed": seed,
            "reward_range": reward_range,
            "accept_observed_range": accept_observed_range,
            "winsorize": winsorize,
            "accept_estimated_behavior": accept_estimated_behavior,
            "propensity_model": propensity_model,
            "steps": steps,
        },
    )


def serve(
    policy: Positional[Path],
    /,
    *,
    logs: Annotated[Path, arg(metavar="DIR")] = Path("decisions"),
    host: str = "127.0.0.1",
    port: int = 8321,
    seed: int | None = None,
    default_reward: float | None = None,
    patience: float = 3600.0,
    socket: Annotated[Path | None, arg(metavar="PATH")] = None,
) -> None:
    """Serve a policy over HTTP; every decision is logged with its exact propensity.

    With --socket, a policy that scores candidates (the folder of `surpass train cold-rl`, or its
    ONNX graph) answers on a Unix socket instead, without a log.

    The log folder goes straight back into `surpass improve`. A decision enters the log when its
    reward comes. Where only successes are reported (clicks), give --default-reward 0: without it
    the log would hold clicks only.

    Args:
        policy: A policy folder, as `surpass improve` writes it.
        logs: Where decisions and rewards are logged.
        host: The address to listen on.
        port: The port to listen on.
        seed: Makes the choices reproducible (for tests).
        default_reward: Of decisions that got no reward within the patience.
        patience: Seconds to wait for a reward before the default one is logged.
        socket: A Unix socket, for a policy that scores candidates.
    """
    if socket is not None:
        from surpass.serve.candidates import serve_candidates

        serve_candidates(policy, socket)
        return
    from surpass.serve.service import run

    run(
        policy,
        logs=logs,
        host=host,
        port=port,
        seed=seed,
        default_reward=default_reward,
        patience=patience,
    )


def monitor(
    logs: Annotated[Positional[str], arg(metavar="LOGS")],
    /,
    *,
    watch: str = "auto",
    anchor: Annotated[str | None, arg(metavar="LOGS")] = None,
    policy: Annotated[str | None, arg(metavar="POLICY")] = None,
    every: int | None = None,
    text: Column = None,
    group: Column = None,
    reward: Column = None,
    action: Column = None,
    propensity: Column = None,
    time: Column = None,
    context: Annotated[str | None, arg(metavar="A,B,C")] = None,
    set: Annotated[Many, arg(metavar="NAME=VALUE")] = [],  # noqa: B006
    table: bool = False,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Say when a log or a stream changed, what changed, and how sure that is.

    In Python: surpass.monitor(logs).

    Try: surpass monitor decisions

    Or: surpass monitor tickets.jsonl --text message

    Or: surpass monitor decisions --policy candidate

    Args:
        logs: What is watched, such as the folder of `surpass serve`; - reads texts (or JSON lines)
            from standard input.
        watch: text-drift (texts, or contexts), feamoe (fairness and errors), gate (may the policy
            be promoted?), goodhart-rl (when to stop optimizing); chosen by what is given.
        anchor: Data that were in order; the first 30 % of the log by default.
        policy: The candidate, for the gate.
        every: Rows of a batch.
        text: The column of texts.
        group: The column of two groups, for feamoe.
        reward: The column of the reward.
        action: The column of the action.
        propensity: The column of its probability, a prefix of columns, or uniform.
        time: The column of the time.
        context: The context columns.
        set: Options of the monitor, as in --set run_length=200.
        table: Print a line for every batch.
        as_json: Print JSON.
    """
    from surpass.serve.monitoring_command import run

    run(
        logs,
        watch=watch,
        anchor=anchor,
        policy=policy,
        every=every,
        text=text,
        settings=flat(set),
        columns=named(
            group=group,
            reward=reward,
            action=action,
            propensity=propensity,
            time=time,
            context=context,
        ),
        as_json=as_json,
        full=table,
    )
