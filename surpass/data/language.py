"""Logs of language: demonstrations, preference pairs, scored answers, prompts with a checkable
answer.

Rows come from JSONL, Parquet, Hugging Face datasets or dicts in memory; texts become tokens once.
Nothing is padded until a batch is drawn: prompts then are padded on the left, answers on the right.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from surpass.data.records import About, Pairs, Sequences
from surpass.errors import InputError, nearest

__all__ = ["LanguageLog", "collate", "open_language", "read_rows"]

NAMES = {
    "prompt": ("prompt", "question", "instruction", "input", "query", "problem"),
    "completion": ("completion", "response", "output", "answer_text"),
    "chosen": ("chosen", "preferred"),
    "rejected": ("rejected", "dispreferred"),
    "score": ("score", "label", "reward", "rating"),
    "answer": ("answer", "solution", "target", "ground_truth"),
    "messages": ("messages", "conversation", "conversations"),
    "behavior_logp": ("behavior_logp", "logp", "logprob", "logprobs"),
    "reference_rewards": ("reference_rewards",),
    "distance": ("distance",),
}
FURTHER = {"scored": ("behavior_logp", "reference_rewards"), "pairs": ("distance",)}
KINDS = ("pairs", "scored", "demonstrations", "prompts")
SIDES = {"pairs": ("chosen", "rejected"), "scored": ("completion",),
         "demonstrations": ("completion",), "prompts": ()}  # fmt: skip


@dataclass(frozen=True)
class LanguageLog:
    """Rows as token ids, ragged.

    Attributes:
        kind: "demonstrations", "pairs", "scored" or "prompts".
        prompts: the tokens before the answer.
        answers: by side ("completion", or "chosen" and "rejected"), the tokens of the answers.
        masks: by side, 1 where the policy decided; None where all of an answer is its own.
        score: label or score per row, [N], of a scored log.
        truth: per row, what a verifier is given besides the answer: a reference answer or the row.
        texts: the prompts as text, where there was text.
        extras: further columns: of a scored log `behavior_logp` [N], the log-probability with which
            the answer was drawn, and `reference_rewards` [N, m] of answers of the reference; of
            pairs `distance` [N], in meaning, from the prompt to the chosen answer.
        counts: what was cut or left out when reading, by reason.
    """

    kind: str
    prompts: tuple[tuple[int, ...], ...]
    answers: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    masks: Mapping[str, tuple[tuple[int, ...], ...]] | None = None
    score: Tensor | None = None
    truth: tuple[Any, ...] | None = None
    texts: tuple[str, ...] | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    about: About = field(default_factory=About)

    def __len__(self) -> int:
        return len(self.prompts)

    def side(self, name: str, rows: Iterable[int]) -> Sequences:
        """Some rows' prompts and answers as a padded record; an answer is 'paid' its score at its
        last token."""
        rows = list(rows)
        masks = None if self.masks is None else [self.masks[name][i] for i in rows]
        seq = collate([self.prompts[i] for i in rows], [self.answers[name][i] for i in rows], masks)
        if self.score is not None:
            last = seq.mask.flip(-1).argmax(-1)
            seq.reward = torch.zeros_like(seq.mask).scatter(
                1, (seq.mask.shape[1] - 1 - last)[:, None], self.score[rows][:, None].float()
            )
        if self.extras:
            seq.extras = TensorDict({k: v[rows] for k, v in self.extras.items()}, [len(rows)])
        seq.group = torch.tensor([self.group_of[self.prompts[i]] for i in rows])
        return seq

    def sequences(self, rows: Iterable[int]) -> Sequences:
        """Rows of demonstrations or scored answers."""
        return self.side("completion", rows)

    def pairs(self, rows: Iterable[int]) -> Pairs:
        """Rows of preferences."""
        rows = list(rows)
        return Pairs(
            chosen=self.side("chosen", rows), rejected=self.side("rejected", rows),
            batch_size=[len(rows)],  # pyright: ignore[reportCallIssue]
        )  # fmt: skip

    @property
    def group_of(self) -> dict[tuple[int, ...], int]:
        """A number for each different prompt."""
        if "_groups" not in self.__dict__:
            groups = {p: i for i, p in enumerate(dict.fromkeys(self.prompts))}
            object.__setattr__(self, "_groups", groups)
        return self.__dict__["_groups"]

    def rows(self, index: Iterable[int]) -> LanguageLog:
        """Some of the rows."""
        index = list(index)

        def cut(value: Any) -> Any:
            return None if value is None else tuple(value[i] for i in index)

        return replace(
            self, prompts=cut(self.prompts), truth=cut(self.truth), texts=cut(self.texts),
            answers={k: cut(v) for k, v in self.answers.items()},
            masks=None if self.masks is None else {k: cut(v) for k, v in self.masks.items()},
            score=None if self.score is None else self.score[index],
            extras={k: v[index] for k, v in self.extras.items()},
        )  # fmt: skip


def collate(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]],
    masks: Sequence[Sequence[int]] | None = None,
) -> Sequences:  # fmt: skip
    """Ragged prompts and answers as one record: prompts end, and answers begin, at the same
    place."""
    width, length = max(map(len, prompts), default=0), max(map(len, answers), default=0)
    height = len(prompts)
    if masks is None:
        masks = [[1] * len(a) for a in answers]

    def filled(rows: Sequence[Sequence[int]], to: int, left: bool) -> Tensor:
        gaps = [[0] * (to - len(r)) for r in rows]
        both = zip(gaps, rows, strict=True)
        return torch.tensor([[*g, *r] if left else [*r, *g] for g, r in both]).reshape(height, to)

    prompt, action = filled(prompts, width, True).long(), filled(answers, length, False).long()
    prompt_mask = filled([[1] * len(p) for p in prompts], width, True).float()
    mask = filled(masks, length, False).float()
    return Sequences(
        action=action, mask=mask, prompt=prompt, prompt_mask=prompt_mask,
        batch_size=[height],  # pyright: ignore[reportCallIssue]
    )  # fmt: skip


# -------------------------------------------------------------------------------------- reading


def read_rows(source: Any) -> tuple[list[dict[str, Any]], str]:
    """Rows as dicts, and what errors call their source.

    Raises:
        InputError: when the file is missing, empty, or not what its name says.
    """
    if isinstance(source, str | Path):
        return _read_file(Path(source)), str(source)
    if hasattr(source, "column_names"):  # a dataset of Hugging Face
        return [dict(row) for row in source], "the data set"
    rows = [dict(row) for row in source]
    if not rows:
        raise InputError("the data are empty: give at least one row")
    return rows, "the data"


def _read_file(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise InputError(f"{path} does not exist; give a JSONL or Parquet file")
    if path.suffix in (".parquet", ".pq"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is not a whole Parquet file; write it again") from error
    elif path.suffix in (".jsonl", ".ndjson", ".json"):
        try:
            with path.open(encoding="utf-8-sig") as lines:
                rows = [_object(path, i, line) for i, line in enumerate(lines, 1) if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: the text is not UTF-8; save it as UTF-8") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}; check the path") from error
    else:
        raise InputError(f"{path}: language data are read from .jsonl or .parquet files")
    if not rows:
        raise InputError(f"{path} is empty; give at least one row")
    return rows


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: line {number} is not JSON ({error.msg}); write one object a line"
        ) from error
    if not isinstance(row, dict):
        raise InputError(f"{path}: line {number} is not an object; write one a line")
    return row


def open_language(
    source: Any, tokenizer: Any, *, kind: str | None = None, context: int = 1 << 30,
    vocabulary: int | None = None, long: str = "drop", columns: Mapping[str, str] | None = None,
    eos: int | None = None, room: int = 0,
) -> LanguageLog:  # fmt: skip
    """Read language data and make tokens of them.

    Args:
        source: a JSONL or Parquet file, a data set of Hugging Face, rows as dicts, or a
            `LanguageLog`.
        tokenizer: of transformers; None where the columns hold lists of token ids.
        kind: "demonstrations", "pairs", "scored" or "prompts"; guessed from the columns.
        context: how many tokens the model can see.
        vocabulary: how many tokens the model knows.
        long: what happens to rows that do not fit: "drop", "truncate" (the answer) or "error".
        columns: where what stands, such as `{"prompt": "question"}`.
        eos: the token that ends an answer, where the tokenizer does not say.
        room: tokens to leave for generated answers, of prompts.

    Raises:
        InputError: an empty prompt or answer, a chosen equal to the rejected, token ids outside the
            vocabulary, chat rows without a chat template, and the like: which row, and what to do.
    """
    if isinstance(source, LanguageLog):
        if kind is not None and source.kind != kind and not (
            kind == "prompts" or {kind, source.kind} <= {"demonstrations", "scored"}
        ):  # fmt: skip
            raise InputError(f"the recipe learns from {kind}, but the data are {source.kind}")
        return source
    rows, name = read_rows(source)
    where = _columns(rows, dict(columns or {}), name)
    kind = kind or _kind(where)
    _complete(kind, where, rows, name)
    end = eos if eos is not None else getattr(tokenizer, "eos_token_id", None)
    encoder = _Encoder(tokenizer, end, name)
    prompts, answers, masks = _encode(rows, kind, where, encoder)
    log = LanguageLog(
        kind, tuple(prompts), answers, masks,
        score=_scores(rows, where, name) if kind == "scored" else None,
        extras=_extras(rows, where, name, FURTHER.get(kind, ())),
        truth=tuple(r.get(where["answer"]) if "answer" in where else r for r in rows),
        texts=tuple(_text(r.get(where["prompt"])) for r in rows) if "prompt" in where else None,
        about=About(name=name),
    )  # fmt: skip
    _check(log, name, vocabulary)
    return _fit(log, context - (room if kind == "prompts" else 0), long, name)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _columns(rows: list[dict[str, Any]], given: dict[str, str], name: str) -> dict[str, str]:
    have = list(rows[0])
    for role, column in given.items():
        if role not in NAMES:
            raise InputError(f"columns: there is no {role!r}{nearest(role, list(NAMES))}")
        if column not in have:
            raise InputError(f"{name} has no column {column!r}{nearest(column, have)}; it has "
                             f"{', '.join(have)}")  # fmt: skip
    found = {role: next((c for c in names if c in have), None) for role, names in NAMES.items()}
    return {role: c for role, c in {**found, **given}.items() if c is not None}


def _kind(where: Mapping[str, str]) -> str:
    if "chosen" in where and "rejected" in where:
        return "pairs"
    if "completion" in where:
        return "scored" if "score" in where else "demonstrations"
    return "demonstrations" if "messages" in where else "prompts"


_WANTED = {
    "pairs": ("chosen", "rejected"), "scored": ("completion", "score"), "prompts": ("prompt",),
    "demonstrations": ("completion",),
}  # fmt: skip


def _complete(kind: str, where: dict[str, str], rows: list[dict[str, Any]], name: str) -> None:
    if kind not in KINDS:
        raise InputError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    worked = {"prompt", "answer"} <= set(where) and not {"completion", "messages"} & set(where)
    if kind == "demonstrations" and worked:  # a question and its worked answer
        where["completion"] = where["answer"]
    wanted = () if kind == "demonstrations" and "messages" in where else _WANTED[kind]
    if kind == "prompts" and "messages" in where and "prompt" not in where:
        where["prompt"] = where["messages"]
    for role in wanted:
        if role not in where:
            raise InputError(
                f"{name}: {kind} need a column {role!r} (one of {', '.join(NAMES[role])}); it has "
                f"{', '.join(rows[0])}; name it with columns={{{role!r}: ...}}"
            )


class _Encoder:
    """Texts, chats or token ids to token ids."""

    def __init__(self, tokenizer: Any, eos: int | None, name: str) -> None:
        self.tokenizer, self.eos, self.name = tokenizer, eos, name

    def prompt(self, value: Any, row: int) -> tuple[int, ...]:
        if _is_ids(value):
            return tuple(value)
        if _is_chat(value):
            return self.chat(value, row, opens=True)
        return tuple(self._need(row)(self._string(value, row)).input_ids)

    def answer(self, value: Any, row: int, prompt: Any) -> tuple[int, ...]:
        if _is_ids(value):
            return tuple(value)
        if _is_chat(value):
            before = list(prompt) if _is_chat(prompt) else []
            shared = len(self.chat(before, row, opens=True)) if before else 0
            return self.chat([*before, *value], row)[shared:]
        ids = self._need(row)(self._string(value, row), add_special_tokens=False).input_ids
        return (*ids, self.eos) if self.eos is not None and ids else tuple(ids)

    def chat(self, messages: list[Any], row: int, opens: bool = False) -> tuple[int, ...]:
        tokenizer = self._need(row)
        if getattr(tokenizer, "chat_template", None) is None:
            raise InputError(
                f"{self.name}: row {row} is a chat, but the tokenizer has no chat template; set "
                "tokenizer.chat_template, or give prompt and completion as text"
            )
        ids = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=opens, tokenize=True, return_dict=True
        )["input_ids"]
        return tuple(ids)

    def conversation(self, messages: list[Any], row: int) -> tuple[Any, Any, Any]:
        """Prompt, answer and mask of a chat: the assistant's turns are decided, others are seen."""
        first = next((i for i, m in enumerate(messages) if m.get("role") == "assistant"), None)
        if not first:
            raise InputError(f"{self.name}: row {row} has no assistant message after a prompt")
        prompt = self.chat(messages[:first], row, opens=True)
        tokens, mask = list(prompt), []
        for i in range(first, len(messages)):
            own = messages[i].get("role") == "assistant"
            coming = i + 1 < len(messages) and messages[i + 1].get("role") == "assistant"
            after = self.chat(messages[: i + 1], row, opens=coming and not own)
            mask += [int(own)] * (len(after) - len(tokens))
            tokens = list(after)
        return prompt, tuple(tokens[len(prompt) :]), tuple(mask)

    def _string(self, value: Any, row: int) -> str:
        if not isinstance(value, str):
            raise InputError(
                f"{self.name}: row {row}: text, a chat or token ids expected, not "
                f"{type(value).__name__}"
            )
        return value

    def _need(self, row: int) -> Any:
        if self.tokenizer is None:
            raise InputError(
                f"{self.name}: row {row} is text, but there is no tokenizer; give tokenizer=..."
            )
        return self.tokenizer


