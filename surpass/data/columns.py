"""Which column is what: guessed from names, shown as a table, and overridden by whoever knows
better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from surpass.data.arrays import words
from surpass.data.files import at, kind_of
from surpass.errors import InputError, nearest

__all__ = ["ROLES", "UNIFORM", "Columns", "guess"]

UNIFORM = "uniform"  # `--propensity uniform`: every action on offer was equally likely

_SINGLE: dict[str, tuple[str, ...]] = {
    role: tuple(names.split())
    for role, names in {
        "action": """action a arm chosenaction actionid armid treatment variant decision choice item
            itemid offer offerid article articleid product productid ad adid recommendation""",
        "reward": """reward rewards r click clicked clicks isclick conversion converted purchase
            purchased revenue outcome payoff success response y label""",
        "propensity": """propensity propensityscore pscore probability prob actionprobability
            actionprob loggingprobability loggedprobability behaviorprobability
            behaviourprobability behaviorprob behaviourprob loggingprob probaction p pi pib mu""",
        "time": """time timestamp ts datetime date eventtime eventtimestamp eventdate createdat
            loggedat decidedat servedat unixtime""",
        "position": "position slot pos positionid",
        "group": "user userid uid visitor visitorid customer customerid query queryid qid",
        "cost": "cost costs actioncost",
        "instrument": "",  # never guessed: to name one is a claim about how the log came about
        "row_id": """rowid id eventid decisionid requestid impressionid interactionid logid
            uuid""",
    }.items()
}
_MANY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # role: prefixes of one column per action, and names of one list column
    role: (tuple(prefixes.split()), tuple(lists.split()))
    for role, (prefixes, lists) in {
        "propensities": (
            "propensity propensities pscore prob probability actionprob pib",
            """propensity propensities pscores probabilities probs actionprobabilities actionprobs
            pmf""",
        ),
        "available": (
            "available eligible",
            "available availableactions eligible eligibleactions",
        ),
    }.items()
}
_INDEX = ("", "unnamed: 0", "__index_level_0__", "index")
ROLES = (*_SINGLE, *_MANY, "context")


@dataclass(frozen=True)
class Columns:
    """The role of every column. `how` says of each role whether it was guessed or given.

    `propensities` and `available` hold one column per action, in the order of the actions, or one
    list column. `propensity` is a column, None where `propensities` has it, or `uniform`.
    `ignored` columns and their reasons are not used: other outcomes, for instance, are known only
    after the decision.
    """

    action: str
    reward: str
    propensity: str | None = None
    propensities: tuple[str, ...] = ()
    available: tuple[str, ...] = ()
    time: str | None = None
    position: str | None = None
    group: str | None = None
    cost: str | None = None
    instrument: str | None = None
    row_id: str | None = None
    context: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    ignored: dict[str, str] = field(default_factory=dict)
    how: dict[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns that have a role other than context."""
        single = (self.action, self.reward, self.propensity, self.time, self.position, self.group)
        every = (
            *single,
            self.cost,
            self.instrument,
            self.row_id,
            *self.propensities,
            *self.available,
        )
        return tuple(dict.fromkeys(c for c in every if c is not None and c != UNIFORM))

    @property
    def used(self) -> tuple[str, ...]:
        """All columns that are read."""
        return tuple(dict.fromkeys((*self.roles, *self.context)))

    def table(self) -> list[tuple[str, str, str]]:
        """Rows of (role, columns, guessed or given), to be shown."""
        rows = []
        for role in ("action", "reward", "propensity", "propensities", "available", "time",
                     "position", "group", "cost", "instrument", "row_id",
                     "context"):  # fmt: skip
            held = getattr(self, role)
            if held:
                text = held if isinstance(held, str) else _listed(held)
                rows.append((role, text, self.how.get(role, "guessed")))
        for why in dict.fromkeys(self.ignored.values()):
            names = [c for c, w in self.ignored.items() if w == why]
            rows.append(("ignored", _listed(names, most=4), why))
        return rows


