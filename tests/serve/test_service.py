"""The decision service: what it logs is what it did, whatever happens in between, and the log goes
back into the job."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from starlette.testclient import TestClient

from surpass.data import open_log
from surpass.data.encoders import Encoder
from surpass.data.records import About
from surpass.errors import InputError
from surpass.policies.action_values import LinearValues
from surpass.policies.categorical import Softmax, WithReference
from surpass.policies.handover import HandedPolicy, load, save
from surpass.policies.tilted import Capped, Constant
from surpass.serve.log import JOURNAL, DecisionLog, Unknown, log_schema
from surpass.serve.service import Decider, create_app, run

ACTIONS = ("mail", "call", "wait")


def contexts(n: int) -> list[dict]:
    g = np.random.default_rng(3)
    return [
        {
            "age": None if i % 19 == 0 else float(g.normal(40, 9)),
            "city": None if i % 23 == 0 else str(g.choice(["Rome", "Oslo", "Lima"])),
            "member": bool(i % 2),
            "place": [float(v) for v in g.normal(size=2)],
            "seen": f"2025-03-{1 + i % 27:02d}T12:00:00+00:00",
        }
        for i in range(n)
    ]


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows).set_column(
        4, "seen", pa.array([r["seen"] for r in rows]).cast(pa.timestamp("us", "UTC"))
    )


@pytest.fixture
def policy(tmp_path) -> HandedPolicy:
    torch.manual_seed(4)
    encoder = Encoder.fit(table(contexts(300)))
    weight = torch.randn(encoder.width, 3) / 100
    weight[encoder.names.index("seen")] /= 20_000  # days since 1970
    values = LinearValues.of(weight, torch.randn(3) / 5)
    inner = Capped(Softmax(values))
    about = About(actions=ACTIONS, encoder=encoder)
    save(inner, tmp_path / "policy", about=about, reference=[0.5, 0.3, 0.2], onnx=False)
    return load(tmp_path / "policy")


def test_round_trip_from_requests_to_the_reader_with_exact_propensities(policy, tmp_path):
    rows = contexts(150)
    decider = Decider(policy, tmp_path / "log", seed=1, part_rows=60)
    said, rewards = [], []
    with TestClient(create_app(decider)) as client:
        for i, row in enumerate(rows):
            offered = {"available": ["mail", "wait"]} if i % 10 == 0 else {}
            answer = client.post("/decide", json={"context": row, **offered})
            assert answer.status_code == 200
            said.append(answer.json())
        for i, one in enumerate(said):
            rewards.append(float(i % 3 == 0))
            told = client.post("/reward", json={"id": one["id"], "reward": rewards[-1]})
            assert told.status_code == 200
        assert client.get("/health").json()["log"] == {
            "waiting": 0, "rewarded": 30, "written": 120,
        }  # fmt: skip
    assert len(decider.log.parts) == 3  # the last when the service stopped

    log = open_log(tmp_path / "log", encoder=policy.encoder).read()
    order = {one["id"]: i for i, one in enumerate(said)}
    written = pa.concat_tables([pq.read_table(p) for p in decider.log.parts])
    place = torch.tensor([order[i] for i in written["request_id"].to_pylist()])
    available = torch.ones(150, 3, dtype=torch.bool)
    available[::10, 1] = False
    exact = policy.probabilities(table(rows), None, available)[place]
    torch.testing.assert_close(log.propensities.double(), exact, atol=1e-7, rtol=0)
    assert torch.equal(log.available, available[place])
    actions = [ACTIONS.index(said[i]["action"]) for i in place]
    assert log.about.actions == ACTIONS and log.action.tolist() == actions
    assert log.reward.tolist() == [rewards[i] for i in place]
    torch.testing.assert_close(log.context, policy.encode(table(rows))[place])
    stored = np.array(written["propensity"].to_pylist())  # in double precision in the file itself
    np.testing.assert_array_equal(stored, [said[i]["probability"] for i in place])
    np.testing.assert_allclose(
        stored, exact.gather(1, torch.tensor(actions)[:, None])[:, 0].numpy(), rtol=1e-14
    )


def test_actions_are_drawn_as_often_as_their_propensity_says(policy, tmp_path):
    decider = Decider(policy, tmp_path / "log", seed=2)
    row = contexts(2)[1]
    p = policy.probabilities(table([row]))[0]
    drawn = [decider.decide({"context": row})["action"] for _ in range(1000)]
    assert float(p.min()) > 0.1 and float(p.max()) < 0.8
    for a, name in enumerate(ACTIONS):
        spread = float((p[a] * (1 - p[a]) / 1000).sqrt())
        assert abs(drawn.count(name) / 1000 - float(p[a])) < 4.5 * spread
    decider.log.close()


def test_the_log_of_a_service_goes_back_into_the_job(policy, tmp_path):
    """The served policy is uniform; one action is better; the job sees it in the service's log."""
    uniform = WithReference(Constant(3), Constant(3))
    handed = HandedPolicy(uniform, ACTIONS, policy.encoder)
    decider = Decider(handed, tmp_path / "log", seed=5)
    g = np.random.default_rng(0)
    for row in contexts(900):
        said = decider.decide({"context": row})
        rate = 0.75 if said["action"] == "call" else 0.25
        decider.reward({"id": said["id"], "reward": int(g.random() < rate)})
    decider.log.close()
    from surpass.improve.job import improve

    result = improve(tmp_path / "log", methods=["tilt"], reward_range=(0, 1))
    assert result.verdict == "PROMOTE"
    assert 0.1 < result.best.gain < 0.5


