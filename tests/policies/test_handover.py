"""A policy folder: reloaded it is the same policy, as ONNX it gives the same probabilities, and a
tampered one is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from surpass.data.encoders import Encoder
from surpass.data.records import About
from surpass.errors import InputError, MissingExtra
from surpass.policies import handover, onnx_graph
from surpass.policies.action_values import LinearValues, MLPValues
from surpass.policies.categorical import (
    Greedy,
    OneAction,
    ReferencePolicy,
    Softmax,
    needs_reference,
)
from surpass.policies.handover import load, save, storable
from surpass.policies.tilted import Capped, Constant, Mixture, Tilted, fit_multinomial
from surpass.policies.trees import TreeValues

N, A = 200, 4


def table() -> pa.Table:
    g = np.random.default_rng(0)
    age = g.normal(40, 12, N)
    age[::17] = np.nan
    city = g.choice(["Rome", "Oslo", "Lima"], N).astype(object)
    city[::13] = None
    return pa.table({
        "age": age,
        "visits": g.integers(0, 9, N),
        "city": pa.array(city.tolist()),
        "member": pa.array((g.random(N) < 0.5).tolist()),
        "place": pa.array([list(v) for v in g.normal(size=(N, 2))]),
        "seen": pa.array(g.integers(1_600_000_000, 1_700_000_000, N), pa.timestamp("s")),
        "url": pa.array([f"/item/{k}" for k in g.integers(0, 60, N)]),
    })  # fmt: skip


def encoder(rows: pa.Table, **options) -> Encoder:
    return Encoder.fit(rows, categorical=("visits",), **options)


def feeds(rows: pa.Table, encoder: Encoder, session) -> dict[str, np.ndarray]:
    """What a caller of the ONNX file gives: columns as they are, missing words as empty strings."""
    wanted = {i.name: i.type for i in session.get_inputs()}
    out: dict[str, np.ndarray] = {}
    for name, kind in wanted.items():
        if name not in rows.column_names:
            continue
        values = rows[name].to_pylist()
        if "string" in kind:
            words = {None: "", True: "true", False: "false"}
            plain = [words.get(v) if isinstance(v, bool | None) else str(v) for v in values]
            out[name] = np.array(plain, dtype=object)
        elif name == "seen":
            days = [
                v.timestamp() / 86400 for v in rows[name].cast(pa.timestamp("s", "UTC")).to_pylist()
            ]
            out[name] = np.array(days, dtype=np.float32)
        else:
            out[name] = np.array(values, dtype=np.float32)
    return out


def trees(d: int) -> TreeValues:
    g = np.random.default_rng(1)
    x, action = g.normal(size=(2000, d)), g.integers(0, A, 2000)
    model = HistGradientBoostingRegressor(categorical_features=[d], max_iter=12).fit(
        np.column_stack([x, action]), x[:, 0] * (action == 1) + x[:, 1] * (action == 2)
    )
    return TreeValues.of_joint(model, d, A, torch.zeros(d), torch.ones(d))


def policies(d: int) -> dict[str, torch.nn.Module]:
    torch.manual_seed(1)
    linear = LinearValues.of(torch.randn(d, A) / 20, torch.randn(A), "sigmoid", -1.0, 2.0)
    net = MLPValues(d, A, (8, 8)).standardize(torch.randn(50, d) * 10)
    torch.nn.init.normal_(net.net[-1].weight)
    tilt = Tilted(d, A, 3.0)
    tilt.theta.copy_(torch.randn(A, d + 1) / 30)
    context = torch.randn(300, d, dtype=torch.float64)
    fitted = fit_multinomial(context, torch.randint(0, A, (300,)), A)
    carried = Tilted(d, A, 1.0, fitted=fitted)
    carried.theta.copy_(tilt.theta)
    return {
        "softmax-linear": Capped(Softmax(linear, 0.2)),
        "softmax-mlp": Capped(Softmax(net), 2.0),
        "greedy-trees": Capped(Greedy(trees(d)), 1.5),
        "tilt": tilt,
        "tilt with its reference": carried,
        "one action": OneAction(2, A),
        "mixture": Mixture([Capped(Softmax(linear)), tilt, ReferencePolicy()], [0.5, 0.3, 0.2]),
    }


NAMES = tuple(policies(3))
REFERENCE = torch.rand(N, A, dtype=torch.float64) + 0.05
REFERENCE[:, 3] *= torch.arange(N) % 3 > 0  # an action that the reference sometimes never takes
REFERENCE /= REFERENCE.sum(1, keepdim=True)


@pytest.mark.parametrize("name", NAMES)
def test_reloaded_it_is_identical_and_onnx_gives_the_same_probabilities(name, tmp_path):
    rows = table()
    fitted = encoder(rows, hash_above=50, buckets=16)
    assert {c.buckets for c in fitted.categorical} == {0, 16}
    policy = policies(fitted.width)[name]
    about = About(name="test", actions=("a", "b", "c", "d"), encoder=fitted)
    assert save(policy, tmp_path / "p", about=about) == "written"
    again = load(tmp_path / "p")
    context = fitted.transform(rows)
    before, after = policy(context, REFERENCE), again(again.encode(rows), REFERENCE)
    assert torch.equal(before, after)
    assert all(torch.equal(a, b) for a, b in zip(
        policy.state_dict().values(), again.policy.state_dict().values(), strict=True))  # fmt: skip
    assert again.actions == about.actions
    assert again.needs_reference == needs_reference(policy)

    session = onnxruntime.InferenceSession(str(tmp_path / "p" / "policy.onnx"))
    given = feeds(rows, fitted, session)
    reference = REFERENCE
    if again.needs_reference:
        given["reference"] = REFERENCE.float().numpy()
    else:
        reference = torch.full_like(REFERENCE, 1 / A)
    (theirs,) = session.run(None, given)
    ours = again.probabilities(rows, reference)
    np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5, rtol=0)
    (one,) = session.run(None, {k: v[:1] for k, v in given.items()})  # any number of rows
    np.testing.assert_allclose(one, theirs[:1], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("numeric", "flagged", "levels", "empty"),
    [(True, False, 0, False), (True, True, 3, True), (False, False, 5, False),
     (False, False, 0, True)],
)  # fmt: skip
def test_encoders_of_every_kind_are_inside_the_graph(tmp_path, numeric, flagged, levels, empty):
    columns: dict[str, list] = {}
    if numeric:
        columns["x"] = [None if flagged and i == 2 else float(i) for i in range(40)]
    if levels or not numeric:
        columns["w"] = [None if empty and i % 7 == 3 else f"w{i % max(levels, 1)}"
                        for i in range(40)]  # fmt: skip
    rows = pa.table(columns)
    fitted = Encoder.fit(rows)
    folder = tmp_path
    linear = LinearValues.of(torch.randn(fitted.width, 3), torch.randn(3))
    save(Softmax(linear, base="uniform"), folder, about=About(encoder=fitted), actions="xyz")
    session = onnxruntime.InferenceSession(str(folder / "policy.onnx"))
    fresh = pa.table({
        k: [*v[:9], "never seen" if k == "w" else 99.0] for k, v in columns.items()
    })  # fmt: skip
    (theirs,) = session.run(None, feeds(fresh, fitted, session))
    np.testing.assert_allclose(theirs, load(folder).probabilities(fresh).numpy(), atol=1e-5)


def test_without_an_encoder_the_input_is_the_context(tmp_path):
    policy = policies(3)["softmax-mlp"]
    save(policy, tmp_path, actions=list("abcd"))
    session = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx"))
    x = torch.randn(7, 3)
    (theirs,) = session.run(
        None, {"context": x.numpy(), "reference": REFERENCE[:7].float().numpy()}
    )
    np.testing.assert_allclose(theirs, policy(x, REFERENCE[:7]).detach().numpy(), atol=1e-5)


def test_a_reference_that_is_the_same_everywhere_is_carried(tmp_path):
    policy = policies(3)["tilt"]
    rho = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    save(policy, tmp_path, reference=rho, actions=list("abcd"))
    again = load(tmp_path)
    x = torch.randn(5, 3)
    assert not again.needs_reference
    torch.testing.assert_close(again(x), policy(x, rho.expand(5, -1)))
    # what is not on offer is out, and the reference is scaled to the rest
    offered = torch.tensor([True, True, False, True]).expand(5, -1)
    rest = torch.tensor([0.5, 0.375, 0.0, 0.125], dtype=torch.float64).expand(5, -1)
    torch.testing.assert_close(again.probabilities(x, None, offered), policy(x, rest))
    session = onnxruntime.InferenceSession(str(tmp_path / "policy.onnx"))
    assert [i.name for i in session.get_inputs()] == ["context"]
    (theirs,) = session.run(None, {"context": x.numpy()})
    np.testing.assert_allclose(theirs, again.probabilities(x).numpy(), atol=1e-5)


def test_a_reloaded_policy_can_be_handed_over_again(tmp_path):
    rows = table()
    fitted = encoder(rows)
    policy = policies(fitted.width)["tilt with its reference"]
    save(policy, tmp_path / "one", about=About(actions=tuple("abcd"), encoder=fitted))
    save(load(tmp_path / "one"), tmp_path / "two")
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert torch.equal(one.probabilities(rows), two.probabilities(rows))
    assert one.predict(rows) == [one.actions[a] for a in one.probabilities(rows).argmax(1)]
    action, p = one.sample(rows, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(p, one.probabilities(rows).gather(1, action[:, None])[:, 0])


def changed(folder, **entries):
    path = folder / "policy.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_tampered_folders_are_refused_in_one_line(tmp_path):
    def fresh():
        save(policies(3)["tilt"], tmp_path, actions=list("abcd"), onnx=False)
        return json.loads((tmp_path / "policy.json").read_text())

    def refused(pattern):
        with pytest.raises(InputError, match=pattern) as caught:
            load(tmp_path)
        assert "\n" not in str(caught.value)

    card = fresh()
    changed(tmp_path, policy={"class": "subprocess.Popen", "config": {"args": "true"}})
    refused("subprocess.Popen")
    fresh()
    changed(tmp_path, policy={"class": "LinearValues", "config": {"n_inputs": 3, "n_actions": 4}})
    refused("cannot be rebuilt|not a policy")
    fresh()
    config = {**card["policy"]["config"], "n_actions": 5}
    changed(tmp_path, policy={"class": "Tilted", "config": config})
    refused("cannot be rebuilt")
    fresh()
    changed(tmp_path, policy={"class": "Tilted", "config": {"size": 3}})
    refused("cannot be rebuilt")
    fresh()
    changed(tmp_path, format=99)
    refused("format 99")
    fresh()
    changed(tmp_path, actions="abcd")
    refused("'actions' is missing or of the wrong kind")
    fresh()
    (tmp_path / "policy.json").write_text("{")
    refused("cannot be read")
    fresh()
    data = bytearray((tmp_path / "policy.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "policy.safetensors").write_bytes(bytes(data))
    refused("checksum differs")
    changed(tmp_path, sha256=hashlib.sha256(b"junk").hexdigest())
    (tmp_path / "policy.safetensors").write_bytes(b"junk")
    refused("cannot be rebuilt")
    (tmp_path / "policy.safetensors").write_bytes(safetensors.torch.save({"x": torch.ones(1)}))
    changed(tmp_path, sha256=hashlib.sha256(
        (tmp_path / "policy.safetensors").read_bytes()).hexdigest())  # fmt: skip
    refused("cannot be rebuilt")
    (tmp_path / "policy.json").unlink()
    refused("not a policy folder")


def test_without_the_extra_everything_but_onnx_is_written(tmp_path, monkeypatch):
    def missing(module):
        raise MissingExtra("onnx is not installed; it comes with the extra: surpass[serve]")

    policy = policies(3)["tilt"]
    save(policy, tmp_path, actions=list("abcd"))
    monkeypatch.setattr(onnx_graph, "extra", missing)
    assert "surpass[serve]" in save(policy, tmp_path, actions=list("abcd"))
    assert not (tmp_path / "policy.onnx").exists()  # no graph of an older policy stays behind
    assert "left out" in json.loads((tmp_path / "policy.json").read_text())["onnx"]
    x = torch.randn(4, 3)
    assert torch.equal(load(tmp_path)(x, REFERENCE[:4]), policy(x, REFERENCE[:4]))


class Sorted(LinearValues):
    def forward(self, context):
        return super().forward(context).sort(-1).values


def test_what_has_no_translation_is_named_and_what_is_not_ours_is_not_stored(tmp_path, monkeypatch):
    values = Sorted.of(torch.randn(3, 4), torch.randn(4))
    assert not storable(Softmax(values))
    with pytest.raises(InputError, match="Sorted is not a registered policy class"):
        save(Softmax(values), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    from surpass.policies import tilted

    monkeypatch.setitem(tilted.POLICIES, "Sorted", Sorted)
    assert storable(Softmax(values))
    why = save(Softmax(values), tmp_path / "yes")
    assert why.startswith("left out") and "sort" in why
    assert storable(load(tmp_path / "yes"))


def test_a_report_folder_is_opened_at_its_policy(tmp_path):
    save(Constant(2, [0.25, 0.75]), tmp_path / "policy", actions=["no", "yes"])
    assert load(tmp_path).predict(torch.zeros(2, 1)) == ["yes", "yes"]
    with pytest.raises(InputError, match="context column 'x' is missing"):
        handover.HandedPolicy(OneAction(0, 2), ("a", "b"), context=("x",)).predict({"y": [1.0]})