def guess(
    schema: pa.Schema, sample: pa.Table, file: str, actions: Sequence[str] = (), **given: Any
) -> Columns:
    """The columns' roles, from their names and a few rows; what is `given` wins.

    Args:
        schema: all columns.
        sample: the first rows, by which names such as `propensity_3` are told from context.
        file: what errors call the log.
        actions: all actions in the order of their numbers, where the caller named them.
        given: roles by name: `action="arm"`, `context="age,city"` or a sequence, `group="none"`
            for no such role.

    Raises:
        InputError: when action, reward or propensity cannot be found, or a given column does not
            exist.
    """
    known = list(schema.names)
    told = {role: _told(role, value, known, file) for role, value in _by_prefix(given, schema)}
    taken = {c for v in told.values() if v for c in ((v,) if isinstance(v, str) else v)}
    for role in ("action", "reward", "propensity"):
        held = told[role] if role in told else _single(role, schema, set())
        if held is not None and held in (told.get("context") or ()):
            raise at(
                file, held, None, f"is the {role}, so a policy cannot look at it",
                "leave it out of --context",
            )  # fmt: skip
    found: dict[str, Any] = {}
    for role in ("action", "reward", "time", "position", "group", "cost", "instrument", "row_id"):
        found[role] = told[role] if role in told else _single(role, schema, taken)
        taken |= {found[role]} if found[role] else set()
    for role in ("action", "reward"):
        if found[role] is None:
            raise _absent(file, role, known)
    seen = _words_seen(sample, found["action"])
    for role in _MANY:
        found[role] = told[role] if role in told else _many(role, schema, taken, seen)
        taken |= set(found[role] or ())
    found["propensity"] = (
        told["propensity"] if "propensity" in told else _single("propensity", schema, taken)
    )
    if found["propensity"] is None and not found["propensities"]:
        raise _absent(file, "propensity", known)
    taken |= {found["propensity"]} if found["propensity"] else set()
    ignored = {c: w for c in known if c not in taken and (w := _not_context(c))}
    rest = tuple(c for c in known if c not in taken and c not in ignored)
    if found["position"] and not any(c.startswith(f"{found['position']}=") for c in rest):
        rest = (*rest, found["position"])
    if "context" in told:
        ignored |= dict.fromkeys([c for c in rest if c not in (told["context"] or ())], "not asked")
        rest = tuple(told["context"] or ())
    settled: dict[str, Any] = {k: v or () if k in _MANY else v for k, v in found.items()}
    columns = Columns(
        **settled,
        context=rest,
        ignored={c: w for c, w in ignored.items() if c not in rest},
        how={r: "given" if r in told else "guessed" for r in ROLES},
    )
    return _in_order(columns, seen, actions)


def _told(role: str, value: Any, known: list[str], file: str) -> Any:
    if role not in ROLES:
        raise InputError(
            f"there is no column role {role!r}{nearest(role, ROLES)}; roles: {', '.join(ROLES)}"
        )
    if value is None or value == "none":
        if role in ("action", "reward"):
            raise InputError(f"--{role} cannot be none; name the column that holds it")
        return None
    many = role in _MANY or role == "context"
    if role == "propensity" and value == UNIFORM and UNIFORM not in known:
        return value
    if isinstance(value, str):
        names = [v.strip() for v in value.split(",")] if many and value not in known else [value]
    else:
        names = list(value)
    for name in names:
        if name not in known:
            raise InputError(
                f"{file}: column {name!r} (asked for as {role}) is missing{nearest(name, known)}; "
                f"it has {_listed(known)}"
            )
    return tuple(names) if many else names[0]


def _by_prefix(given: dict[str, Any], schema: pa.Schema) -> Iterator[tuple[str, Any]]:
    """The roles as given; `--propensity` of a list column or a prefix is the whole row."""
    known = schema.names
    for role, value in given.items():
        if role not in ("propensity", *_MANY) or not isinstance(value, str) or "," in value:
            yield role, value
        elif value in known:
            whole = role == "propensity" and kind_of(schema.field(value).type) == "list"
            yield "propensities" if whole else role, value
        else:
            ends = {n: e for n in known if (e := _suffix(n, value)) is not None}
            many = sorted(ends, key=lambda n: _order(ends[n]))
            if len(many) < 2:
                yield role, value
            else:
                yield "propensities" if role == "propensity" else role, many
    if given.get("propensity") == UNIFORM and UNIFORM not in known and "propensities" not in given:
        yield "propensities", None


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _single(role: str, schema: pa.Schema, taken: set[str]) -> str | None:
    for wanted in _SINGLE[role]:
        for name in schema.names:
            fits = kind_of(schema.field(name).type) != "list"
            if name not in taken and fits and _bare(name) == wanted and name.lower() not in _INDEX:
                return name
    moments = [n for n in schema.names if kind_of(schema.field(n).type) == "time"]
    if role == "time" and len(moments) == 1 and moments[0] not in taken:
        return moments[0]
    return None


