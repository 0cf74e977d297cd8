"""The documentation site: it builds without a warning, has every page, loads nothing from other hosts, and searches."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests.report.browser import chromium

ROOT = Path(__file__).parents[2]
# Links that only name a place; what else has an address is loaded with the page.
NOT_LOADED = {("a", "href"), ("link", "href", "canonical"), ("link", "href", "prev"), ("link", "href", "next")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` builds, in a folder of its own."""
    pytest.importorskip("zensical", reason="extra docs")
    folder = tmp_path_factory.mktemp("docs")
    for name in ("docs", "cxr_faith", "benchmarks", "tutorial"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("bundled", "__pycache__"))
    for name in ("mkdocs.yml", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, folder)
    recipe = re.search(r"(?m)^docs:.*\n((?:\t.+\n)+)", (folder / "Makefile").read_text(encoding="utf-8"))
    assert recipe is not None
    for line in recipe[1].splitlines():
        program, *words = line.strip().split()
        module = program.removeprefix("$(BIN)/")
        command = [sys.executable, "-m", module, *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


class Loaded(HTMLParser):
    """Addresses that a page loads by itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        for name in ("src", "srcset", "href", "data", "poster"):
            if name in named and not {(tag, name), (tag, name, named.get("rel", ""))} & NOT_LOADED:
                self.addresses.append(named[name])


def test_every_page_of_the_navigation_is_built(site: Path) -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = re.findall(r"[\w/-]+\.md", json.dumps(navigation))
    assert len(pages) == len(set(pages)) and "api.md" in pages
    for page in pages:
        built = (site / page).with_suffix(".html").read_text(encoding="utf-8")
        assert "<h1" in built and "--8&lt;--" not in built and "--8<--" not in built, page
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written <= set(pages), "a page that the navigation does not list"


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 4
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert [address for address in Loaded(text).addresses if re.match(r"(https?:)?//", address)] == [], page
        # The theme's script loads a library from elsewhere only for these.
        assert not re.search(r'class="[^"]*\b(mermaid|glightbox|pyodide)\b|data-md-component="source"', text), page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert re.findall(r"""(?:url\(|@import\s*)['"]?\s*(?:https?:)?//""", text) == [], sheet


def test_the_search_index_has_pages_and_the_api(site: Path) -> None:
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    text = json.dumps(index)
    for wanted in ("api.html#cxr_faith.explainer.explainer.Explainer", "tutorials/one-picture.html"):
        assert wanted in text


@pytest.mark.slow
def test_search_works_in_a_site_opened_as_a_file(site: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        browser.visit((site / "index.html").as_uri())
        browser.until("document.querySelector('.md-search__button')")
        shadows = "[...document.querySelectorAll('*')].map((e) => e.shadowRoot).filter(Boolean)"
        browser.run("document.querySelector('.md-search__button').click()")
        browser.until(f"{shadows}.some((root) => root.activeElement)")
        browser.send("Input.insertText", text="explainer")
        browser.until(f"{shadows}.some((root) => root.querySelector('a[href*=\"api.html\"]'))")
        assert browser.errors == []
        assert [address for address in browser.requests if not address.startswith(("file:", "data:", "blob:"))] == []