def _is_ids(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, int) for v in value)


def _is_chat(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _encode(rows: list[Any], kind: str, where: dict[str, str], encoder: _Encoder) -> Any:
    prompts: list[tuple[int, ...]] = []
    answers: dict[str, list[tuple[int, ...]]] = {side: [] for side in SIDES[kind]}
    masks: dict[str, list[tuple[int, ...]]] = {side: [] for side in SIDES[kind]}
    chats = kind == "demonstrations" and "completion" not in where
    for number, row in enumerate(rows, 1):
        if chats:
            parts = encoder.conversation(row[where["messages"]], number)
            prompts.append(parts[0])
            answers["completion"].append(parts[1])
            masks["completion"].append(parts[2])
            continue
        sides = {side: row.get(where[side]) for side in SIDES[kind]}
        prompt = row.get(where["prompt"]) if "prompt" in where else None
        if prompt is None:
            prompt, sides = _shared_prompt(sides, encoder.name, number)
        prompts.append(encoder.prompt(prompt, number))
        for side, value in sides.items():
            answers[side].append(encoder.answer(value, number, prompt))
    fixed = {k: tuple(v) for k, v in answers.items()}
    return prompts, fixed, {k: tuple(v) for k, v in masks.items()} if chats else None


def _shared_prompt(sides: dict[str, Any], name: str, row: int) -> tuple[Any, dict[str, Any]]:
    """The messages that chosen and rejected begin with, where the prompt has no column."""
    values = list(sides.values())
    if not all(_is_chat(v) for v in values) or len(values) < 2:
        raise InputError(
            f"{name}: row {row} has no prompt; give a column 'prompt' (or name it with columns=...)"
        )
    n = 0
    while n < min(map(len, values)) and values[0][n] == values[1][n]:
        n += 1
    return list(values[0][:n]), {side: list(v[n:]) for side, v in sides.items()}


def _scores(rows: list[dict[str, Any]], where: dict[str, str], name: str) -> Tensor:
    out = []
    for number, row in enumerate(rows, 1):
        value = row.get(where["score"])
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(
                f"{name}: row {number}: {where['score']} is {value!r}; a number or true/false "
                "expected"
            )
        out.append(float(value))
    return torch.tensor(out)


def _extras(
    rows: list[dict[str, Any]], where: dict[str, str], name: str, roles: tuple[str, ...]
) -> dict[str, Tensor]:
    """`behavior_logp` (a number, or one per token), `reference_rewards` (a list) and `distance` per
    row."""
    out: dict[str, Tensor] = {}
    for role in roles:
        if role not in where:
            continue
        values: list[Any] = []
        for number, row in enumerate(rows, 1):
            value = row.get(where[role])
            items: list[Any] = value if isinstance(value, list) else [value]
            if not items or not all(isinstance(v, int | float) and v == v for v in items):
                raise InputError(f"{name}: row {number}: {where[role]} is {value!r}; numbers "
                                 "expected")  # fmt: skip
            values.append(items if role == "reference_rewards" else sum(items))
            if role == "behavior_logp" and values[-1] > 1e-3:
                raise InputError(f"{name}: row {number}: {where[role]} is {values[-1]:g}, but the "
                                 "log of a probability is at most 0")  # fmt: skip
            if role == "distance" and not (len(items) == 1 and 0 <= values[-1] <= 2):
                raise InputError(f"{name}: row {number}: {where[role]} is {value!r}, but 1 less a "
                                 "cosine is a number from 0 to 2")  # fmt: skip
            if role == "reference_rewards" and len(items) != len(values[0]):
                raise InputError(
                    f"{name}: row {number} has {len(items)} {where[role]}, row 1 has "
                    f"{len(values[0])}; give the same number in each"
                )
        out[role] = torch.tensor(values, dtype=torch.float64 if role[0] == "b" else torch.float32)
    return out


# ------------------------------------------------------------------------------------- checking


def _check(log: LanguageLog, name: str, vocabulary: int | None) -> None:
    for number, prompt in enumerate(log.prompts, 1):
        if not prompt:
            raise InputError(
                f"{name}: row {number}: the prompt is empty; give one, or drop the row"
            )
    for side, answers in log.answers.items():
        for number, answer in enumerate(answers, 1):
            if not answer:
                raise InputError(f"{name}: row {number}: the {side} is empty; drop the row")
    if log.kind == "pairs":
        both = zip(log.answers["chosen"], log.answers["rejected"], strict=True)
        same = [i for i, (a, b) in enumerate(both, 1) if a == b]
        if same:
            raise InputError(
                f"{name}: row {same[0]}: chosen equals rejected ({len(same)} such rows); a pair "
                "that prefers neither teaches nothing, drop it"
            )
    if vocabulary is not None:
        for side, lists in {"prompt": log.prompts, **log.answers}.items():
            for number, ids in enumerate(lists, 1):
                if max(ids) >= vocabulary or min(ids) < 0:
                    raise InputError(
                        f"{name}: row {number}: {side} has token id {max(ids)}, but the model "
                        f"knows {vocabulary} tokens; is this the model's own tokenizer?"
                    )


def _fit(log: LanguageLog, context: int, long: str, name: str) -> LanguageLog:
    """Rows that fit into the context; what did not is cut or left out, counted and said."""
    if long not in ("drop", "truncate", "error"):
        raise InputError(f"long is 'drop', 'truncate' or 'error', not {long!r}")
    lengths = [
        len(p) + max((len(a[i]) for a in log.answers.values()), default=0)
        for i, p in enumerate(log.prompts)
    ]
    over = [i for i, n in enumerate(lengths) if n > context]
    if not over:
        return log
    what = f"{name}: {len(over)} of {len(log)} rows are longer than the context of {context} tokens"
    if long == "error":
        raise InputError(f"{what}, the first is row {over[0] + 1}; use long='drop' or 'truncate'")
    if long == "truncate" and log.kind != "prompts":
        room = [context - len(p) for p in log.prompts]
        short = [i for i in over if room[i] < 1]
        log = replace(
            log,
            answers={k: tuple(a[: max(room[i], 0)] for i, a in enumerate(v))
                     for k, v in log.answers.items()},
            masks=None if log.masks is None else {
                k: tuple(a[: max(room[i], 0)] for i, a in enumerate(v))
                for k, v in log.masks.items()
            },
        )  # fmt: skip
        counts = {"truncated": len(over) - len(short), "dropped": len(short)}
    else:
        short, counts = over, {"truncated": 0, "dropped": len(over)}
    gone = set(short)
    kept = log.rows(i for i in range(len(log)) if i not in gone)
    warnings.warn(
        f"{what}: {counts['truncated']} truncated, {counts['dropped']} dropped", stacklevel=3
    )
    if not len(kept):
        raise InputError(f"{what}: nothing is left; give a model with a longer context")
    return replace(kept, counts=counts)
