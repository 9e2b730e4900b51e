"""The command line: every command is a short Python call first, named in its help."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagConversionOff, Positional, arg

from surpass.errors import InputError, MissingExtra

__all__ = ["main"]

Family = Literal[
    "ope", "theory", "offline", "settings", "generative", "online", "agents", "preference", "rlvr"
]
Column = Annotated[str | None, arg(metavar="COLUMN")]


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
    samples: int = 4,
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
        samples: With --model: answers of each model to each held-out prompt.
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
            "columns": _mapping(columns),
            "samples": samples,
            "horizon": horizon,
            "lora": lora,
        },
        columns={
            name: value
            for name, value in {
                "action": action,
                "reward": reward,
                "propensity": propensity,
                "context": context.split(",") if context is not None else None,
                "time": time,
                "position": position,
                "group": group,
                "cost": cost,
                "instrument": instrument,
                "available": available,
                "row_id": row_id,
                "actions": actions,
                "categorical": categorical,
            }.items()
            if value is not None
        },
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


def _mapping(text: str | None) -> dict[str, str] | None:
    """`prompt=question,answer=solution` as a dict."""
    if text is None:
        return None
    pairs = [item.partition("=") for item in text.split(",")]
    if not all(equals and value for _, equals, value in pairs):
        raise InputError(f"--columns {text}: write --columns prompt=question,answer=solution")
    return {role.strip(): value.strip() for role, _, value in pairs}


def list_systems(*, family: Family | None = None, built: bool = False, as_json: Annotated[bool, arg(name="json")] = False) -> None:  # fmt: skip  # noqa: E501
    """What exists: every system with its family, form and evidence.

    Args:
        family: Only this family.
        built: Only systems that can be run.
        as_json: As a JSON array of {key, name, paper, family, form, kind, evidence}.
    """
    from surpass.registry import systems

    chosen = [
        s
        for s in systems().values()
        if (family is None or s.family == family) and (not built or s.form)
    ]
    if as_json:
        fields = ("key", "name", "paper", "family", "form", "kind", "evidence")
        print(json.dumps([{f: getattr(s, f) or None for f in fields} for s in chosen], indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("key", "family", "form", "evidence"):
        table.add_column(
            column,
            no_wrap=True,
            min_width=max(len(column), *(len(str(getattr(s, column) or "-")) for s in chosen)),
        )
    table.add_column("paper", overflow="ellipsis", no_wrap=True)
    for s in chosen:
        shade = "" if s.form else "dim"
        table.add_row(s.key, s.family, s.form or "-", s.evidence or "-", s.paper, style=shade)
    console = Console()
    console.print(table)
    ready = sum(bool(s.form) for s in chosen)
    console.print(f"\n{len(chosen)} systems, {ready} built. More of one: surpass show KEY")


def show(key: Positional[str], /) -> None:
    """One system: what it is for, its paper, its recipe with the defaults, and its evidence.

    Args:
        key: As in `surpass list`.
    """
    import inspect

    from rich.console import Console

    from surpass.registry import LEDGER, find, recipe

    entry, console = find(key), Console()
    console.print(f"[bold]{entry.key}[/bold]  {entry.name}", highlight=False)
    console.print(f"{entry.paper}\n[dim]{entry.family} · {entry.kind}[/dim]\n", highlight=False)
    if entry.summary:
        console.print(entry.summary + "\n", highlight=False)
    if not entry.form:
        console.print("Not built yet.")
        return
    function = recipe(key)
    console.print(f"[bold]{entry.function}{inspect.signature(function)}[/bold]", highlight=False)
    console.print(inspect.getdoc(function) or "", highlight=False)
    console.print(f"\n[dim]{entry.module}[/dim]")
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if not required:
        _print_form(console, function())
    path = LEDGER / f"{entry.key}.json"
    if path.exists():
        from surpass.evidence.runs import describe_entry

        console.print(describe_entry(path), highlight=False)


def _print_form(console: Any, form: Any) -> None:
    console.print(f"\n[bold]{type(form).__name__}[/bold]")
    for name in getattr(form, "__dataclass_fields__", {}):
        value = getattr(form, name)
        if value not in (None, (), {}):
            console.print(f"  {name}: {value!r}", highlight=False, markup=False)


def train(
    key: Positional[str],
    /,
    *,
    data: Annotated[str | None, arg(metavar="LOG")] = None,
    task: Annotated[str | None, arg(metavar="ID")] = None,
    model: Annotated[str | None, arg(metavar="PATH")] = None,
    reward: Annotated[str | None, arg(metavar="NAME")] = None,
    lora: int | None = None,
    temperature: float | None = None,
    columns: Annotated[str | None, arg(metavar="ROLE=COLUMN,...")] = None,
    steps: int | None = None,
    set: Annotated[list[str], arg(metavar="NAME=VALUE")] = [],  # noqa: B006
    seed: int = 0,
    seeds: int = 1,
    out: Annotated[Path | None, arg(metavar="DIR")] = None,
    resume: FlagConversionOff[bool] = True,
    evaluate_every: int | None = None,
    device: str | None = None,
    wandb: bool = False,
) -> None:
    """Train one recipe on data, in a task, or both.

    In Python: surpass.train(surpass.iql(temperature=3), data, steps=100_000).

    Try: surpass train iql --data hopper-medium --steps 100000 --set temperature=3

    Or: surpass train sac --task Pendulum-v1 --steps 20000

    Or: surpass train dpo --model ./my-model --data pairs.jsonl

    Or: surpass train grpo --model ./my-model --data prompts.jsonl --reward exact

    Args:
        key: The recipe, as in `surpass list`.
        data: A log: a file, a Minari id, or a data set of `surpass zoo`.
        task: An environment id, for training or for evaluation during training.
        model: A language model, by path.
        reward: The reward of completions: exact, numeric, math, regex:PATTERN, module:function, or
            the folder of a reward model.
        lora: Of a language model: train adapters of this rank instead of all weights.
        temperature: Of a language model: at which it answers and is trained; 1 by default.
        columns: Of language data: where what stands, as in prompt=question,answer=solution.
        steps: Updates (environment steps for online recipes).
        set: Hyperparameters, as in --set temperature=3; dotted paths reach into parts.
        seed: Reproduces a run on one machine.
        seeds: Train this many seeds and report each.
        out: Where checkpoints, logs and the policy go; ./runs/KEY by default.
        resume: Go on from the last checkpoint in --out.
        evaluate_every: Updates between evaluations in the task.
        device: cpu or cuda; the GPU where there is one by default.
        wandb: Also log to Weights & Biases.
    """
    from surpass.evaluation.rollouts import during
    from surpass.training.command import run
    from surpass.zoo.control import open_data

    run(
        key,
        load=open_data,
        measure=during,
        data=data,
        task=task,
        model=model,
        reward=reward,
        language={"lora": lora, "temperature": temperature, "columns": _mapping(columns)},
        steps=steps,
        settings=set,
        seed=seed,
        seeds=seeds,
        out=out,
        resume=resume,
        evaluate_every=evaluate_every,
        device=device,
        wandb=wandb,
    )


def evaluate(
    policy: Positional[str],
    /,
    *,
    logs: Annotated[str | None, arg(metavar="LOGS")] = None,
    env: Annotated[str | None, arg(metavar="ID")] = None,
    compare: Annotated[list[str], arg(metavar="POLICY")] = [],  # noqa: B006
    estimators: Annotated[str, arg(metavar="KEY,KEY")] = "auto",
    instrument: Column = None,
    episodes: int = 100,
    seeds: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    picture: Annotated[Path | None, arg(metavar="FILE")] = None,
    video: Annotated[Path | None, arg(metavar="FILE")] = None,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """What a policy is worth: from logs of another policy, or by letting it act.

    In Python: surpass.evaluate(policy, logs), or surpass.evaluate(policy, env="Hopper-v5").

    Try: surpass evaluate runs/sac --env Pendulum-v1 --compare random --picture returns.png

    Or: surpass evaluate report/policy --logs clicks.parquet --compare older/policy

    Args:
        policy: A folder of surpass train or improve; with --env also a policy of the zoo, such as
            hopper-expert, or random.
        logs: Logs to evaluate on, off-policy, with several estimators.
        env: An environment to play in: a task of ours, or a Gymnasium id.
        compare: Further policies, beside it. On logs: what choosing among them by each estimator
            would lead to (top-k portfolios, risk and return).
        estimators: Off-policy estimators, by key, separated by commas; auto takes those that fit
            the log, and says why.
        instrument: For decision logs: a column of 0 and 1 that moved the action and touches the
            reward through it only.
        episodes: How many each training seed plays.
        seeds: Play so many of the folder's training seeds; all by default.
        level: Confidence of the intervals.
        seed: Of everything random.
        picture: Draw the comparison into this file (.png, .svg, .pdf).
        video: Film an episode of the policy into this file (.gif, .mp4).
        as_json: Print JSON.
    """
    from surpass.evaluation.command import run
    from surpass.zoo.control import named_policy

    run(
        policy,
        logs=logs,
        env=env,
        compare=compare,
        estimators=estimators,
        columns={"instrument": instrument} if instrument is not None else {},
        episodes=episodes,
        seeds=seeds,
        level=level,
        seed=seed,
        picture=picture,
        video=video,
        as_json=as_json,
        named=named_policy,
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
) -> None:
    """Serve a policy over HTTP; every decision is logged with its exact propensity.

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
    """
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
    time: Column = None,
    context: Annotated[str | None, arg(metavar="A,B,C")] = None,
    set: Annotated[list[str], arg(metavar="NAME=VALUE")] = [],  # noqa: B006
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
        time: The column of the time.
        context: The context columns.
        set: Options of the monitor, as in --set run_length=200.
        table: Print a line for every batch.
        as_json: Print JSON.
    """
    from surpass.serve.monitoring_command import run

    named = {"group": group, "reward": reward, "action": action, "time": time}
    if context is not None:
        named["context"] = context
    run(
        logs,
        watch=watch,
        anchor=anchor,
        policy=policy,
        every=every,
        text=text,
        settings=set,
        columns={k: v for k, v in named.items() if v is not None},
        as_json=as_json,
        full=table,
    )


