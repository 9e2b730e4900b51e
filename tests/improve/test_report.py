"""The report: nothing in it but the object's own numbers, nothing from the data taken as markup,
and the folder whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import pytest
from example_reports import HOSTILE, candidate, hold, hostile, promote, reject
from rich.console import Console

from surpass.errors import InputError
from surpass.improve.improvement import Improvement
from surpass.improve.pictures import interval_bar, kinds, picture
from surpass.improve.results import Estimate, Figure
from surpass.improve.scales import Scale, span
from surpass.improve.sections import page
from surpass.improve.wording import (
    decimals,
    headline,
    label,
    number,
    percent,
    plain_text,
    relative,
    rounded_rows,
)

# ------------------------------------------------------------------- reading the page


class _Page(HTMLParser):
    """Tags, attributes, `<data>` elements of the verdict block, and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.numbers: list[tuple[float, str]] = []
        self._depth, self._value, self._shown = 0, None, ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "section":
            self._depth = 1 if found.get("id") == "verdict" else 0
        if tag == "data" and self._depth:
            self._value, self._shown = float(found["value"]), ""

    def handle_endtag(self, tag):
        if tag == "data" and self._value is not None:
            self.numbers.append((self._value, self._shown))
            self._value = None

    def handle_data(self, data):
        self.text.append(data)
        self._shown += data


EXAMPLES = {"promote": promote, "hold": hold, "reject": reject}


@pytest.fixture(params=EXAMPLES)
def result(request) -> Improvement:
    return EXAMPLES[request.param]()


def test_every_number_in_the_verdict_block_is_the_objects(result):
    shown = _Page(result.html()).numbers
    best, base = result.best, result.reference
    expected = [
        best.gain, best.gain / base.value, best.gain_low, best.gain_high, result.rows,
        result.diagnosis["scored"], base.value, best.value,
    ]  # fmt: skip
    assert [value for value, _ in shown] == pytest.approx(expected, rel=1e-12)
    for value, text in shown:
        plain = text.replace("\u2212", "-").replace(",", "")
        written = float(plain.removesuffix("\u00a0%"))
        written = written / 100 if "%" in plain else written
        digits = len(plain.removesuffix("\u00a0%").partition(".")[2]) + (2 if "%" in plain else 0)
        assert written == pytest.approx(value, abs=0.501 * 10**-digits)


def test_the_page_says_its_verdict_once_and_first(result):
    parsed = _Page(result.html())
    words = [t.strip() for t in parsed.text if t.strip() in ("PROMOTE", "HOLD", "REJECT")]
    assert words[0] == result.verdict
    headings = [t for t, _ in parsed.tags if t in ("h1", "h2")]
    assert headings[0] == "h1" and headings.count("h1") == 1
    assert headline(result) in result.html()


def test_sections_come_in_the_order_of_a_readers_questions():
    keys = [section.key for section in page(hold(), policy="out/policy").sections]
    assert keys == [
        "believe", "wrong", "settle", "use", "method", "candidates", "checks", "log", "run",
    ]  # fmt: skip
    assert "settle" not in [section.key for section in page(promote()).sections]


def test_failed_checks_lead_what_could_be_wrong_and_passed_ones_do_not_appear_there():
    section = next(s for s in page(reject()).sections if s.key == "wrong")
    assert section.blocks[0].kind == "checks"
    assert [c.name for c in section.blocks[0].data] == ["logged propensities"]
    believed = next(s for s in page(reject()).sections if s.key == "believe")
    passed = next(b for b in believed.blocks if b.kind == "checks")
    assert "logged propensities" not in [c.name for c in passed.data]
    assert all(c.ran and c.passed for c in passed.data)


def test_nothing_from_the_data_becomes_markup():
    result = hostile()
    html = result.html(policy=HOSTILE)
    parsed = _Page(html)
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "a", "img", "iframe", "object", "embed", "link", "form", "base"}
    assert "<script" not in html.lower()
    assert "&lt;script&gt;" in html
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    # the names are still there to be read, on one line and without the direction override
    assert any('<script>alert("x")</script>' in t for t in parsed.text)
    code = next(i for i, t in enumerate(parsed.text) if t.strip() == "This run")
    assert "\u202e" not in "".join(parsed.text[:40]) and code > 0


