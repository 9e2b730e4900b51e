"""Both executors, one gradient: the same recipe on the same decisions, once compiled on a softmax
over a table, once as a module whose next token has that softmax."""

import pytest
import torch

from surpass.data.records import Pairs, Sequences
from surpass.errors import InputError
from surpass.forms import Adam, Pairwise, PolicyGradient, Scored, Spaces, copy, rollouts
from surpass.objectives.advantage import group_standardized
from surpass.objectives.descent import divided_by, orthogonal
from surpass.objectives.divergence import entropy_bonus, k3
from surpass.objectives.preference import chosen_nll, logistic, regression
from surpass.objectives.trust import clip
from surpass.parts import part
from surpass.policies.language import LanguagePolicy
from surpass.training.engine import Engine
from surpass.training.language_streams import Batch
from surpass.training.modules import ModuleTrainer
from surpass.training.on_policy import lowered
from surpass.training.preferences import PairSurrogate, SequenceLog, lowered_preferences
from surpass.training.rollouts import SequenceRows

V, ROWS, LONG = 7, 8, 5
ADAM = Adam(0.5, eps=0.1)  # an update is monotone in the gradient: the same weights, the same ones


class Config:
    vocab_size, eos_token_id, max_position_embeddings = V, None, 64


class Bigram(torch.nn.Module):
    """The next token's logits are a row of a table: a causal language model, and a softmax policy
    whose observation is the last token, one-hot."""

    config = Config

    def __init__(self, shift=0.0):
        super().__init__()
        table = torch.randn(V, V, generator=torch.Generator().manual_seed(0))
        self.table = torch.nn.Parameter(table + shift * torch.eye(V))

    def get_output_embeddings(self):
        return None

    def forward(self, input_ids, **_):
        return type("Output", (), {"logits": self.table[input_ids]})

    def logits(self, obs):
        return obs @ self.table


@part
def table_policy(spaces, /, shift: float = 0.0):
    return Bigram(shift)


def sequences(seed):
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, V, (ROWS, LONG + 1), generator=g)
    mask = (torch.arange(LONG) < torch.randint(2, LONG + 1, (ROWS, 1), generator=g)).float()
    mask[0, 1] = 0.0  # a tool's turn
    return Sequences(
        action=tokens[:, 1:], mask=mask, prompt=tokens[:, :1],
        prompt_mask=torch.ones(ROWS, 1), obs=torch.nn.functional.one_hot(tokens[:, :-1], V).float(),
        reward=mask * torch.randn(ROWS, LONG, generator=g), group=torch.arange(ROWS) // 4,
        behavior_logp=-2 * torch.rand(ROWS, LONG, generator=g), batch_size=[ROWS],
    )  # fmt: skip


class Fixed:
    """One batch again and again."""

    fixed, exact, names, spent = False, True, ("own",), 0

    def __init__(self, batch, columns):
        self.batch, self.tables = batch, columns

    def next(self):
        return self.batch

    def sample(self, tables, size=None):
        return SequenceRows(tables)

    def before(self, updates):
        pass


@part
def in_terms(s, /):
    """A loss of two terms that pull apart."""
    return {"forward": logistic(0.5)(s), "backward": 3.0 * chosen_nll()(s)}


@part
def clip_in_terms(s, /):
    loss = clip(0.1, 0.1)(s)
    return {"kept": loss, "removed": 0.1 * s.logp.square()}


