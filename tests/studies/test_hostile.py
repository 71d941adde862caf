"""A study of somebody else's whose every text tries to be markup: each page that is made of it shows the texts, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import made_records
import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bayesdiff import claims, compare, report, tables, verdict
from bayesdiff import study as planning
from bayesdiff.core import escape
from bayesdiff.studies import plan
from tests.made_pages import Page, check_whole

HOSTILE = (
    "Ca$$h_1 | `rm -rf` \\input{/etc/passwd} <script>owned()</script>", "a\nb | c\n# d\n- e [red]#1{~^} @import ; ], [",
    "![i](j) **k** `` $x_$ & 100 %", "\\\\ \\hline \\end{tabular} ]] --> </div> '\"<!--",
)  # fmt: skip
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
OURS = {"text", "text_special", "code_inline", "em_open", "em_close", "link_open", "link_close", "softbreak"}
"""Marks of our own pages within a line; of links only those to the tables beside the index."""
MACROS = {
    "begin", "end", "caption", "label", "toprule", "midrule", "bottomrule", "footnotesize", "shortstack", "textbackslash",
    "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "textquotedbl", "textquotesingle", "textasciigrave",
    *"\\$&#%_{}",
}  # fmt: skip


def hostile_study(folder: Path, text: str) -> plan.Study:
    """Its title, source, axis, labels and subjects are the text; a subject takes no line break."""
    line = escape.plain(text)
    content = {
        "title": f"t {text}", "paper": f"p {text}", "experiment": "smoke", "feeds": ["table_1"], "compare": {"bnn": "off"},
        "grid": {
            "method": ["dreambooth"], "bnn": {"off": ["bnn=off"], "on": ["bnn=on"]},
            f"axis {text}": {f"first {text}": ["shots.count=4"], f"second {text}": ["shots.count=3"]},
        },
        "models": {"toybox": {"minutes": 1, "grid": {"data.subject": [f"s {line}", f"z {line}"], "seed": [0]}}},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    plan.EXPERIMENTS = folder
    (folder / "table_1.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return plan.load_study("table_1")


def inside(tokens: list[Token]) -> list[Token]:
    return [one for token in tokens for one in (token.children or [])]


def check_markdown(text: str, hostile: str, times: int) -> None:
    """The page has only marks of our own, its tables are rectangles, and the hostile text is shown ``times``, as it was given."""
    tokens = READER.parse(text)
    assert {token.type for token in inside(tokens)} <= OURS
    assert not {token.type for token in tokens} & {"html_block", "blockquote_open", "bullet_list_open", "hr"}
    assert all(str(one.attrGet("href")).endswith(".md") for one in inside(tokens) if one.type == "link_open")
    rows = re.findall(r"tr_open(.*?)tr_close", " ".join(token.type for token in tokens))
    assert len({len(re.findall("t[dh]_open", row)) for row in rows}) <= 1
    shown = " ".join(" ".join(one.content for one in (token.children or [])) for token in tokens)
    words = " ".join(escape.plain(hostile).split())
    # without spaces: a renderer shows pieces of a text one behind the other
    assert shown.replace(" ", "").count(words.replace(" ", "")) >= times, shown


def check_latex(text: str) -> None:
    """Every macro is one of ours, every brace is closed, and every row has as many cells as the table has columns."""
    macros = re.findall(r"\\([A-Za-z]+|.)", text)
    assert set(macros) <= MACROS, set(macros) - MACROS
    bare = re.sub(r"\\([A-Za-z]+|.)", "", re.sub(r"\\label\{tab:table_1-toybox(-\d)?\}", "", text))
    assert not set(re.sub(r"\{[\[\]@-]\}", "", bare)) & set("$#%^~_<>|\"'`@")
    assert bare.count("{") == bare.count("}")
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", text)
    assert [name for _, name in environments] == ["table", "tabular", "tabular", "table"] * (len(environments) // 4)
    for columns, body in re.findall(r"\\begin\{tabular\}\{(l+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        # a line break stands within \shortstack too
        rows = re.sub(r"\\shortstack\[l\]\{(?:[^{}]|\{[^{}]*\})*\}", "", body).split(r"\\")[:-1]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_and_claims_of_a_hostile_study_show_its_texts(tmp_path: Path, restored_studies: None, text: str) -> None:
    study = hostile_study(tmp_path / "studies", text)
    results = made_records.fill(study, tmp_path)
    (results.parent / "claims.yaml").write_text(yaml.safe_dump([{
        "claim": f"c {text}", "paper": f"p {text}", "study": "table_1", "measure": "dino",
        "row": {"bnn": "on", f"axis {text}": f"first {text}"}, "against": {"bnn": "off"},
    }]))  # fmt: skip
    assert tables.main([str(results)]) == 0
    assert claims.main([str(results)]) == 0
    check_markdown((results / "tables" / "table_1.md").read_text(), text, 1 + 1 + 4)
    check_markdown((results / "tables" / "README.md").read_text(), text, 2)
    check_markdown((results / "tables" / "runs.md").read_text(), text, 8)
    check_markdown((results / "claims.md").read_text(), text, 2)
    check_latex((results / "tables" / "table_1.tex").read_text())


@pytest.mark.parametrize("text", HOSTILE)
def test_the_page_of_a_hostile_study_has_its_texts_as_data(tmp_path: Path, restored_studies: None, text: str) -> None:
    study = hostile_study(tmp_path / "studies", text)
    results = made_records.fill(study, tmp_path)
    assert report.main(["table_1", "--results", str(results), "--output", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text())
    check_whole(page)
    assert f"t {escape.plain(text)}" in page.text or " ".join(f"t {escape.plain(text)}".split()) in page.text
    assert json.dumps(f"first {escape.plain(text)}")[1:-1] in json.dumps(page.data)


@pytest.mark.parametrize("text", HOSTILE)
def test_the_terminal_shows_the_texts_of_hostile_runs(
    tmp_path: Path, restored_studies: None, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    study = hostile_study(tmp_path / "studies", text)
    runs = [str(made_records.make_run(cell, tmp_path / "runs")) for cell in study.cells[:2]]
    line = " ".join(escape.plain(text).split())
    assert compare.main([*runs, "--plot", str(tmp_path / "x.svg")]) == 0
    assert line in " ".join(capsys.readouterr().out.split())
    assert planning.main(["table_1", "--dry-run", "--runs", str(tmp_path / "none")]) == 0
    assert line in " ".join(capsys.readouterr().out.split())
    assert verdict.main(runs[:1]) in (0, 10, 11)
    assert "Traceback" not in "".join(capsys.readouterr())
