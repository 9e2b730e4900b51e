"""Pictures of a report: `Figure` in, markup out.

Geometry is inline SVG whose horizontal positions are percents, so a picture fills its column at
any width while text keeps its size; colors are the page's CSS variables, so light and dark both
look right. Every text is escaped where it is put in (`Markup.format` escapes its arguments).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from surpass.improve.results import Figure
from surpass.improve.scales import Scale, span
from surpass.improve.wording import count, decimals, number, percent, plain_text

__all__ = ["interval_bar", "kinds", "picture"]

_EMPTY = Markup("")
_JOIN = Markup("").join


def picture(figure: Figure) -> Markup:
    """Draw a figure.

    Kinds:
        forest: {"rows": [{"label", "note", "value", "low", "high", "mark", "truth", "text"}],
            "zero", "zero_label", "margin", "log"}; `mark` is "tested", "plain" or "muted".
        bars: {"rows": [{"label", "values": [a, b], "note", "rest"}], "series": [names]}, shares in
            [0, 1]; a row with `rest` is text only.
        histogram: {"edges", "counts", "x", "marks": [{"at", "label"}]}.
        calibration: {"bins": [{"predicted", "observed", "low", "high", "count", "label"}],
            "x", "y", "flat"}; `flat` where the predictions are nearly equal: a column per bin
            instead of a diagonal.
        series: {"labels", "x", "lines": [{"name", "values", "low", "high"}], "zero"}.

    Raises:
        ValueError: for a kind that is not among these.
    """
    if figure.kind not in _KINDS:
        raise ValueError(f"no picture of kind {figure.kind!r}; there are {', '.join(_KINDS)}")
    return _KINDS[figure.kind](figure.data)


def kinds() -> tuple[str, ...]:
    """What can be drawn."""
    return tuple(_KINDS)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _line(css: str, x1: float, x2: float, y1: str = "50%", y2: str = "50%") -> Markup:
    return Markup(
        '<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>'
    ).format(css, x1, x2, y1, y2)  # fmt: skip


def _upright(css: str, x: float) -> Markup:
    return _line(css, x, x, "0", "100%")


def _at(x: float, shape: Markup, y: str = "50%") -> Markup:
    """A shape drawn around the origin, placed at `x` percent."""
    return Markup('<svg x="{:.2f}%" y="{}" overflow="visible">{}</svg>').format(x, y, shape)


_DOT = Markup('<circle class="dot" r="5.5"/>')
_RING = Markup('<circle class="ring" r="4.5"/>')
_DIAMOND = Markup('<path class="truth" d="M0-6.5 5.5 0 0 6.5-5.5 0Z"/>')
_LEFT = Markup('<path class="arrow" d="M7-4.5 0 0 7 4.5"/>')
_RIGHT = Markup('<path class="arrow" d="M-7-4.5 0 0-7 4.5"/>')
_CAP = Markup('<path class="cap" d="M0-6V6"/>')


def _interval(scale: Scale, low: float, high: float) -> Markup:
    """A line with caps, or with arrows where it leaves the axis."""
    known_low, known_high = _finite(low), _finite(high)
    left = scale.at(low) if known_low else 0.0
    right = scale.at(high) if known_high else 100.0
    ends = (
        _at(left, _CAP if known_low and scale.holds(low) else _LEFT),
        _at(right, _CAP if known_high and scale.holds(high) else _RIGHT),
    )
    return _line("ci", left, right) + ends[0] + ends[1]


def _ticks(scale: Scale, most: int = 5) -> Markup:
    """Tick texts along the bottom, as HTML so that they keep their size."""
    marks = [
        Markup('<span style="left:{:.2f}%">{}</span>').format(scale.at(v), _minus(text))
        for v, text in scale.ticks(most)
    ]
    return Markup('<div class="ticks" aria-hidden="true">{}</div>').format(_JOIN(marks))


def _axis(data: dict[str, Any], key: str) -> str:
    return plain_text(data.get(key, ""), 80)


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")


# ------------------------------------------------------------------------------------ forest


def _forest_scale(data: dict[str, Any]) -> Scale:
    """The axis holds the tested row whole; intervals much wider than that one leave it as
    arrows."""
    rows, log = data["rows"], bool(data.get("log"))
    anchors = [data.get("zero"), data.get("margin")]
    tested = [r for r in rows if r.get("mark") == "tested"] or rows
    core = [
        v for r in tested for v in (r.get("low"), r.get("value"), r.get("high"), r.get("truth"))
    ]
    core = [v for v in [*core, *anchors] if _finite(v)]
    points = [r.get("value") for r in rows]
    ends = [v for r in rows for v in (r.get("low"), r.get("high"))]
    if log or not core:
        return span([*core, *points, *ends], log=log)
    width = max(core) - min(core)
    near = [
        v
        for v in [*points, *ends]
        if _finite(v) and min(core) - 1.2 * width <= v <= max(core) + 1.2 * width
    ]
    return span([*core, *near])


def _forest_text(row: dict[str, Any], places: int) -> Markup:
    if row.get("text"):
        return Markup("{}").format(row["text"])
    sign = bool(row.get("sign", True))
    texts = (number(row.get(k), places, sign=sign) for k in ("value", "low", "high"))
    return Markup("{} <i>[{}, {}]</i>").format(*map(_minus, texts))


def _forest(data: dict[str, Any]) -> Markup:
    rows: Sequence[dict[str, Any]] = data["rows"]
    scale = _forest_scale(data)
    lead = next((r for r in rows if r.get("mark") == "tested"), rows[0] if rows else {})
    places = decimals(lead.get("low"), lead.get("value"), lead.get("high"))
    grid = _EMPTY
    if _finite(data.get("zero")):
        grid += _upright("zero", scale.at(data["zero"]))
    if _finite(data.get("margin")) and data["margin"] != data.get("zero"):
        grid += _upright("margin", scale.at(data["margin"]))
    body = [_forest_row(row, scale, grid, places) for row in rows]
    return Markup(
        '<div class="forest{}"><div class="rows">{}</div>'
        '<div class="row axis"><span></span><div class="track">{}</div><span></span></div></div>'
    ).format(
        " wide-text" if any(row.get("text") for row in rows) else "",
        _JOIN(body),
        _ticks(scale, 6),
    )


def _forest_row(row: dict[str, Any], scale: Scale, grid: Markup, places: int) -> Markup:
    marks = grid
    if _finite(row.get("low")) or _finite(row.get("high")):
        marks += _interval(scale, row.get("low", math.nan), row.get("high", math.nan))
    if _finite(row.get("value")) and scale.holds(row["value"]):
        marks += _at(scale.at(row["value"]), _DOT if row.get("mark") == "tested" else _RING)
    if _finite(row.get("truth")):
        marks += _at(scale.at(row["truth"]), _DIAMOND)
    note = row.get("note")
    return Markup(
        '<div class="row {}"><span class="name"><bdi>{}</bdi>{}</span>'
        '<svg class="track" width="100%" height="26" aria-hidden="true">{}</svg>'
        '<span class="num">{}</span></div>'
    ).format(
        row.get("mark", "plain"),
        plain_text(row["label"]),
        Markup(" <small>{}</small>").format(plain_text(note, 48)) if note else "",
        marks,
        _forest_text(row, places),
    )


def interval_bar(
    *,
    value: float,
    low: float,
    high: float,
    margin: float = 0.0,
    truth: float | None = None,
    places: int | None = None,
) -> Markup:
    """The verdict's own picture: the gain and its interval beside the reference, drawn large."""
    scale = span([value, low, high, 0.0, margin, truth], margin=0.14)
    places = decimals(low, value, high) if places is None else places
    bound = scale.at(margin)
    marks = Markup(
        '<rect class="worse" x="0" y="0" width="{:.2f}%" height="100%"/>'
        '<rect class="better" x="{:.2f}%" y="0" width="{:.2f}%" height="100%"/>'
    ).format(bound, bound, 100 - bound)
    marks += _upright("zero", scale.at(0.0))
    if margin:
        marks += _upright("margin", bound)
    marks += _interval(scale, low, high) + _at(
        scale.at(value), Markup('<circle class="dot" r="8"/>')
    )
    if truth is not None and math.isfinite(truth):
        marks += _at(scale.at(truth), Markup('<path class="truth" d="M0-9 7.5 0 0 9-7.5 0Z"/>'))
    ends = [(v, number(v, places, sign=True)) for v in (low, high) if math.isfinite(v)]
    labels = [
        Markup('<span style="left:{:.2f}%">{}</span>').format(scale.at(v), _minus(text))
        for v, text in ends
    ]
    zero = Markup('<span style="left:{:.2f}%">reference</span>').format(scale.at(0.0))
    zero += Markup(
        '<span class="side right">better →</span>'
        if scale.at(0.0) < 55
        else '<span class="side">← worse</span>'
    )
    return Markup(
        '<div class="hero-bar"><div class="ticks top" aria-hidden="true">{}</div>'
        '<svg class="track" width="100%" height="52" role="img" aria-label="{}">{}</svg>'
        '<div class="ticks" aria-hidden="true">{}</div></div>'
    ).format(
        zero,
        f"Gain {number(value, places, sign=True)}, interval from "
        f"{number(low, places, sign=True)} to {number(high, places, sign=True)}; "
        "the reference is at zero",
        marks,
        _JOIN(labels),
    )