def _many(role: str, schema: pa.Schema, taken: set[str], seen: set[str]) -> tuple[str, ...] | None:
    prefixes, lists = _MANY[role]
    for name in schema.names:
        if (
            name not in taken
            and _bare(name) in lists
            and kind_of(schema.field(name).type) == "list"
        ):
            return (name,)
    for prefix in prefixes:
        ends = {n: e for n in schema.names if n not in taken and (e := _suffix(n, prefix))}
        fits = [n for n, e in ends.items() if e in seen or e.isdigit()]
        if len(fits) >= 2 and seen <= {ends[n] for n in fits}:
            return tuple(sorted(fits, key=lambda n: _order(ends[n])))
    return None


def _suffix(name: str, prefix: str) -> str | None:
    """What follows the prefix: `3` in `propensity_3`, `propensity[3]` and `prob.3`."""
    letters = [re.escape(c) for c in prefix]
    pattern = "[_ -]?".join(letters)
    match = re.fullmatch(rf"(?i:{pattern})(?:[_.:= -]|\[)(.+?)\]?", name)
    return match.group(1) if match else None


def _order(word: str) -> tuple[int, int, str]:
    return (0, int(word), word) if word.isdigit() else (1, 0, word)


def _words_seen(sample: pa.Table, action: str) -> set[str]:
    return {w for w in words(sample[action]).unique().to_pylist() if w is not None}


def _in_order(columns: Columns, seen: set[str], actions: Sequence[str]) -> Columns:
    """The columns of `propensities` and `available` in one order of the actions: the given one,
    or that of the first role with a column per action."""
    changed: dict[str, Any] = {}
    order = tuple(actions)
    for role in _MANY:
        held: tuple[str, ...] = getattr(columns, role)
        if len(held) < 2:
            continue
        column_of = dict(zip(_endings(held, seen | set(actions)), held, strict=True))
        order = order or tuple(column_of)
        if set(column_of) == set(order):
            changed[role] = tuple(column_of[a] for a in order)
    return replace(columns, **changed, actions=order)


def _endings(held: Sequence[str], seen: set[str]) -> tuple[str, ...]:
    """What tells columns apart: their names without a shared beginning, so that every action seen
    is among them."""
    shared = next(
        (i for i, letters in enumerate(zip(*held, strict=False)) if len(set(letters)) > 1),
        min(map(len, held)),
    )
    cuts = [0, *(i + 1 for i, c in enumerate(held[0][:shared]) if c in "_.:= -[")]
    for cut in cuts:
        names = tuple(name[cut:].removesuffix("]") if cut else name for name in held)
        if seen <= set(names):
            return names
    return tuple(held)


def _not_context(name: str) -> str | None:
    if name.lower() in _INDEX:
        return "an index"
    if _bare(name) in _SINGLE["reward"]:
        return "looks like another outcome"
    if _bare(name) in (*_SINGLE["propensity"], *_MANY["propensities"][1]):
        return "looks like another propensity"
    return None


def _absent(file: str, role: str, known: list[str]) -> InputError:
    close = ""
    for wanted in _SINGLE[role]:
        close = close or (nearest(wanted, known) if len(wanted) > 3 else "")
    mend = f"name it with --{role} COLUMN"
    if role == "propensity":
        mend += ", or --propensity uniform if every action was equally likely"
    return at(
        file,
        None,
        None,
        f"no {role} column was recognized{close}",
        f"{mend}; it has {_listed(known)}",
    )


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(n or "''" for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
