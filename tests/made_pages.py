"""Pages taken apart as a browser would, and texts that try to be more than text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

HOSTILE = (
    "<script>window.owned=1</script>", "</script><img src=x onerror=window.owned=1>", "$$x$$", "[red]", "{{ 7*7 }}", "\"quotes' & <b>",
    "<!--<script>", "{% raw %}",
)  # fmt: skip
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements with their attributes, the text outside scripts and styles, the data of the script, and tags that are left open."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.stray: list[str] = []
        self._blocks: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.stray.append(tag)

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script" and self.elements[-1][1].get("type") == "application/json":
            self._blocks.setdefault(str(self.elements[-1][1]["id"]), []).append(data)
        elif inside not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self) -> Any:
        return self.store("data")

    def store(self, name: str) -> Any:
        """The content of a block of data."""
        return json.loads("".join(self._blocks[name]))

    @property
    def stores(self) -> set[str]:
        return set(self._blocks)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def check_whole(page: Page) -> None:
    """The page is as its template has it: every tag is closed, and no text became an element, a handler or an address elsewhere."""
    assert page.open == [] and page.stray == []
    code = [attributes for tag, attributes in page.elements if tag == "script" and "type" not in attributes]
    assert len(code) == (1 if page.data["kind"] == "index" else 2)
    assert len(page.stores) == page.count("script") - len(code), "every other script is a block of data with a name of its own"
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    addresses = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert all(value is not None and (value.startswith(("data:", "#")) or value.endswith(".html")) for value in addresses)
    assert "b" not in {name for name, _ in page.elements}