# -------------------------------------------------------------------------------------- bars


def _bars(data: dict[str, Any]) -> Markup:
    rows = data["rows"]
    drawn = [v for r in rows if not r.get("rest") for v in r["values"] if _finite(v)]
    top = max(drawn, default=1.0) or 1.0
    legend = [
        Markup('<span class="key s{}"><i></i>{}</span>').format(i, plain_text(name))
        for i, name in enumerate(data["series"])
    ]
    body = []
    for row in rows:
        bars = [
            Markup(
                '<span class="bar s{}"><i style="width:{:.2f}%"></i><b>{}</b></span>'
            ).format(i, 82 * v / top if _finite(v) else 0, percent(v))
            for i, v in enumerate(row["values"])
        ]  # fmt: skip
        if row.get("rest"):
            text = ", ".join(
                f"{plain_text(name)} {percent(v)}"
                for name, v in zip(data["series"], row["values"], strict=True)
            )
            bars = [Markup('<span class="rest">{}</span>').format(text)]
        note = row.get("note")
        body.append(
            Markup(
                '<div class="row"><span class="name"><bdi>{}</bdi>{}</span><div>{}</div></div>'
            ).format(
                plain_text(row["label"], 40),
                Markup(" <small>{}</small>").format(plain_text(note)) if note else "",
                _JOIN(bars),
            )
        )
    return Markup('<div class="legend">{}</div><div class="bars">{}</div>').format(
        _JOIN(legend), _JOIN(body)
    )


