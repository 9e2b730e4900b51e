"""`surpass train`: settings become hyperparameters, and a run in a task says what it reached."""

import pytest

from surpass.cli import main
from surpass.errors import InputError
from surpass.evaluation.rollouts import during
from surpass.tasks.point import point_log
from surpass.training.command import configured, run
from surpass.training.run import load_trained, train


def test_settings_reach_the_recipe_and_into_its_parts():
    form = configured("sac", ["gamma=0.9", "hidden=8,8", "source.size=32"])
    assert form.nets["q"].hidden == (8, 8) and form.source.size == 32
    assert form.update[0].loss.gamma == 0.9


@pytest.mark.parametrize(
    ("setting", "says"),
    [("gamma", "NAME=VALUE"), ("gama=0.9", "gamma"), ("batch=many", "int expected")],
)
def test_wrong_settings_are_refused_in_one_line(setting, says):
    with pytest.raises(InputError, match=says):
        configured("sac", [setting])


def test_a_word_for_a_number_whose_default_is_none_is_refused_in_one_line():
    with pytest.raises(InputError, match="--set tau=much: a number is expected"):
        configured("clipped-ips", ["tau=much"])


def test_what_is_given_and_cannot_be_learned_from_is_named(tmp_path):
    import numpy as np

    from surpass.data import open_log

    rows = {"action": np.arange(200) % 2, "reward": np.arange(200) % 3 % 2, "x": np.arange(200.0)}
    log = open_log({**rows, "propensity": np.full(200, 0.5)}).read()
    for recipe, data, says in (
        ("iql", log, "the log holds single decisions"),
        ("iql", "log.parquet", r"open it first: surpass.open_log\('log.parquet'\).read\(\)"),
        ("grpo", "prompts.jsonl", "to train a language model on prompts.jsonl give it"),
    ):
        with pytest.raises(InputError, match=says):
            train(recipe, data, steps=1)
    with pytest.raises(InputError, match="--reward is for language models; name one with --model"):
        run("grpo", data="prompts.jsonl", reward="exact", out=tmp_path / "no")
    for option in ({"seeds": 2}, {"wandb": True}):
        with pytest.raises(InputError, match="is not for language models"):
            train("grpo", "prompts.jsonl", model="my-model", steps=1, **option)


def test_a_run_in_a_task_from_the_command_line(tmp_path, capsys):
    sizes = ["envs=4", "horizon=16", "epochs=1", "minibatches=1", "hidden=8"]
    run("ppo", task="cart-pole", steps=64 * 4, settings=sizes, out=tmp_path, measure=during)
    assert "evaluation.return" in capsys.readouterr().out
    trained = load_trained(tmp_path)
    assert trained.predict([0.0, 0.0, 0.0, 0.0]) in (0, 1)


def test_further_logs_are_handed_in_by_role(tmp_path, capsys):
    held = {"mixed": point_log("medium", 120), "good.parquet": point_log("expert", 60)}
    settings = ["hidden=8", "batch=8", "steps=3"]
    run("seabo", data="mixed", roles=["expert=good.parquet"], settings=settings, out=tmp_path,
        load=held.__getitem__)  # fmt: skip
    assert load_trained(tmp_path).predict([0.0] * 4).shape == (2,)
    capsys.readouterr()
    for role, says in (("expert", "write --role NAME=LOG"), ("task=pendulum", "given by --task")):
        with pytest.raises(InputError, match=says):
            run("seabo", data="mixed", roles=[role], load=held.__getitem__, out=tmp_path)
    with pytest.raises(InputError, match="called 'expert'"):
        run("seabo", data="mixed", settings=settings, out=tmp_path / "no", load=held.__getitem__)


def test_a_language_model_from_the_command_line(tmp_path, capsys):
    pytest.importorskip("transformers")
    pytest.importorskip("peft")
    import json

    from surpass.policies.language import LanguagePolicy
    from surpass.tasks.language import DigitStrings
    from surpass.zoo.language import prompt_rows, tiny_llama, toy_tokenizer

    task = DigitStrings("C", (2, 2))
    LanguagePolicy(tiny_llama(task, width=16), toy_tokenizer(task.vocabulary)).save(tmp_path / "m")
    rows = [{"question": r["prompt"], "solution": r["answer"]} for r in prompt_rows(task, 16)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    language = {"lora": 2, "columns": {"prompt": "question", "completion": "solution"}}
    named = {"model": str(tmp_path / "m"), "data": str(data), "language": language}
    settings, out = ["batch=8"], tmp_path / "run"
    run("sft", steps=2, settings=settings, out=out, **named)
    assert "update 2 of 2" in capsys.readouterr().out
    assert (out / "policy" / "adapter_model.safetensors").exists()
    run("sft", steps=3, settings=settings, out=out, **named)  # goes on
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 3]
    for odd in ({"steps": 0}, {"seeds": 0}):
        with pytest.raises(InputError, match="is 0; give 1 or more"):
            run("sac", task="pendulum", **odd)
    with pytest.raises(InputError, match="--lora is for language models; name one with --model"):
        run("ppo", task="cart-pole", steps=1, language={"lora": 2}, out=tmp_path / "no")


def test_columns_are_pairs_of_names():
    from surpass.cli.reading import mapping

    assert mapping("prompt=question, answer=solution") == {
        "prompt": "question", "answer": "solution"}  # fmt: skip
    assert mapping(None) is None
    with pytest.raises(InputError, match="write --columns prompt=question"):
        mapping("prompt")


def test_shares_are_read_as_fractions():
    form = configured("d3s", ["first=0.5,0.25", "over=10"])
    assert "0.5" in repr(form.select) and "0.25" in repr(form.trust)


def test_settings_given_again_add_up(monkeypatch):
    seen = {}
    monkeypatch.setattr("surpass.training.command.run", lambda key, **named: seen.update(named))
    again = ["--set", "gamma=0.9", "lr=1e-3", "--set", "batch=32", "--role", "a=b", "--role", "c=d"]
    assert main(["train", "sac", *again]) == 0
    assert seen["settings"] == ["gamma=0.9", "lr=1e-3", "batch=32"]
    assert seen["roles"] == ["a=b", "c=d"]
