"""`surpass.evaluate` on files, folders and tables, and its command."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from surpass.data import open_table, write_log
from surpass.data.records import About, Decisions
from surpass.errors import InputError
from surpass.evaluation.command import run
from surpass.evaluation.policies import evaluate
from surpass.policies.action_values import LinearValues
from surpass.policies.categorical import Softmax
from surpass.policies.handover import save

A, D = 3, 2


@pytest.fixture
def made(tmp_path):
    """A log on disk, a policy folder, and the value of that policy by hand (IPS)."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3000, D, generator=g)
    mu = torch.softmax(x @ torch.randn(D, A, generator=g), -1).double()
    action = torch.multinomial(mu, 1, generator=g)
    reward = torch.bernoulli(torch.full((3000,), 0.4), generator=g).double()
    log = Decisions(
        context=x,
        action=action[:, 0],
        reward=reward,
        propensity=mu.gather(1, action)[:, 0],
        propensities=mu,
        batch_size=[3000],
    )
    log = log.described(
        About(name="made", actions=("a", "b", "c"), names={"context": ("x0", "x1")})
    )
    path = write_log(log, tmp_path / "log.parquet")
    torch.manual_seed(1)
    policy = Softmax(LinearValues(D, A), base="uniform")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_()
    save(policy, tmp_path / "policy", about=log.about, onnx=False)
    pi = policy(x, mu).detach()
    ips = (pi.gather(1, action)[:, 0] / log.propensity * reward).mean().item()
    return log, path, tmp_path / "policy", pi, ips


def test_a_folder_and_the_same_module_agree(made):
    log, _, folder, pi, ips = made
    found = evaluate({"folder": folder, "numbers": pi}, log, ["ips", "dr"])
    assert found["folder", "ips"].value == pytest.approx(ips, rel=1e-6)
    assert found["folder", "dr"].value == pytest.approx(found["numbers", "dr"].value, rel=1e-6)


def test_a_file_is_streamed_to_the_same_numbers(made):
    _, path, _, pi, ips = made
    assert evaluate(pi, path, ["ips"])["ips"].value == pytest.approx(ips, rel=1e-6)


def test_an_encoded_policy_reads_the_file_with_its_own_encoder(tmp_path, made):
    """A column of cities becomes several columns of the context, in the order the encoder saw."""
    log, path, _, _, _ = made
    table = pq.read_table(path)
    cities = pa.array(np.array(["Rome", "Oslo", "Lima"])[(log.context[:, 1] > 0).long() * 2])
    path = tmp_path / "cities.parquet"
    pq.write_table(table.append_column("city", cities).replace_schema_metadata(None), path)
    opened = open_table(path)
    read = opened.read()
    assert read.context.shape[1] > 3
    policy = Softmax(LinearValues(read.context.shape[1], A), base="uniform")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_()
    save(policy, tmp_path / "encoded", about=read.about, onnx=False)
    pi = policy(read.context, read.propensities).detach()
    ips = (pi.gather(1, read.action[:, None])[:, 0] / read.propensity * read.reward).mean().item()
    for logs in (path, opened, read):
        found = evaluate(tmp_path / "encoded", logs, ["ips"])["ips"]
        assert found.value == pytest.approx(ips, rel=1e-5)
    with pytest.raises(InputError, match="encoded otherwise"):
        evaluate(tmp_path / "encoded", log, ["ips"])


def test_the_command_prints_json_and_draws(made, tmp_path, capsys):
    _, path, folder, _, _ = made
    run(str(folder), logs=str(path), as_json=True, picture=tmp_path / "gains.png")
    stored = json.loads(capsys.readouterr().out)
    assert [r["estimator"] for r in stored["results"]][:2] == ["ips", "clipped-ips"]
    assert (tmp_path / "gains.png").read_bytes()[:4] == b"\x89PNG"
    run(str(folder), logs=str(path))
    assert "3,000 logged decisions" in capsys.readouterr().out


def test_the_command_says_what_is_missing(made):
    _, path, folder, _, _ = made
    with pytest.raises(InputError, match="--logs"):
        run(str(folder))
    with pytest.raises(InputError, match="made for 2 observation numbers"):
        run(str(folder), env="CartPole-v1")
    with pytest.raises(InputError, match="between 0 and 1"):
        run(str(folder), logs=str(path), level=95)
    with pytest.raises(InputError, match="twice"):
        run(str(folder), logs=str(path), compare=[str(folder)])


def test_the_command_compares_folders_and_draws(made, tmp_path, capsys):
    log, path, folder, _, _ = made
    torch.manual_seed(2)
    other = Softmax(LinearValues(D, A), base="uniform")
    save(other, tmp_path / "other", about=log.about, onnx=False)
    asked = {"logs": str(path), "compare": [str(tmp_path / "other")], "estimators": "ips,dr"}
    run(str(folder), **asked, picture=tmp_path / "compared.svg")
    said = capsys.readouterr().out
    assert "SharpeRatio@k" in said and "Risk and return" in said
    assert "dr on the other half" in said
    assert (tmp_path / "compared.svg").read_text().startswith("<?xml")
    run(str(folder), **asked, as_json=True)
    told = json.loads(capsys.readouterr().out)["comparison"]
    assert len(told["portfolios"]) == 4 and len(told["risks"]) == 2
