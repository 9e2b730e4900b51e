"""Toy languages: hand-written answers, brute-force oracles, the accuracy of faulty traces."""

import itertools

import pytest
import torch

from surpass.errors import InputError
from surpass.tasks.language import (
    Countdown,
    DigitStrings,
    LanguageTask,
    ModSum,
    Prompts,
    as_sequences,
)
from surpass.tasks.tables import lock_table, random_tree, sumtriple_table
from surpass.tasks.unnamed import ShownOrGuessed, UnnamedStrings


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(task, tokens):
    return [task.vocabulary.decode(row) for row in tokens]


def rows(task, *answers):
    """Responses by hand, $ for EOS, padded to the task's width."""
    v, width = task.vocabulary, task.response_length
    coded = [v.encode(["EOS" if c == "$" else c for c in a]) for a in answers]
    return torch.tensor([c + [v.pad] * (width - len(c)) for c in coded])


def test_modsum_prompts_and_traces_by_hand():
    task = ModSum((2, 4))
    prompts = task.prompts(200, seeded())
    traces = task.traces(prompts, seeded(1))
    assert set(prompts.kind.tolist()) == {2, 3, 4}
    for text, answer, n, mask, width in zip(
        texts(task, prompts.tokens),
        texts(task, traces.action),
        prompts.kind.tolist(),
        traces.mask,
        prompts.mask.sum(1).tolist(),
        strict=True,
    ):
        digits = [int(d) for d in text.rstrip("=").split("+")]
        sums = [sum(digits[: i + 1]) % 10 for i in range(n)]
        assert len(digits) == n and width == 2 * n + 1
        assert answer == "".join(map(str, sums)) + f";{sums[-1]}"
        assert int(mask.sum()) == n + 3
    assert traces.total.min() == 1.0
    assert (prompts.tokens[prompts.mask == 0] == task.vocabulary.pad).all()


