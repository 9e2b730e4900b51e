"""One method or one policy at a time: train, evaluate, and the problems and logs to do it on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagConversionOff, Positional, arg

from surpass.cli.reading import Column, Many, flat, mapping, named

__all__ = ["evaluate", "tasks", "train", "zoo"]


def train(
    key: Positional[str],
    /,
    *,
    data: Annotated[str | None, arg(metavar="LOG")] = None,
    task: Annotated[str | None, arg(metavar="ID")] = None,
    role: Annotated[Many, arg(metavar="NAME=LOG")] = [],  # noqa: B006
    model: Annotated[str | None, arg(metavar="PATH")] = None,
    reward: Annotated[str | None, arg(metavar="NAME")] = None,
    lora: int | None = None,
    temperature: float | None = None,
    columns: Annotated[str | None, arg(metavar="ROLE=COLUMN,...")] = None,
    piece: int | None = None,
    packing: bool = False,
    checkpointing: bool = False,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    sampler: Literal["own", "vllm"] = "own",
    steps: int | None = None,
    set: Annotated[Many, arg(metavar="NAME=VALUE")] = [],  # noqa: B006
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

    Or: surpass train seabo --data hopper-medium --role expert=good.parquet

    Or: surpass train dpo --model ./my-model --data pairs.jsonl

    Or: surpass train grpo --model ./my-model --data prompts.jsonl --reward exact

    Or: surpass train st-ppo --model hop-reference --task hop-search --set horizon=4 lr=1.5e-4

    Args:
        key: The recipe, as in `surpass list`.
        data: A log: a file, minari:ID, or a data set of `surpass zoo`.
        task: An environment id, for training or for evaluation during training.
        role: A further log, by the name that the recipe asks for it.
        model: A language model, by path, or a small one of `surpass zoo`.
        reward: The reward of completions: exact, numeric, math, regex:PATTERN, module:function, or
            the folder of a reward model.
        lora: Of a language model: train adapters of this rank instead of all weights.
        temperature: Of a language model: at which it answers and is trained; that which it was
            saved with by default, else 1.
        columns: Of language data: where what stands, as in prompt=question,answer=solution.
        piece: Of a language model: rows per forward pass, where a batch does not fit into memory.
        packing: Of a language model: several sequences in a row, where lengths differ much.
        checkpointing: Of a language model: compute activations again instead of keeping them.
        precision: Of a language model: bf16 computes products in bfloat16; auto does where the GPU
            has it.
        sampler: Of a language model: who samples answers; vllm where it is installed, on a GPU.
        steps: Updates (environment steps for online recipes).
        set: Hyperparameters, as in --set temperature=3 lr=1e-4; dotted paths reach into parts.
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

    if model is not None:
        from surpass.zoo.language import named_model

        model = named_model(model)
    run(
        key,
        load=open_data,
        measure=during,
        data=data,
        task=task,
        roles=flat(role),
        model=model,
        reward=reward,
        language={
            "lora": lora,
            "temperature": temperature,
            "columns": mapping(columns),
            "piece": piece,
            "packing": packing or None,
            "checkpointing": checkpointing or None,
            "precision": precision if precision != "auto" else None,
            "sampler": sampler if sampler != "own" else None,
        },
        steps=steps,
        settings=flat(set),
        seed=seed,
        seeds=seeds,
        out=out,
        resume=resume,
        evaluate_every=evaluate_every,
        device=device,
        wandb=wandb,
    )


def evaluate(
    policy: Annotated[Positional[str], arg(metavar="POLICY")],
    /,
    *,
    logs: Annotated[str | None, arg(metavar="LOGS")] = None,
    env: Annotated[str | None, arg(metavar="ID")] = None,
    compare: Annotated[Many, arg(metavar="POLICY")] = [],  # noqa: B006
    estimators: Annotated[str, arg(metavar="KEY,KEY")] = "auto",
    action: Column = None,
    reward: Column = None,
    propensity: Column = None,
    context: Annotated[str | None, arg(metavar="A,B,C")] = None,
    time: Column = None,
    position: Column = None,
    group: Column = None,
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

    Or: surpass evaluate report/policy --logs clicks.csv --reward sold --propensity chance

    Args:
        policy: A folder of surpass train or improve; with --env also a policy of the zoo, such as
            hopper-expert, or random.
        logs: Logs to evaluate on, off-policy, with several estimators.
        env: An environment to play in: a task of ours, or a Gymnasium id.
        compare: Further policies, beside it. On logs: what choosing among them by each estimator
            would lead to (top-k portfolios, risk and return).
        estimators: Off-policy estimators, by key, separated by commas; auto takes those that fit
            the log, and says why.
        action: For decision logs: the column that holds the action; guessed, as those below, where
            it is not named.
        reward: The column that holds the reward.
        propensity: The probability with which the logged action was chosen, a prefix of columns
            that hold all actions' probabilities, or uniform.
        context: The columns the policy may look at; all that remain by default.
        time: The column that orders the rows in time.
        position: The slot in which the action was shown.
        group: Rows with one value of it (a user, a session) count as one unit.
        instrument: A column of 0 and 1 that moved the action and touches the reward through it
            only.
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
        compare=flat(compare),
        estimators=estimators,
        columns=named(
            action=action,
            reward=reward,
            propensity=propensity,
            context=context,
            time=time,
            position=position,
            group=group,
            instrument=instrument,
        ),
        episodes=episodes,
        seeds=seeds,
        level=level,
        seed=seed,
        picture=picture,
        video=video,
        as_json=as_json,
        named=named_policy,
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
