"""The report in words and as a page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevl.bench import page, plots, report
from edgevl.bench.compare import compare
from edgevl.bench.result import Spread
from tests.bench.results import result, row, row_of_any

ROWS = [row_of_any(1), row((256, 256), 1), row((512, 640), 1), row_of_any(), row((256, 256), 2)]


def test_the_text_has_a_table_per_number_of_threads() -> None:
    text = report.text(result(ROWS))
    assert text.startswith("a-model, a made picture, 7 rounds, 2026-01-02")
    assert re.search(r"^processor +Some <CPU>$", text, re.MULTILINE)
    assert re.search(r"^1 thread +256x256 +640x512$", text, re.MULTILINE)
    assert re.search(r"^2 threads +256x256$", text, re.MULTILINE)
    assert re.search(r"^2 threads +any picture$", text, re.MULTILINE)
    assert re.search(r"^encode, per tile side by side, ms +\d\.\d\d \(", text, re.MULTILINE)
    assert re.search(r"^decode at 1,024 tokens, tokens/s +4\d\d \(", text, re.MULTILINE)
    assert re.search(r"^prefill, tokens/s +[23],\d{3} \([23],\d{3}-[23],\d{3}\) ", text, re.MULTILINE)
    assert re.search(r"^peak memory, MB +1[12]\d  ", text, re.MULTILINE)
    assert "cold start" not in text.split(report.ABOUT)[0]
    assert max(map(len, text.splitlines())) <= 120


def test_contexts_that_are_left_out_are_named() -> None:
    left_out = "Left out: decode at 1,024 and 4,096 tokens, for this model's context holds 512."
    assert left_out in report.text(result(ROWS, n_context=512))
    assert left_out in page.page(result(ROWS, n_context=512)).replace("&#x27;", "'")
    assert "Left out" not in report.text(result(ROWS, n_context=4096))


def test_the_text_ends_with_the_verdict() -> None:
    comparison = compare(result(), result([row(seed=1, encode_s=1.3)]))
    text = report.text(result(), comparison)
    assert re.search(r"^512x512 +2 +encode, a tile alone +1\.\d\d \(1\.\d\d-1\.\d\d\) +slower$", text, re.MULTILINE)
    assert text.endswith("verdict: slower in 1, no difference in 6")
    assert text.count("512x512") == 2, "what did not change is in the last line alone"
    text = report.text(result(), compare(result(), result(picture="cd")))
    assert text.endswith("Compared with then:\nnote: a different picture\nverdict: no difference in 7")


def test_a_stage_that_a_row_lacks_is_a_dash() -> None:
    lacking = replace(ROWS[2], values={"read_s": [0.001]})
    text = report.text(result([ROWS[1], lacking], rounds=1))
    assert re.search(r"^read, ms .* +1\.00$", text, re.MULTILINE)
    assert re.search(r"^decode, tokens/s .* +-$", text, re.MULTILINE)
    assert "1 round," in text


@pytest.mark.parametrize(
    ("value", "shown"), [(0.01234, "0.01"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")]
)
def test_numbers(value: float, shown: str) -> None:
    assert report.number(value) == shown


class Checker(HTMLParser):
    """Notes every tag and attribute, and that tags are closed in their order."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html() -> str:
    return page.page(result(ROWS), compare(result(ROWS), result(ROWS)))


def test_the_page_is_whole_and_loads_nothing(html: str) -> None:
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    tags = {tag for tag, _ in checker.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "image", "use"}
    attributes = {name for _, found in checker.tags for name in found}
    assert not attributes & {"src", "href", "xlink:href", "srcset", "data", "onload", "onclick"}
    assert "http" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_the_page_shows_every_stage_with_its_unit(html: str) -> None:
    assert html.count("<figure>") == 8
    assert html.count("<td>any picture</td>") == 2 + 2 * 3, "rows, and verdicts"
    for label in ("tokens held", "1,024", "128"):
        assert f">{label}</text>" in html
    for label in ("encode, a tile alone, ms", "decode, tokens/s", "peak memory, MB", "picture, pixels"):
        assert f">{label}</text>" in html
    assert ">640x512</text>" in html
    assert "Some &lt;CPU&gt;" in html
    assert "<CPU>" not in html
    assert "no difference in" in html


def test_light_and_dark_have_all_colours(html: str) -> None:
    light, dark = html.split("@media (prefers-color-scheme: dark)")
    used = set(re.findall(r"var\((--\w+)\)", html))
    assert used <= set(re.findall(r"(--\w+):", light))
    assert used <= set(re.findall(r"(--\w+):", dark))


def test_bars_take_several_tiles_side_by_side() -> None:
    [many] = [bar for bar in re.findall(r"<svg.*?</svg>", page.page(result(ROWS[:2]))) if "milliseconds" in bar][-1:]
    [alone] = [bar for bar in re.findall(r"<svg.*?</svg>", page.page(result(ROWS[1:2]))) if "milliseconds" in bar][-1:]
    assert many != alone


def test_a_page_without_a_comparison() -> None:
    assert "Compared with then" not in page.page(result(ROWS))


@given(st.floats(1e-6, 1e9))
def test_ticks_are_round_and_reach_the_highest(highest: float) -> None:
    steps = plots.ticks(highest)
    assert steps[0] == 0
    assert steps[-1] >= highest * (1 - 1e-6)
    assert 2 <= len(steps) <= 7
    assert steps[-1] <= highest * 2.01


def test_ticks_of_nothing() -> None:
    assert plots.ticks(0.0) == [0.0, 1.0]


def test_a_gap_in_a_line_is_left_out() -> None:
    line = plots.Series("a", [Spread(1, 2, 3), None, Spread(2, 3, 4)])
    drawn = plots.lines(["x", "y", "z"], [line], x_label="x", y_label="y")
    assert drawn.count("<circle") == 2


def test_a_point_is_told_as_in_the_table() -> None:
    line = plots.Series("a", [Spread(8666.0, 54_858.2, 100_600.0)])
    assert "<title>a: 54,858 (8,666-100,600)</title>" in plots.lines(["x"], [line], x_label="x", y_label="y")


def test_marks_differ_in_shape() -> None:
    assert len({re.sub(r'class="\w+"', "", plots.mark(0, 0, i)) for i in range(4)}) == 4
