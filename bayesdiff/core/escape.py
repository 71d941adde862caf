"""A user's text put literally into another language: terminal markup, a plot, Markdown, LaTeX, HTML.

Subjects, prompts, titles, metrics, file and run names can hold anything. Each function below returns text that its language
shows as it was given: nothing is read as markup, and nothing can end the output (control characters, half a surrogate
pair of a file name). Line breaks become spaces.

Use it as ``escape.plot(title)``. A ``rich.console.Console`` that prints such text needs ``emoji=False``, because ``:dog:`` has
no escape.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata

_BRACKET = re.compile(r"(\\*)\[(?=([a-z#/@][^\[]*?\])?)")
"""A bracket, the backslashes before it, and what would make it a tag for ``rich``, which reads backslashes otherwise there."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~&$:@=^\"'])")
_ORDINARY = re.compile(r"(?:[^\W_]|(?<=[^\W_])_+(?=[^\W_])|[ .,;:()/%'?!–—·×±+-])*")
"""Words without marks that Markdown reads, but for those that mean nothing within a line."""
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}", "-": "{-}", "[": "{[}", "]": "{]}", "@": "{@}",
}  # fmt: skip


def plain(text: object) -> str:
    """One line that can be written as UTF-8: breaks and tabs are spaces, other control characters are U+FFFD."""
    found = " ".join(re.split(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+", str(text)))
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in found)


def terminal(text: object) -> str:
    """For ``rich`` markup: no bracket opens a tag, also together with what follows; a space stands behind a last backslash.

    ``rich.markup.escape`` loses a backslash of ``\\[``, and does not see a tag that the text only begins.
    """
    found = _BRACKET.sub(lambda m: "\\" * (len(m[1]) * (2 if m[2] else 1) + 1) + "[", plain(text))
    return f"{found} " if found.endswith("\\") else found


def plot(text: object) -> str:
    """For any text of a matplotlib figure: ``$`` starts no mathtext, and ``_`` in front hides no line from the legend."""
    found = plain(text).replace("$", r"\$")
    return f" {found}" if found.startswith("_") else found


def markdown(text: object) -> str:
    """For running text, headings, list items and table cells of CommonMark and GitHub: every mark of punctuation is escaped."""
    return _MARKDOWN.sub(r"\\\1", plain(text).strip(" "))


def markdown_cell(text: object) -> str:
    """``markdown`` where a text holds what could be markup; ordinary words and numbers stay as a person would write them."""
    found = plain(text).strip(" ")
    return found if _ORDINARY.fullmatch(found) else markdown(found)


def markdown_code(text: object) -> str:
    """An inline code span; a longer run of backticks encloses those of the text. In a table, ``|`` is written ``\\|``."""
    found = plain(text)
    fence = "`" * (_longest_ticks(found) + 1)
    pad = " " if found.startswith(("`", " ")) or found.endswith(("`", " ")) or not found else ""
    return f"{fence}{pad}{found}{pad}{fence}"


def markdown_block(text: object, language: str = "") -> str:
    """A fenced code block of many lines, whose fence no line of the text can end."""
    lines = [plain(line) for line in str(text).splitlines()]
    fence = "`" * max(3, _longest_ticks("\n".join(lines)) + 1)
    return "\n".join([fence + language, *lines, fence])


def _longest_ticks(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)


def latex(text: object) -> str:
    """For running text and table cells of LaTeX (packages ``textcomp`` and ``fontenc`` with T1, as every current class loads them)."""
    return "".join(_LATEX.get(c, c) for c in plain(text))


def latex_caption(text: object) -> str:
    """``latex`` where a text holds one of LaTeX's marks; a single hyphen is none."""
    found = plain(text)
    return latex(found) if re.search(r"[\\{}$&#%_^~<>|\"'`\[\]@]|--", found) else found


def html(text: object) -> str:
    """For text and quoted attributes of HTML and SVG."""
    return _html.escape(plain(text), quote=True)
