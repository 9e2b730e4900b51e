"""Reading language data: what comes out, and what is said of what cannot be used."""

import json

import pytest
import torch

from surpass.data.language import collate, open_language
from surpass.errors import InputError

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz <>0123456789#."]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


@pytest.fixture
def chatty(tokenizer):
    tokenizer.chat_template = TEMPLATE
    yield tokenizer
    tokenizer.chat_template = None


def text(tokenizer, ids):
    return "".join(tokenizer.convert_ids_to_tokens(list(ids)))


def test_prompts_end_and_answers_begin_at_one_place():
    seq = collate([[1, 2, 3], [4]], [[5], [6, 7]])
    assert seq.prompt.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert seq.prompt_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert seq.action.tolist() == [[5, 0], [6, 7]]
    assert seq.mask.tolist() == [[1, 0], [1, 1]]


def test_pairs_from_jsonl_parquet_and_a_data_set(tmp_path, tokenizer):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": "ab", "chosen": "c", "rejected": "dd"},
            {"question": "b", "chosen": "ef", "rejected": "g"}]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    logs = [open_language(tmp_path / n, tokenizer) for n in ("a.jsonl", "a.parquet")]
    logs.append(open_language(rows, tokenizer))
    datasets = pytest.importorskip("datasets")
    logs.append(open_language(datasets.Dataset.from_list(rows), tokenizer))
    for log in logs:
        assert log.kind == "pairs"
        assert [text(tokenizer, p) for p in log.prompts] == ["ab", "b"]
        assert [text(tokenizer, p) for p in log.answers["chosen"]] == ["c<eos>", "ef<eos>"]
    pairs = logs[0].pairs([1, 0])
    assert text(tokenizer, pairs.rejected.action[1].tolist()) == "dd<eos>"
    assert pairs.chosen.mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_scores_and_labels_are_paid_at_the_last_token(tokenizer):
    rows = [{"prompt": "a", "completion": "bc", "label": True},
            {"prompt": "a", "completion": "d", "label": False}]  # fmt: skip
    seq = open_language(rows, tokenizer).sequences([0, 1])
    assert seq.reward.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert seq.group.tolist() == [0, 0]
    graded = [{**r, "label": s} for r, s in zip(rows, (0.25, 3.0), strict=True)]
    assert open_language(graded, tokenizer).sequences([0, 1]).total.tolist() == [0.25, 3.0]
    whole = [{**r, "label": s} for r, s in zip(rows, (0, 1), strict=True)]
    assert open_language(whole, tokenizer).sequences([0, 1]).total.tolist() == [0.0, 1.0]


def test_logged_probabilities_and_reference_rewards_are_columns(tokenizer):
    rows = [{"prompt": "a", "completion": "b", "score": 0.5, "logprobs": [-0.5, -1.0],
             "reference_rewards": [0.0, 1.0]},
            {"prompt": "a", "completion": "d", "score": 1, "logprobs": [-3.0],
             "reference_rewards": [0.5, 2.0]}]  # fmt: skip
    log = open_language(rows, tokenizer)
    assert log.extras["behavior_logp"].tolist() == [-1.5, -3.0]
    seq = log.rows([1, 0]).sequences([1, 0])
    assert seq.extras["reference_rewards"].tolist() == [[0.0, 1.0], [0.5, 2.0]]
    with pytest.raises(InputError, match=r"row 2: logprobs is 1, but the log of a probability"):
        open_language([rows[0], {**rows[1], "logprobs": 1}], tokenizer)
    with pytest.raises(InputError, match=r"row 2 has 1 reference_rewards, row 1 has 2"):
        open_language([rows[0], {**rows[1], "reference_rewards": [1]}], tokenizer)


def test_prompts_keep_the_right_answer(tokenizer):
    log = open_language([{"question": "1", "answer": "2"}], tokenizer, kind="prompts")
    assert log.truth == ("2",) and log.texts == ("1",)
    worked = open_language([{"question": "1", "answer": "2"}], tokenizer, kind="demonstrations")
    assert text(tokenizer, worked.answers["completion"][0]) == "2<eos>"


def test_columns_can_be_named(tokenizer):
    rows = [{"x": "a", "y": "b"}]
    log = open_language(rows, tokenizer, columns={"prompt": "x", "completion": "y"})
    assert log.kind == "demonstrations" and text(tokenizer, log.prompts[0]) == "a"
    with pytest.raises(InputError, match=r"no column 'z'.*it has x, y"):
        open_language(rows, tokenizer, columns={"prompt": "z"})


def test_the_assistant_s_turns_are_decided_and_the_user_s_are_seen(chatty):
    said = (("user", "hi"), ("assistant", "yo"), ("user", "q"), ("assistant", "no"))
    messages = [{"role": role, "content": content} for role, content in said]
    log = open_language([{"messages": messages}], chatty)
    assert text(chatty, log.prompts[0]) == "<u>hi<a>"
    answer, mask = log.answers["completion"][0], log.masks["completion"][0]
    assert text(chatty, answer) == "yo<u>q<a>no"
    said = "".join(c for c, m in zip("yo<u>q<a>no", mask, strict=True) if m)
    assert said == "yono"