def test_the_page_asks_for_nothing_from_elsewhere(result):
    html = result.html(policy="out/policy")
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\(", html)
    for _, attrs in _Page(html).tags:
        assert not {"src", "href", "srcset", "xlink:href", "action"} & set(attrs)
    assert "default-src 'none'" in html


def test_hostile_names_stay_text_in_markdown_and_console():
    result = hostile()
    text = result.markdown()
    assert "<script" not in text and "](javascript" not in text and "\u202e" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # an escaped bar is not a column: every row of the table has the same four cells
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {6}
    shown = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    shown.print(result)
    assert "[a](javascript:x)" in shown.export_text()


def test_markdown_carries_the_numbers_of_the_object(result):
    text = result.markdown()
    best = result.best
    places = decimals(best.gain_low, best.gain, best.gain_high)
    for value in (best.gain, best.gain_low, best.gain_high):
        assert number(value, places, sign=True) in text
    assert text.startswith(f"# {result.verdict}: ")
    assert ("What would settle it" in text) == (result.settlement is not None)


# --------------------------------------------------------------------------- the files

REQUIRED = {
    "verdict", "reason", "reference", "candidates", "diagnosis", "rows", "level", "seed",
    "versions",
}  # fmt: skip
CANDIDATE = {
    "key", "params", "value", "low", "high", "gain", "gain_low", "gain_high", "ess", "support",
}  # fmt: skip


def test_json_has_the_fields_and_the_numbers(result):
    told = json.loads(result.json())
    assert set(told) >= REQUIRED
    assert "hand_over" not in told
    reference = result.reference
    assert {k: told["reference"][k] for k in ("value", "low", "high")} == {
        "value": reference.value, "low": reference.low, "high": reference.high,
    }  # fmt: skip
    for written, held in zip(told["candidates"], result.candidates, strict=True):
        assert set(written) >= CANDIDATE
        assert {k: written[k] for k in CANDIDATE} == {k: getattr(held, k) for k in CANDIDATE}


def test_json_has_null_where_there_is_no_number():
    base = promote()
    best = dataclasses.replace(base.best, gain_low=-math.inf, low=math.nan)
    told = json.loads(dataclasses.replace(base, best=best, candidates=(best,)).json())
    assert told["best"]["gain_low"] is None and told["candidates"][0]["low"] is None
    assert told["best"]["gain"] == base.best.gain


def test_a_verdict_without_a_candidate_or_a_diagnosis_still_makes_a_page(tmp_path):
    bare = Improvement(
        verdict="HOLD", reason="Only one action was logged.", log="x", best=None, candidates=(),
        checks=(), rows=120, reference=Estimate(0.5, math.nan, math.nan),
    )  # fmt: skip
    numbers = _Page(bare.html()).numbers
    assert numbers == [(120.0, "120"), (0.5, "0.500")]
    assert [s.key for s in page(bare).sections] == ["method", "log", "run"]
    assert "120 rows" in bare.markdown()


def test_the_folder_is_whole(tmp_path):
    result = dataclasses.replace(
        promote(), hand_over=lambda folder: (folder / "policy.json").write_text("{}")
    )
    folder = result.save(tmp_path / "out")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == ["policy/policy.json", "report.html", "report.json", "verdict.md"]
    assert json.loads((folder / "report.json").read_text()) == result.to_dict()
    assert f"{folder}/policy" in (folder / "report.html").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failing_hand_over_leaves_nothing(tmp_path):
    def fails(folder):
        (folder / "half").write_text("half")
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError, match="went away"):
        promote().save(tmp_path / "out", hand_over=fails)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_without_overwrite_and_replaced_with_it(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="kept as it is"):
        promote().save(folder)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]
    promote().save(folder, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.json", "verdict.md"]


# --------------------------------------------------------------- pictures and numbers


def _positions(markup: str, css: str) -> list[float]:
    """Where the shapes of a class stand, in percent."""
    return [float(x) for x in re.findall(rf'<svg x="([\d.]+)%"[^>]*><\w+ class="{css}"', markup)]


def test_a_forest_plot_puts_dots_where_the_numbers_are():
    rows = [
        {"label": "a", "value": 1.0, "low": 0.0, "high": 2.0, "mark": "tested"},
        {"label": "b", "value": 2.0, "low": 1.0, "high": 3.0, "truth": 1.0},
    ]
    html = str(picture(Figure("forest", "t", {"rows": rows, "zero": 0.0})))
    scale = span([0.0, 1.0, 2.0, 3.0])
    assert _positions(html, "dot") == pytest.approx([scale.at(1.0)], abs=0.01)
    assert _positions(html, "ring") == pytest.approx([scale.at(2.0)], abs=0.01)
    assert _positions(html, "truth") == pytest.approx([scale.at(1.0)], abs=0.01)
    caps = [scale.at(x) for x in (0.0, 2.0, 1.0, 3.0)]
    assert _positions(html, "cap") == pytest.approx(caps, abs=0.01)


def test_an_interval_far_wider_than_the_tested_one_leaves_as_arrows():
    rows = [
        {"label": "a", "value": 1.0, "low": 0.5, "high": 1.5, "mark": "tested"},
        {"label": "b", "value": 1.0, "low": -100.0, "high": math.inf},
    ]
    html = str(picture(Figure("forest", "t", {"rows": rows, "zero": 0.0})))
    assert _positions(html, "arrow") == [0.0, 100.0]
    # the tested interval fills a good part of the width
    low, high = _positions(html, "cap")
    assert high - low > 40


def test_the_verdicts_bar_shades_what_is_better_than_the_margin():
    html = str(interval_bar(value=0.5, low=0.25, high=0.75, margin=0.1))
    scale = span([0.5, 0.25, 0.75, 0.0, 0.1, None], margin=0.14)
    x, width = re.search(r'class="better" x="([\d.]+)%" y="0" width="([\d.]+)%"', html).groups()
    assert float(x) == pytest.approx(scale.at(0.1), abs=0.01)
    assert float(x) + float(width) == pytest.approx(100, abs=0.02)


def test_bars_are_proportional_and_the_rest_is_words():
    rows = [
        {"label": "a", "values": [0.1, 0.4]},
        {"label": "3 others", "values": [0.9, 0.6], "rest": True},
    ]
    html = str(picture(Figure("bars", "t", {"rows": rows, "series": ["old", "new"]})))
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%", html)]
    assert widths == pytest.approx([82 / 4, 82])
    assert "old 90\u00a0%, new 60\u00a0%" in html


def test_a_histogram_draws_counts_over_their_edges():
    data = {"edges": [0.0, 1.0, 2.0, 4.0], "counts": [4, 0, 2], "marks": [{"at": 2, "label": "m"}]}
    html = str(picture(Figure("histogram", "t", data)))
    bars = re.findall(r'x="([\d.]+)%" width="([\d.]+)%" y="([\d.]+)%"', html)
    assert [tuple(map(float, b)) for b in bars] == [(0.15, 24.7, 0.0), (50.15, 49.7, 50.0)]


def test_calibration_draws_wilson_intervals():
    base = promote()
    table = {"bins": [{"predicted": 0.5, "observed": 0.5, "count": 100}], "p_value": 0.5}
    result = dataclasses.replace(base, diagnosis={"calibration": table})
    section = next(s for s in page(result).sections if s.key == "wrong")
    (figure,) = next(b for b in section.blocks if b.kind == "pictures").data
    # Wilson (1927) for 50 of 100 at 95 %: 0.4038 to 0.5962
    assert figure.data["bins"][0]["low"] == pytest.approx(0.4038, abs=1e-4)
    assert figure.data["bins"][0]["high"] == pytest.approx(0.5962, abs=1e-4)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="no picture of kind 'pie'"):
        picture(Figure("pie", "t", {}))
    assert set(kinds()) == {"forest", "bars", "histogram", "calibration", "series"}


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-0.003, 0.0171), (12.0, 91_000.0)])
def test_ticks_lie_on_the_axis_at_round_numbers(low, high):
    scale = Scale(low, high)
    ticks = scale.ticks(5)
    assert 2 <= len(ticks) <= 6
    values = [v for v, _ in ticks]
    assert all(low - 1e-9 <= v <= high + 1e-9 for v in values)
    assert [float(text.replace(",", "")) for _, text in ticks] == pytest.approx(values, abs=1e-12)