# --------------------------------------------------------------------------------- histogram


def _histogram(data: dict[str, Any]) -> Markup:
    edges, counts = list(data["edges"]), list(data["counts"])
    scale = Scale(float(edges[0]), float(edges[-1]))
    top = max(max(counts, default=0), 1)
    bars = [
        Markup(
            '<rect class="column" x="{:.2f}%" width="{:.2f}%" y="{:.2f}%" height="{:.2f}%"/>'
        ).format(
            scale.at(left) + 0.15, max(scale.at(right) - scale.at(left) - 0.3, 0.2),
            100 - 100 * c / top, 100 * c / top,
        )
        for left, right, c in zip(edges, edges[1:], counts, strict=False)
        if c > 0
    ]  # fmt: skip
    marks, labels = [], []
    for mark in data.get("marks", ()):
        marks.append(_upright("margin", scale.at(mark["at"])))
        side = "right" if scale.at(mark["at"]) > 60 else "left"
        labels.append(
            Markup('<span class="{}" style="left:{:.2f}%">{}</span>').format(
                side, scale.at(mark["at"]), plain_text(mark["label"])
            )
        )
    total = sum(counts)
    alt = f"Histogram of {count(total)} values between {edges[0]:.4g} and {edges[-1]:.4g}"
    return Markup(
        '<div class="plain-plot"><div class="marks" aria-hidden="true">{}</div>'
        '<svg class="plot" width="100%" height="150" role="img" aria-label="{}">{}{}</svg>{}'
        '<div class="axis-name">{}</div></div>'
    ).format(_JOIN(labels), alt, _JOIN(bars), _JOIN(marks), _ticks(scale), _axis(data, "x"))