def schema() -> pa.Schema:
    return log_schema({"x": pa.float64()}, ("a", "b"))


def decision(x: float) -> dict:
    return {"x": x, "action": "a", "propensity": 0.5, "propensity_a": 0.5, "propensity_b": 0.5,
            "available_a": True, "available_b": True}  # fmt: skip


def crashed(log: DecisionLog) -> None:
    """What a killed process leaves: files as they are, the lock released."""
    log._journal.close()
    log._held.close()


def column(folder, name: str) -> list:
    return [v for p in sorted(folder.glob("part-*")) for v in pq.read_table(p)[name].to_pylist()]


def test_nothing_that_was_acknowledged_is_lost_in_a_crash(tmp_path):
    log = DecisionLog(tmp_path, schema())
    first, second = log.decided(decision(1.0)), log.decided(decision(2.0))
    log.rewarded(first, 1.0)
    crashed(log)
    with (tmp_path / JOURNAL).open("a") as lines:
        lines.write('{"reward": 1.0, "requ')  # cut short, never acknowledged
    again = DecisionLog(tmp_path, schema())
    assert again.counts == {"waiting": 1, "rewarded": 1, "written": 0}
    again.rewarded(second, 0.5)
    again.close()
    assert column(tmp_path, "x") == [1.0, 2.0]
    assert column(tmp_path, "reward") == [1.0, 0.5]


def test_a_crash_between_part_and_journal_repeats_no_row(tmp_path):
    log = DecisionLog(tmp_path, schema())
    number, open_one = log.decided(decision(1.0)), log.decided(decision(2.0))
    log.rewarded(number, 1.0)
    kept = (tmp_path / JOURNAL).read_bytes()
    log.flush()
    crashed(log)
    (tmp_path / JOURNAL).write_bytes(kept)  # as it was before the journal was rewritten
    again = DecisionLog(tmp_path, schema())
    assert again.counts == {"waiting": 1, "rewarded": 0, "written": 1}
    again.rewarded(number, 1.0)  # told twice, taken once
    with pytest.raises(InputError, match="has the reward 1 already"):
        again.rewarded(number, 0.0)
    again.rewarded(open_one, 0.0)
    again.close()
    assert column(tmp_path, "x") == [1.0, 2.0]


def test_silence_can_be_a_reward_and_late_rewards_are_refused(tmp_path):
    clock = [1000.0]
    log = DecisionLog(tmp_path, schema(), default_reward=0.0, patience=60, now=lambda: clock[0])
    early, late = log.decided(decision(1.0)), log.decided(decision(2.0))
    clock[0] += 59
    log.rewarded(early, 1.0)
    clock[0] += 2
    log.flush()
    assert column(tmp_path, "reward") == [1.0, 0.0]
    with pytest.raises(InputError, match="has the reward 0 already"):
        log.rewarded(late, 1.0)
    with pytest.raises(Unknown):
        log.rewarded("nothing", 1.0)
    log.close()


def test_parts_are_written_after_a_while(tmp_path):
    clock = [0.0]
    log = DecisionLog(tmp_path, schema(), part_seconds=10, now=lambda: clock[0])
    log.rewarded(log.decided(decision(1.0)), 1.0)
    assert log.parts == []
    clock[0] = 11.0
    log.decided(decision(2.0))
    assert column(tmp_path, "x") == [1.0]
    log.close()