def test_a_logarithmic_axis_spaces_powers_evenly():
    scale = Scale(1.0, 10_000.0, log=True)
    assert [scale.at(10.0**k) for k in range(5)] == pytest.approx([0, 25, 50, 75, 100])
    assert [text for _, text in scale.ticks(5)] == ["1", "10", "100", "1k", "10k"]


def test_numbers_show_the_digits_that_their_interval_supports():
    assert decimals(0.0101, 0.0213, 0.0336) == 3
    assert number(0.02131, 3, sign=True) == "+0.021"
    assert number(-0.0001, 2, sign=True) == "0.00"
    assert number(math.nan) == "\u2013"
    assert decimals(-530.0, -410.0, -280.0) == 0
    assert number(1234.5678, 1) == "1,234.6"
    assert percent(0.05) == "5\u00a0%" and percent(0.0123) == "1.2\u00a0%"
    assert percent(0.237, sign=True) == "+24\u00a0%"
    assert relative(0.01, 0.05) == "+20\u00a0%" and relative(0.01, 0.0) is None
    assert rounded_rows(183_712) == "180,000" and rounded_rows(1_234_567) == "1.2 million"
    assert rounded_rows(math.inf) == "\u2013"


def test_a_candidate_is_named_by_its_settings():
    made = candidate("tilt", 0.1, 0.1, 0.5, c=4.0, model="ridge", unused=None)
    assert label(made) == "tilt (c=4, model=ridge)"


