"""Checks that the built documentation asks no other host for anything.

    python -m tools.site_check site

Links to other hosts are fine, as a reader chooses to follow them. What a browser fetches by itself is not: the site must work in a
closed network, and tell nobody who reads it.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

FETCHED: Final = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src", "embed": "src",
    "object": "data", "form": "action",
}  # fmt: skip
"""The attribute whose target a browser fetches, by tag; `link` has more to it."""
FETCHED_LINKS: Final = {"stylesheet", "icon", "preconnect", "dns-prefetch", "preload", "modulepreload", "manifest"}
_CSS: Final = re.compile(r"""(?:url\(|@import\s+)\s*["']?((?:https?:)?//[^"')\s]+)""")


class _Fetches(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link":
            target = values.get("href") if FETCHED_LINKS & set((values.get("rel") or "").split()) else None
        else:
            target = values.get(FETCHED.get(tag, ""))
        if target and re.match(r"(https?:)?//", target):
            self.found.append(target)
        self.found += _CSS.findall(values.get("style") or "")


def foreign_fetches(page: Path) -> list[str]:
    """Targets on other hosts that a browser fetches by itself for a page or a style sheet."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".css":
        return _CSS.findall(text)
    parser = _Fetches()
    parser.feed(text)
    return parser.found + [
        target for style in re.findall(r"<style>(.*?)</style>", text, re.S) for target in _CSS.findall(style)
    ]


def main(folder: Path) -> int:
    """Print what is wrong; 0 where nothing is."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".html", ".css")]
    if not files:
        print(f"{folder} holds no page: build it with `make docs`")
        return 1
    wrong = [(path, target) for path in files for target in foreign_fetches(path)]
    for path, target in wrong:
        print(f"{path.relative_to(folder)} fetches {target}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