def test_pairs_of_chats_share_their_prompt(chatty):
    start = [{"role": "user", "content": "hi"}]
    rows = [{"chosen": [*start, {"role": "assistant", "content": "yes"}],
             "rejected": [*start, {"role": "assistant", "content": "no"}]}]  # fmt: skip
    log = open_language(rows, chatty)
    assert text(chatty, log.prompts[0]) == "<u>hi<a>"
    assert text(chatty, log.answers["chosen"][0]) == "yes"


BAD = [
    ([{"prompt": "", "completion": "a"}], {}, r"row 1: the prompt is empty"),
    ([{"prompt": "a", "completion": ""}], {}, r"row 1: the completion is empty"),
    ([{"prompt": "a", "chosen": "b", "rejected": "b"}], {}, r"chosen equals rejected \(1 such"),
    ([{"prompt": "a", "chosen": "b"}], {"kind": "pairs"}, r"need a column 'rejected'"),
    ([{"prompt": "a", "completion": "b", "label": "x"}], {}, r"label is 'x'; a number or true"),
    ([{"prompt": [3, 99], "completion": [4]}], {"vocabulary": 40}, r"token id 99.*knows 40 tokens"),
    ([{"prompt": 3, "completion": "a"}], {}, r"row 1: text, a chat or token ids expected, not int"),
    ([{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}], {}, r"no chat template"),
    ([{"completion": "a"}], {}, r"row 1 has no prompt"),
    ([], {}, r"the data are empty"),
    ([{"prompt": "a", "completion": "b"}], {"kind": "pear"}, r"kind is one of pairs, scored"),
    ([{"prompt": "a", "completion": "b"}], {"context": 1, "long": "keep"}, r"'drop', 'truncate'"),
    ([{"prompt": "a", "completion": "b"}], {"context": 2, "long": "error"}, r"the first is row 1"),
]


@pytest.mark.parametrize(("rows", "named", "said"), BAD)
def test_what_cannot_be_used_is_said_in_one_line(tokenizer, rows, named, said):
    with pytest.raises(InputError, match=said) as caught:
        open_language(rows, tokenizer, **named)
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    with pytest.raises(InputError, match=r"a\.jsonl: line 2 is not JSON"):
        open_language(tmp_path / "a.jsonl", tokenizer)
    (tmp_path / "b.parquet").write_bytes(b"PAR1xx")
    with pytest.raises(InputError, match="not a whole Parquet file"):
        open_language(tmp_path / "b.parquet", tokenizer)
    with pytest.raises(InputError, match="does not exist"):
        open_language(tmp_path / "c.jsonl", tokenizer)
    (tmp_path / "d.jsonl").write_bytes('{"prompt": "ä"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"d\.jsonl: the text is not UTF-8"):
        open_language(tmp_path / "d.jsonl", tokenizer)
    (tmp_path / "e.jsonl").mkdir()
    with pytest.raises(InputError, match=r"e\.jsonl cannot be read: Is a directory"):
        open_language(tmp_path / "e.jsonl", tokenizer)
    with pytest.raises(InputError, match="there is no tokenizer"):
        open_language([{"prompt": "a", "completion": "b"}], None)


def test_long_rows_are_dropped_or_cut_counted_and_said(tokenizer):
    rows = [{"prompt": "ab", "completion": "c" * n} for n in (1, 9)]
    with pytest.warns(UserWarning, match="1 of 2 rows are longer than the context of 6"):
        log = open_language(rows, tokenizer, context=6)
    assert len(log) == 1 and log.counts == {"truncated": 0, "dropped": 1}
    with pytest.warns(UserWarning, match="1 truncated, 0 dropped"):
        log = open_language(rows, tokenizer, context=6, long="truncate")
    assert [len(a) for a in log.answers["completion"]] == [2, 4]
    with pytest.warns(UserWarning), pytest.raises(InputError, match="nothing is left"):
        open_language(rows, tokenizer, context=2)


def test_real_text_is_read_whole():
    from pathlib import Path

    folder = next(
        (p / "shared" / "data" / "gsm8k" for p in Path(__file__).resolve().parents
         if (p / "shared" / "data" / "gsm8k").exists()), None,
    )  # fmt: skip
    if folder is None:
        pytest.skip("the GSM8K texts are not here")

    class Bytes:
        eos_token_id = 256

        def __call__(self, value, add_special_tokens=True):
            return type("Encoded", (), {"input_ids": list(value.encode())})

    log = open_language(folder / "test.jsonl", Bytes(), kind="demonstrations", vocabulary=257)
    assert len(log) == 1319
    assert bytes(log.prompts[0]).decode().startswith("Janet")
    assert bytes(log.answers["completion"][0][:-1]).decode().endswith("#### 18")
    seq = log.sequences(range(4))
    lengths = [float(len(a)) for a in log.answers["completion"][:4]]
    assert torch.equal(seq.length, torch.tensor(lengths))