def tasks(action: Annotated[Positional[Literal["list"]], arg(metavar="list")] = "list", /) -> None:
    """Problems with known answers: batched environments, tabular models, toy languages."""
    from surpass.tasks.catalog import tasks as known

    for name, line in known().items():
        print(f"{name:24} {line}")


def zoo(
    action: Positional[Literal["list", "build"]],
    names: Positional[tuple[str, ...]] = (),
    /,
    *,
    all: bool = False,
    small: bool = False,
    force: bool = False,
    references: bool = False,
) -> None:
    """Data sets and warm-started models that the library's own methods make, cached with checksum.

    What was built is kept, and a build that was stopped goes on from its checkpoint.

    Args:
        action: list what there is, or build by name.
        names: What to build, such as hopper-medium-replay.
        all: Build everything.
        small: Build the small set only, in less than a minute.
        force: Build again what is cached.
        references: Store the returns measured for random and expert as the tasks' 0 and 100.
    """
    from surpass.zoo.command import run

    run(action, names, all=all, small=small, force=force, references=references)


def evidence(
    action: Positional[Literal["run", "table", "verify"]],
    keys: Positional[tuple[str, ...]] = (),
    /,
    *,
    family: Family | None = None,
    seeds: int | None = None,
    jobs: int = 1,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """What each system's claim came to when it was measured.

    Args:
        action: run experiments, print the table, or verify a random sample with fresh seeds.
        keys: Systems, by key.
        family: All systems of a family.
        seeds: Run this many seeds.
        jobs: Experiments side by side.
        as_json: Print JSON.
    """
    from surpass.evidence.command import run

    run(action, keys, family=family, seeds=seeds, jobs=jobs, as_json=as_json)


COMMANDS: dict[str, Callable[..., None]] = {
    "improve": improve,
    "train": train,
    "evaluate": evaluate,
    "list": list_systems,
    "show": show,
    "evidence": evidence,
    "serve": serve,
    "monitor": monitor,
    "tasks": tasks,
    "zoo": zoo,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it did its work (whatever the verdict), 2 on input that cannot be
    used."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--version"]:
        from surpass import __version__

        print(f"surpass {__version__}")
        return 0
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="surpass",
            description="A better policy with the proof, from the logs of the one you run.",
            args=argv,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except (InputError, MissingExtra) as error:
        print(f"surpass: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        kept = str(stopped) or "nothing was written"
        print(f"\nsurpass: stopped; {kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