def after(form, piece=None, updates=2):
    """The table after some updates by each executor."""
    seq, other = sequences(1), sequences(2)
    gradient_form = isinstance(form, PolicyGradient)
    if gradient_form:
        batch = Batch("the batch", sequences=seq, exact=True)
    elif isinstance(form, Pairwise):
        batch = Batch("the batch", pairs=Pairs(chosen=seq, rejected=other, batch_size=[ROWS]))
    else:
        batch = Batch("the batch", sequences=seq)
    module = Bigram(0.3)
    reference = LanguagePolicy(Bigram(0.0).requires_grad_(False))
    trainer = ModuleTrainer(form, LanguagePolicy(module), Fixed(batch, {}), piece=piece,
                            roles={"reference": reference})  # fmt: skip
    learner = lowered(form) if gradient_form else lowered_preferences(form)
    nets = {**learner.nets, "policy": table_policy(0.3), "reference": table_policy(0.0)}
    learner = type(learner)(nets, learner.update, learner.act, learner.source)
    if gradient_form:
        found = group_standardized()(seq)
        ref = reference.score(seq).logp
        columns = {n: getattr(seq, n) for n in ("obs", "action", "mask", "reward", "group",
                                                "behavior_logp")}  # fmt: skip
        columns |= {"advantage": found, "anchor_logp": seq.behavior_logp, "ref_logp": ref}
        stream = Fixed(batch, columns)
    else:
        stream = SequenceLog(batch.pairs if batch.pairs is not None else batch.sequences, ROWS)
    engine = Engine(learner, stream, Spaces(V, n_actions=V), compile=False)
    start = module.table.detach().clone()
    torch.testing.assert_close(engine.bank.policy.table.detach(), start)
    engine.advance(updates)
    for _ in range(updates // form.epochs if gradient_form else updates):
        trainer.update()
    assert (module.table - start).abs().max() > 1e-2
    return module.table.detach(), engine.state["net.policy.table"]


FORMS = {
    "policy gradient": PolicyGradient(
        group_standardized(), clip() + 0.3 * k3() + 0.1 * entropy_bonus(), epochs=2,
        source=rollouts(ROWS, LONG, 4), nets={"reference": copy("policy")}, optimizer=ADAM,
    ),
    "divided": PolicyGradient(
        group_standardized(), clip_in_terms(), epochs=2, source=rollouts(ROWS, LONG, 4),
        gradient=divided_by("removed", warmup=2, literal=True), optimizer=ADAM,
    ),
    "pairs": Pairwise(logistic(0.5) + 0.2 * chosen_nll(), optimizer=ADAM),
    "orthogonal": Pairwise(
        in_terms(), gradient=orthogonal("forward", "backward", 0.7), optimizer=ADAM
    ),
    "scored": Scored(regression(0.5), optimizer=ADAM),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("piece", [None, 3])
def test_both_executors_make_the_same_updates(name, piece):
    ours, compiled = after(FORMS[name], piece)
    torch.testing.assert_close(ours, compiled, rtol=1e-4, atol=1e-5)


def test_a_rule_changes_the_update_and_names_terms_that_are_not_there():
    with_rule, _ = after(FORMS["orthogonal"])
    without, _ = after(Pairwise(in_terms(), optimizer=ADAM))
    assert (with_rule - without).abs().max() > 1e-3
    wrong = Pairwise(in_terms(), gradient=orthogonal("forward", "sideways"), optimizer=ADAM)
    with pytest.raises(InputError, match=r"'sideways'; the loss has forward, backward"):
        after(wrong)


def test_control_refuses_what_it_does_not_have():
    from surpass.methods.preference.scored import kto

    with pytest.raises(InputError, match="'mismatched'"):
        lowered_preferences(kto())
    pairs = lowered_preferences(Pairwise(logistic()))
    assert isinstance(pairs.update[0].loss, PairSurrogate) and pairs.update[0].loss.reference


def test_dpo_on_pairs_of_control_finds_the_preferred_action():
    """Action 1 is preferred wherever it stands."""
    from surpass.methods.preference.pairs import dpo
    from surpass.tasks.catalog import task
    from surpass.training.run import train

    cart = task("cart-pole")
    g = torch.Generator().manual_seed(0)
    obs = torch.randn(64, 3, cart.spaces.obs_dim, generator=g)

    def acting(action):
        return Sequences(action=torch.full((64, 3), action), mask=torch.ones(64, 3), obs=obs,
                         batch_size=[64])  # fmt: skip

    pairs = Pairs(chosen=acting(1), rejected=acting(0), batch_size=[64])
    made = train(dpo(beta=1.0, lr=1e-2, batch=32), pairs, task=cart, steps=40, compile=False)
    logp = made.nets.policy.logits(obs.flatten(0, 1)).log_softmax(-1)
    assert logp[:, 1].exp().mean() > 0.85  # a half at the start