# ------------------------------------------------------------------------------- calibration


def _calibration(data: dict[str, Any]) -> Markup:
    bins, flat = data["bins"], bool(data.get("flat"))
    values = [b.get(k) for b in bins for k in ("predicted", "observed", "low", "high")]
    scale = span(values, margin=0.08)
    scale = Scale(max(0.0, scale.low), scale.high)
    width = 100 / max(len(bins), 1)
    marks = [] if flat else [Markup('<line class="diagonal" x1="0" y1="100%" x2="100%" y2="0"/>')]
    for i, b in enumerate(bins):
        if flat:  # one column per bin, and its prediction as a dash across it
            y = f"{100 - scale.at(b['predicted']):.2f}%"
            marks.append(_line("diagonal", i * width, (i + 1) * width, y, y))
        marks.append(_calibration_dot(b, (i + 0.5) * width if flat else None, scale))
    far = max((abs(b["predicted"] - b["observed"]) for b in bins), default=0.0)
    alt = (
        f"{len(bins)} points, predicted against observed; the largest distance from the "
        f"diagonal is {number(far)}"
    )
    side = [
        Markup('<span style="bottom:{:.2f}%">{}</span>').format(scale.at(v), text)
        for v, text in scale.ticks(5)
    ]
    return Markup(
        '<div class="square"><div class="yname">{}</div>'
        '<div class="yticks" aria-hidden="true">{}</div>'
        '<svg class="plot" width="100%" height="100%" role="img" aria-label="{}">{}</svg>'
        '<div class="xticks">{}<div class="axis-name">{}</div></div></div>'
    ).format(
        _axis(data, "y"), _JOIN(side), alt, _JOIN(marks), _EMPTY if flat else _ticks(scale),
        _axis(data, "x"),
    )  # fmt: skip


def _calibration_dot(b: dict[str, Any], x: float | None, scale: Scale) -> Markup:
    x = scale.at(b["predicted"]) if x is None else x
    bar = _EMPTY
    if _finite(b.get("low")) and _finite(b.get("high")):
        ends = (f"{100 - scale.at(b[k]):.2f}%" for k in ("low", "high"))
        bar = _line("ci", x, x, *ends)
    return bar + Markup(
        '<circle class="dot" r="4" cx="{:.2f}%" cy="{:.2f}%"><title>{}</title></circle>'
    ).format(x, 100 - scale.at(b["observed"]), _bin_title(b))


def _bin_title(b: dict[str, Any]) -> str:
    name = f"{plain_text(b['label'])}: " if b.get("label") is not None else ""
    rows = f" ({count(b['count'])} rows)" if _finite(b.get("count")) else ""
    return f"{name}predicted {number(b['predicted'])}, observed {number(b['observed'])}{rows}"


# ------------------------------------------------------------------------------------ series


