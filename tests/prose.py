"""How long are the sentences of our pages? ``make prose``.

Counts the words of each sentence of README, docs and results pages. Code blocks, tables, headings, pictures and HTML
are left out. A bullet is a sentence of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "results").glob("*.md"))]
NEW_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )")
LIST_MARK = re.compile(r"^\s*(?:[-*]|\d+\.) +")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
CODE = re.compile(r"`[^`]*`")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+(?=[\"'(*_]*[A-Z0-9])|(?<=:)\s+(?!Code\b)(?=[A-Z])")
NO_END = re.compile(r"\b(e\.g|i\.e|eq|Fig|al|vs)\.$")


def prose(text: str) -> str:
    """A page without what is not prose: a link is its words, a piece of code is one word."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"^(?:\||#|<|!\[).*$", "", text, flags=re.MULTILINE)
    return CODE.sub("Code", LINK.sub(r"\1", text))


def sentences(text: str) -> list[str]:
    """The sentences of a page, in order; a colon before a capital ends one."""
    found: list[str] = []
    for paragraph in NEW_PARAGRAPH.split(prose(text)):
        plain = " ".join(LIST_MARK.sub("", paragraph).split())
        parts: list[str] = []
        for part in SENTENCE_END.split(plain):
            if parts and NO_END.search(parts[-1]):
                parts[-1] += f" {part}"
            else:
                parts.append(part)
        found.extend(part for part in parts if re.search(r"\w", part))
    return found


def lengths(text: str) -> list[int]:
    """Words of each sentence: what stands between spaces and has a letter or a digit."""
    return [sum(bool(re.search(r"\w", word)) for word in sentence.split()) for sentence in sentences(text)]


def ninetieth(counts: list[int]) -> int:
    """The smallest length that nine of ten sentences do not exceed."""
    return sorted(counts)[-(-9 * len(counts) // 10) - 1]


def main() -> None:
    counts = {str(page.relative_to(ROOT)): lengths(page.read_text(encoding="utf-8")) for page in PAGES}
    counts["all"] = [count for page in counts.values() for count in page]
    print(f"{'page':<32}{'sentences':>10}{'median':>8}{'p90':>6}{'longest':>9}")
    for page, found in counts.items():
        print(f"{page:<32}{len(found):>10}{median(found):>8.0f}{ninetieth(found):>6}{max(found):>9}")


if __name__ == "__main__":
    main()
