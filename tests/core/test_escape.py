"""Any text comes out of each language's own reader as it went in."""

from __future__ import annotations

import html as library
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console

from bayesdiff.core import escape

NASTY = [
    "Ca$$h", "$x_$", r"\$a$", "[bold]dog[/]", "[/]", "a\\", "[red", "`x` | y", "*a* _b_ #c", "- item", "1. item", "<b>&amp;</b>",
    "</script>", "https://example.org/a_b", "![x](y)", "100 % & more", "{identifier}", "zoë 犬", "_hidden", "~~a~~", "a\nb\tc",
    "\x1b[31mred", "\udc80", "\x00", "|", "||", "``", "```\nx\n```", "me@example.org", "", " ", "a  b", "'\"", "^~", "::: x",
    "> quote", "===", "[^1]: note", "www.example.org",
]  # fmt: skip
ANY = st.one_of(st.sampled_from(NASTY), st.text(), st.text(alphabet="[]$\\`*_|<>&#-. \n1", max_size=12))


def words(text: str) -> str:
    """Single spaces, as renderers of Markdown and HTML show them."""
    return " ".join(text.split())


def shown(tokens: list[Token]) -> str:
    """The literal text of rendered Markdown; a mark-up token would be missing from it."""
    return "".join(t.content for token in tokens for t in (token.children or []) if t.type in ("text", "code_inline", "text_special"))


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_plain_text_is_one_line_that_can_be_written(text: str) -> None:
    found = escape.plain(text)
    assert len(found.splitlines()) <= 1
    found.encode("utf-8")
    assert escape.plain(found) == found
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", found)


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_a_terminal_shows_brackets_as_they_are(text: str) -> None:
    out = io.StringIO()
    Console(file=out, width=10_000, emoji=False, highlight=False, color_system=None).print(
        f"[b]{escape.terminal(text)}[/b]!", soft_wrap=True
    )
    space = " " if escape.plain(text).endswith("\\") else ""
    assert out.getvalue() == f"{escape.plain(text)}{space}!\n"


def test_a_tag_that_a_text_only_begins_is_none() -> None:
    out = io.StringIO()
    Console(file=out, color_system=None).print(f"{escape.terminal('[')}bold]x")
    assert out.getvalue() == "[bold]x\n"


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_a_plot_shows_dollars_as_they_are(text: str) -> None:
    from matplotlib.text import Text

    found, math = Text(0, 0)._preprocess_math(escape.plot(text))
    assert math is False or math == "TeX"
    assert found.lstrip(" ") == escape.plain(text).lstrip(" ")
    assert not escape.plot(text).startswith("_")


@pytest.mark.parametrize("text", NASTY)
def test_a_plot_of_any_text_is_drawn(text: str) -> None:
    import warnings

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], label=escape.plot(text))
    axes.set(title=escape.plot(text), xlabel=escape.plot(text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the font lacks
        assert len(axes.get_legend_handles_labels()[1]) == (1 if text else 0)
        FigureCanvasAgg(figure).draw()


@given(ANY)
@settings(max_examples=500, deadline=None)
def test_markdown_shows_text_as_it_is_in_a_paragraph_and_in_a_table(text: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    expected = words(escape.plain(text))
    for page in (f"x {escape.markdown(text)} y", f"{escape.markdown(text)} y", f"| a |\n|---|\n| {escape.markdown(text)} y |"):
        tokens = reader.parse(page)
        inside = {t.type for token in tokens for t in (token.children or [])}
        assert inside <= {"text", "text_special"}, page
        assert not {t.type for t in tokens} & {"heading_open", "blockquote_open", "html_block", "fence", "code_block", "bullet_list_open"}
        assert expected in words(shown(tokens))


@given(ANY.filter(lambda text: escape.plain(text).strip(" ") != ""))
@settings(max_examples=300, deadline=None)
def test_code_spans_keep_what_is_in_them(text: str) -> None:
    (token,) = MarkdownIt("commonmark").parse(f"x{escape.markdown_code(text)}y")[1].children[1:2] or [None]
    assert token is not None
    assert (token.type, token.content) == ("code_inline", escape.plain(text))


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_a_fence_ends_where_it_should(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"{escape.markdown_block(text, 'text')}\n\nafter\n")
    assert [t.type for t in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content.rstrip("\n") == "\n".join(escape.plain(line) for line in text.splitlines()).rstrip("\n")


UNLATEX = {value: key for key, value in escape._LATEX.items()}


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_latex_has_no_special_character_left(text: str) -> None:
    found = escape.latex(text)
    pieces = re.findall("|".join(re.escape(p) for p in sorted(UNLATEX, key=len, reverse=True)) + "|.", found)
    assert "".join(pieces) == found
    assert "".join(UNLATEX.get(piece, piece) for piece in pieces) == escape.plain(text)
    assert not set("\\{}$&#%_^~") & {piece for piece in pieces if len(piece) == 1}


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_html_is_read_back_as_it_was(text: str) -> None:
    found = escape.html(text)
    assert not re.search("[<>\"']", found)
    assert library.unescape(found) == escape.plain(text)