def _series(data: dict[str, Any]) -> Markup:
    lines = data["lines"]
    n = max((len(line["values"]) for line in lines), default=0)
    values = [v for line in lines for k in ("values", "low", "high") for v in (line.get(k) or ())]
    scale = span([*values, data.get("zero")], margin=0.08)
    shapes = [_series_shape(line, i, n, scale) for i, line in enumerate(lines)]
    zero = data.get("zero")
    base = _EMPTY
    if zero is not None and _finite(zero):
        y = f"{100 - scale.at(float(zero)):.2f}%"
        base = _line("zero", 0, 100, y, y)
    legend = [
        Markup('<span class="key s{}"><i></i>{}</span>').format(i, plain_text(line["name"]))
        for i, line in enumerate(lines)
    ]
    side = [
        Markup('<span style="bottom:{:.2f}%">{}</span>').format(scale.at(v), _minus(text))
        for v, text in scale.ticks(4)
    ]
    widest = max((text for _, text in scale.ticks(4)), key=len, default="")
    labels = data.get("labels") or [str(i + 1) for i in range(n)]
    ends = [labels[0], labels[-1]] if labels else ["", ""]
    alt = "; ".join(_series_alt(line) for line in lines)
    return Markup(
        '{}<div class="series"><div class="yticks" aria-hidden="true"><em>{}</em>{}</div>'
        '<svg class="plot" width="100%" height="170" role="img" aria-label="{}">{}{}</svg>'
        '<div class="ends"><span>{}</span><span class="axis-name">{}</span><span>{}</span></div>'
        "</div>"
    ).format(
        Markup('<div class="legend">{}</div>').format(_JOIN(legend)) if len(lines) > 1 else "",
        widest, _JOIN(side), alt, base, _JOIN(shapes),
        plain_text(ends[0], 24), _axis(data, "x"), plain_text(ends[1], 24),
    )  # fmt: skip


def _series_alt(line: dict[str, Any]) -> str:
    known = [v for v in line["values"] if _finite(v)]
    if not known:
        return f"{plain_text(line['name'])}: no values"
    places = decimals(min(known), max(known))
    return (
        f"{plain_text(line['name'])}: from {number(known[0], places)} to "
        f"{number(known[-1], places)}, lowest {number(min(known), places)}, "
        f"highest {number(max(known), places)}"
    )


def _series_shape(line: dict[str, Any], index: int, n: int, scale: Scale) -> Markup:
    def x(i: int) -> float:
        return 50.0 if n < 2 else 2 + 96 * i / (n - 1)

    points = [
        (x(i), 100 - scale.at(v)) for i, v in enumerate(line["values"]) if _finite(v)
    ]  # fmt: skip
    path = " ".join(f"{a:.2f},{b:.2f}" for a, b in points)
    band = _EMPTY
    if line.get("low") and line.get("high"):
        pairs = [
            (i, a, b)
            for i, (a, b) in enumerate(zip(line["low"], line["high"], strict=True))
            if _finite(a) and _finite(b)
        ]
        outline = [(x(i), 100 - scale.at(b)) for i, _, b in pairs]
        outline += [(x(i), 100 - scale.at(a)) for i, a, _ in reversed(pairs)]
        band = Markup('<polygon class="band" points="{}"/>').format(
            " ".join(f"{a:.2f},{b:.2f}" for a, b in outline)
        )
    dots = _JOIN(
        Markup('<circle class="dot" r="3" cx="{:.2f}%" cy="{:.2f}%"/>').format(a, b)
        for a, b in points
    )
    return Markup(
        '<g class="s{}"><svg x="0" y="0" width="100%" height="100%" viewBox="0 0 100 100" '
        'preserveAspectRatio="none">{}<polyline class="path" points="{}"/></svg>{}</g>'
    ).format(index, band, path, dots if n <= 60 else "")


_KINDS: dict[str, Callable[[dict[str, Any]], Markup]] = {
    "forest": _forest,
    "bars": _bars,
    "histogram": _histogram,
    "calibration": _calibration,
    "series": _series,
}