@pytest.mark.parametrize(
    "design, said", [("given", "fixed before this log"), ("journal", "rows that came later")]
)
def test_the_story_of_the_test_follows_its_design(design, said):
    html = dataclasses.replace(promote(), design=design).html()
    assert said in html and "chosen on the rows it learned from" not in html
    assert "chosen on the rows it learned from" in promote().html()


def test_a_no_break_space_survives_and_control_characters_do_not():
    assert plain_text("5\u00a0%\n\t of\x07  it\u202e") == "5\u00a0% of it"
    assert plain_text("x" * 70) == "x" * 59 + "\u2026"


def test_equal_propensities_get_a_column_each_and_unequal_ones_the_diagonal():
    def drawn(predicted):
        bins = [
            {"label": str(i), "predicted": p, "observed": p, "count": 90}
            for i, p in enumerate(predicted)
        ]
        diagnosis = {"calibration": {"by": "action", "bins": bins}}
        section = next(
            s
            for s in page(dataclasses.replace(promote(), diagnosis=diagnosis)).sections
            if s.key == "wrong"
        )
        (figure,) = next(b for b in section.blocks if b.kind == "pictures").data
        return str(picture(figure))

    centers = re.findall(r'cx="([\d.]+)%" cy="([\d.]+)%"', drawn([0.25, 0.25, 0.25, 0.25]))
    assert [float(x) for x, _ in centers] == [12.5, 37.5, 62.5, 87.5]
    assert len({y for _, y in centers}) == 1
    for x, y in re.findall(r'cx="([\d.]+)%" cy="([\d.]+)%"', drawn([0.1, 0.2, 0.7])):
        assert float(x) + float(y) == pytest.approx(100, abs=0.02)


def test_how_to_use_the_policy_follows_what_it_needs():
    card = {"context": ["age", "city"], "reference": "given with every decision", "onnx": "written"}
    html = promote().html(policy="out/policy", card=card)
    assert "columns age, city" in html and "policy.sample(rows, reference)" in html
    assert "out/policy/policy.onnx" in html
    alone = promote().html(policy="out/policy", card={"context": ["age"], "reference": "carried"})
    assert "policy.sample(rows)" in alone and "policy.onnx" not in alone
    assert "policy.sample" not in promote().html()


def _luminance(color: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_behind_them(scheme):
    css = re.search(r"<style>(.*?)</style>", promote().html(), re.DOTALL).group(1)
    light, dark = css.split("@media (prefers-color-scheme: dark)")[:2]
    held = light if scheme == "light" else dark.split("* {")[0]
    color = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", held))
    tints = re.findall(r"--tint: (#[0-9a-f]{6})", held)
    assert len(tints) == 3
    for behind in (color["bg"], color["card"], *tints):
        assert _contrast(color["ink"], behind) >= 7
        assert _contrast(color["soft"], behind) >= 4.5
        for verdict in ("good", "wait", "bad"):
            assert _contrast(color[verdict], behind) >= 4.5
    assert _contrast(color["grid"], color["card"]) >= 3
    assert _contrast(color["truth"], color["card"]) >= 3