def test_a_folder_belongs_to_one_service_and_one_kind_of_decision(tmp_path):
    log = DecisionLog(tmp_path, schema())
    with pytest.raises(InputError, match="in use by another service"):
        DecisionLog(tmp_path, schema())
    log.rewarded(log.decided(decision(1.0)), 1.0)
    log.close()
    with pytest.raises(InputError, match="of another policy"):
        DecisionLog(tmp_path, log_schema({"y": pa.float64()}, ("a", "b")))
    with pytest.raises(InputError, match="'action', which the log needs for itself"):
        log_schema({"action": pa.float64()}, ("a", "b"))
    (tmp_path / JOURNAL).write_text("{broken\n{}\n")
    with pytest.raises(InputError, match="line 1 is damaged"):
        DecisionLog(tmp_path, schema())


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/decide", {}, 422, "'context' is missing"),
        ("/decide", {"contxt": {}}, 422, "did you mean 'context'"),
        ("/decide", {"context": {"agee": 3}}, 422, "did you mean 'age'"),
        ("/decide", {"context": {"age": 3}}, 422, "is missing; null says"),
        ("/decide", {"age": "old"}, 422, "'age' holds 'old'; give a number"),
        ("/decide", {"city": ["Rome"]}, 422, "'city' holds"),
        ("/decide", {"place": [1, "x"]}, 422, "give a number"),
        ("/decide", {"seen": "yesterday"}, 422, "ISO 8601"),
        ("/decide", {"available": ["fax"]}, 422, "no action of this policy"),
        ("/decide", {"available": []}, 422, "list of the names"),
        ("/decide", {"reference": [0.5, 0.6, 0.2]}, 422, "sum to 1"),
        ("/reward", {"id": "x"}, 422, "'reward' is missing"),
        ("/reward", {"id": "x", "reward": 1}, 404, "no decision 'x'"),
        ("/reward", {"id": "x", "reward": True}, 422, "give a number"),
    ],
)
def test_bad_requests_get_one_clear_line(policy, tmp_path, path, body, status, text):
    whole = contexts(2)[1]
    if path == "/decide" and "context" not in body and "contxt" not in body and body:
        field = next(iter(body))
        body = ({"context": whole, **body} if field in ("available", "reference")
                else {"context": {**whole, **body}})  # fmt: skip
    decider = Decider(policy, tmp_path / "log")
    with TestClient(create_app(decider)) as client:
        answer = client.post(path, json=body)
        assert answer.status_code == status
        assert text in answer.json()["error"] and "\n" not in answer.json()["error"]
        broken = client.post(path, content=b"{", headers={"content-type": "application/json"})
        assert broken.status_code == 422 and "not a JSON object" in broken.json()["error"]
        assert client.get("/health").json()["log"]["waiting"] == 0


def test_a_port_that_is_none_is_one_line(policy, tmp_path):
    with pytest.raises(InputError, match=r"99999 cannot be listened on: .* another --port"):
        run(tmp_path / "policy", logs=tmp_path / "log", port=99_999)
    assert not (tmp_path / "log").exists()


def test_numbers_without_an_encoder_and_a_reference_with_every_decision(tmp_path):
    values = LinearValues.of(torch.eye(2), torch.zeros(2))
    save(Capped(Softmax(values)), tmp_path / "p", actions=("a", "b"), onnx=False)
    handed = load(tmp_path / "p")
    decider = Decider(handed, tmp_path / "log", seed=0)
    with pytest.raises(InputError, match="moves away from a reference"):
        decider.decide({"context": [1.0, 2.0]})
    said = decider.decide({"context": [1.0, 2.0], "reference": {"a": 0.25, "b": 0.75}})
    p = handed.probabilities(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.25, 0.75]]))
    assert said["probability"] == pytest.approx(float(p[0, ACTIONS_AB[said["action"]]]), rel=1e-12)
    with pytest.raises(InputError, match="'context_1' is missing"):
        decider.decide({"context": {"context_0": 1.0}})
    with pytest.raises(InputError, match="this policy needs a number"):
        decider.decide({"context": [1.0, None], "reference": [0.5, 0.5]})
    decider.log.close()
    shutil.rmtree(tmp_path / "log")


ACTIONS_AB = {"a": 0, "b": 1}


def test_the_journal_is_plain_json(tmp_path):
    log = DecisionLog(tmp_path, schema())
    log.rewarded(log.decided(decision(1.5)), 2.0)
    events = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [sorted(e) for e in events] == [["decision"], ["request_id", "reward"]]
    assert events[0]["decision"]["x"] == 1.5 and events[1]["reward"] == 2.0
    log.close()