def test_modsum_verifier():
    task = ModSum((3, 3))
    prompt = torch.tensor([[task.vocabulary.bos, *task.vocabulary.encode("7+8+9=")]])
    answers = rows(task, "754;4$", "000;4$", "754;5$", "754;", "7544$", "75$;4", ";4")
    reward = task.verify(prompt.expand(len(answers), -1), answers)
    assert reward.tolist() == [1, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("error", [0.25, 0.35])
def test_faulty_traces_are_right_as_often_as_the_formula_says(error):
    task = ModSum((5, 5))
    traces = task.traces(task.prompts(40_000, seeded()), seeded(1), error)
    # a sum is right when nothing slipped, or by luck: a Markov chain of two states
    right = 1.0
    for _ in range(5):
        right = right * (1 - 0.9 * error) + (1 - right) * error * 0.1
    assert float(traces.total.mean()) == pytest.approx(right, abs=0.01)


def test_long_traces_repeat_every_sum():
    task = ModSum((2, 3), long=True)
    prompts = task.prompts(50, seeded())
    short = texts(task, ModSum((2, 3)).traces(prompts).action)
    for long, text in zip(texts(task, task.traces(prompts).action), short, strict=True):
        sums, answer = text.split(";")
        assert long == "".join(2 * s for s in sums) + ";" + answer


def test_mixture_of_difficulties():
    task = ModSum((2, 9), weights=(0.45, 0, 0, 0, 0.1, 0, 0, 0.45))
    kind = task.prompts(20_000, seeded()).kind
    share = torch.bincount(kind, minlength=10) / 20_000
    torch.testing.assert_close(share[[2, 6, 9]], torch.tensor([0.45, 0.1, 0.45]), atol=0.02, rtol=0)
    assert task.response_length == 12


def test_countdown_has_exactly_the_answers_that_python_finds():
    task = Countdown()
    prompts = task.prompts(40, seeded(3))
    every = [
        f"{a}{s}{b}{t}{c}$"
        for a, b, c in itertools.product("0123456789", repeat=3)
        for s, t in itertools.product("+-", repeat=2)
    ]
    coded = rows(task, *every)
    for tokens, kind in zip(prompts.tokens, prompts.kind.tolist(), strict=True):
        target, digits = task.vocabulary.decode(tokens).rstrip("=").split(":")
        truth = [
            sorted(e[0:5:2]) == sorted(digits)
            and int(e[0])
            + int(e[2]) * (1 if e[1] == "+" else -1)
            + int(e[4]) * (1 if e[3] == "+" else -1)
            == int(target)
            for e in every
        ]
        found = task.verify(tokens.expand(len(coded), -1), coded)
        assert found.bool().tolist() == truth
        assert kind == sum(truth) >= 1
    assert task.traces(prompts, seeded(4)).total.min() == 1.0
    faulty = task.traces(task.prompts(2000, seeded(5)), seeded(6), error=0.5).total
    assert 0.1 < float(faulty.mean()) < 0.6


def test_digit_strings_against_python():
    task = DigitStrings("CRSA", (2, 6))
    prompts = task.prompts(400, seeded())
    assert task.prompt_length + task.response_length <= 24
    for prompt, answer in zip(
        texts(task, prompts.tokens), texts(task, task.answer(prompts.tokens)), strict=True
    ):
        kind, body = prompt[0], prompt[1:-1]
        expected = {
            "C": lambda b: b,
            "R": lambda b: b[::-1],
            "S": lambda b: "".join(sorted(b)),
            "A": lambda b: "".join(
                str((int(x) + int(y)) % 10) for x, y in zip(*b.split("+"), strict=True)
            ),
        }[kind](body)
        assert answer == expected
    assert task.traces(prompts).total.min() == 1.0


def test_digit_strings_grades():
    task = DigitStrings("S", (4, 4))
    v = task.vocabulary
    prompt = torch.tensor([[v.bos, *v.encode("S3142=")]])
    answers = rows(task, "1234$", "1243$", "12$", "1234", "4$", "$")
    many = prompt.expand(len(answers), -1)
    assert task.verify(many, answers).tolist() == [1, 0, 0, 0, 0, 0]
    assert task.graded(many, answers).tolist() == [1, 0.5, 0.5, 1, 0, 0]
    longer = torch.cat([rows(task, "1234")[:, :4], torch.tensor([[1, v.eos]])], 1)
    assert float(task.graded(prompt, longer)) == pytest.approx(0.8)


def test_reward_is_paid_on_the_last_token_and_the_mask_stops_there():
    task = ModSum((3, 3))
    v = task.vocabulary
    prompt = torch.tensor([[v.bos, *v.encode("1+2+3=")]])
    response = torch.tensor([[*v.encode("136;6"), v.eos, *v.encode("9")]])[:, :7]
    log = as_sequences(task, Prompts(prompt, torch.ones(1, 7), torch.tensor([3])), response)
    assert log.mask.tolist() == [[1, 1, 1, 1, 1, 1, 0]]
    assert log.reward.tolist() == [[0, 0, 0, 0, 0, 1, 0]]


@pytest.mark.parametrize("task", [ModSum(), Countdown(), DigitStrings()])
def test_language_tasks_keep_the_protocol(task):
    assert isinstance(task, LanguageTask)
    prompts = task.prompts(16, seeded())
    traces = task.traces(prompts)
    assert prompts.tokens.shape == (16, task.prompt_length)
    assert traces.action.shape == (16, task.response_length)
    repeated = prompts.repeated(3)
    assert torch.equal(repeated.tokens[3:6], prompts.tokens[1:2].expand(3, -1))


def test_unknown_word():
    with pytest.raises(InputError, match="'x' is not in the vocabulary"):
        ModSum().vocabulary.encode("1x")


# ------------------------------------------------------------------------------------------- tables


def test_sumtriple_has_a_hundred_answers_and_uniform_finds_a_tenth():
    task = sumtriple_table()
    assert task.rows == 1110
    truth = task.truth(task.uniform())
    torch.testing.assert_close(truth.success, torch.full((10,), 0.1).double())
    torch.testing.assert_close(truth.solutions, torch.full((10,), 100.0).double())
    torch.testing.assert_close(truth.entropy, torch.full((10,), 1000.0).double().log())
    prompt = torch.tensor([4, 4, 0])
    response = torch.tensor([[9, 3, 2], [9, 3, 3], [5, 5, 0]])
    assert task.verify(prompt, response).tolist() == [1, 0, 1]


def test_exact_success_is_what_sampling_finds_and_log_probs_agree():
    task = random_tree(vocab=3, length=4, share=0.2, prompts=2, seed=1)
    assert task.rewards.sum(1).tolist() == [16, 16]
    logits = torch.randn(task.rows, 3, generator=seeded(2), dtype=torch.float64)
    truth = task.truth(logits)
    torch.testing.assert_close(truth.logp.exp().sum(1), torch.ones(2).double())
    log = task.sample(logits, task.prompts(40_000, seeded(3)), seeded(4))
    for x in (0, 1):
        mine = log.total[log.prompt[:, 0] == x]
        assert abs(mine.mean() - truth.success[x]) < 4 * mine.std() / len(mine) ** 0.5
    number = (log.action * 3 ** torch.arange(3, -1, -1)).sum(1)
    torch.testing.assert_close(log.behavior_logp.sum(1), truth.logp[log.prompt[:, 0], number])
    rows = task.row(log.prompt[:, 0], log.action)
    scored = logits.log_softmax(-1)[rows].gather(-1, log.action[..., None])[..., 0]
    torch.testing.assert_close(scored, log.behavior_logp)


def test_gradient_of_the_exact_success_is_the_score_function_gradient():
    task = random_tree(vocab=2, length=3, share=0.4, seed=5)
    logits = torch.randn(task.rows, 2, generator=seeded(6), dtype=torch.float64).requires_grad_()
    truth = task.truth(logits)
    (exact,) = torch.autograd.grad(truth.success.sum(), logits, retain_graph=True)
    weights = (truth.logp.exp() * task.rewards).detach()
    (score,) = torch.autograd.grad((weights * truth.logp).sum(), logits)
    torch.testing.assert_close(exact, score)


@pytest.mark.parametrize("wanted", [0.003, 0.01, 0.5])
def test_lock_and_its_warm_start(wanted):
    task = lock_table(10, 3, prompts=4, seed=7)
    assert task.rewards.sum(1).tolist() == [1, 1, 1, 1]
    assert float(task.truth(task.uniform()).success.mean()) == pytest.approx(1e-3)
    logits = task.warm_start(wanted)
    assert float(task.truth(logits).success.mean()) == pytest.approx(wanted, rel=1e-5)


def test_letters_come_as_often_as_their_weights_say():
    task = DigitStrings("CRS", (3, 5), weights=(0.0, 0.25, 0.75))
    kind = task.prompts(4000, torch.Generator().manual_seed(0)).kind
    share = torch.bincount(kind, minlength=3) / 4000
    assert share[0] == 0 and abs(float(share[1]) - 0.25) < 0.03
    with pytest.raises(InputError, match="3 kinds, but 2 weights"):
        DigitStrings("CRS", weights=(0.5, 0.5))


def test_unnamed_strings_do_not_say_what_to_do():
    task = UnnamedStrings(asked="R")
    asked = task.prompts(50, torch.Generator().manual_seed(0))
    words = [task.vocabulary.decode(p) for p in asked.tokens]
    assert all(w[0] == "A" and len(w) == 6 for w in words)
    right = [task.vocabulary.decode(a) for a in task.answer(asked.tokens)]
    assert right == [w[1:5][::-1] for w in words]
    seq = task.traces(asked)
    assert (seq.total == 1).all()
    copied = UnnamedStrings(asked="C").traces(asked)
    same = torch.tensor([w[1:5] == w[1:5][::-1] for w in words])
    assert torch.equal(task.verify(asked.tokens, copied.action, copied.mask) == 1, same)
    with pytest.raises(InputError, match="asked='S'"):
        UnnamedStrings(asked="S")


def test_an_example_shows_the_operation():
    task = ShownOrGuessed(rare=0.0, shown=0.5)
    asked = task.prompts(400, torch.Generator().manual_seed(0))
    seq = task.traces(asked, None)
    shown = asked.mask[:, 0] > 0
    assert 0.4 < float(shown.float().mean()) < 0.6
    assert (asked.kind[~shown] == 0).all()  # bare prompts are to be copied here
    assert 0.4 < float(asked.kind[shown].float().mean()) < 0.6
    assert (seq.total == 1).all()
    other = task.traces(asked._replace(kind=1 - asked.kind))
    wrong = torch.tensor([w[1:5] != w[1:5][::-1] for w in texts(task, asked.tokens[:, -7:])])
    told_apart = torch.tensor([w[1:5] != w[1:5][::-1] for w in texts(task, asked.tokens[:, :7])])
    assert not other.total[shown & wrong & told_apart].any() and other.total[~shown].all()
    for i in shown.nonzero()[:40, 0].tolist():
        text = "".join(task.vocabulary.words[t] for t in asked.tokens[i])
        first, rest = text.split("EOS")
        given, told = first.removeprefix("BOSA").split("=")
        query = rest.removeprefix("BOSA").removesuffix("=")
        answer = task.vocabulary.decode(seq.action[i])
        operation = (lambda s: s[::-1]) if int(asked.kind[i]) else (lambda s: s)
        assert told == operation(given) and answer == operation(query)
