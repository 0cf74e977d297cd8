import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cxr_faith.report.figures import overlay
from cxr_faith.report.html import write_report
from cxr_faith.report.summary import write_summary

NASTY = "Is there a <script>alert('x')</script> & a \"nodule\" onerror=alert(1)?"


class Page(HTMLParser):
    """Tags, their attributes, and whether every tag was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(run_dir: Path) -> Page:
    provenance = {"methods": ["chefer"], "samples_total": 44, "model": {"id": "<img src=x>", "revision": None}}
    (run_dir / "provenance.json").write_text(json.dumps(provenance))
    pictures = run_dir / "report" / "pictures"
    pictures.mkdir(parents=True)
    for name in ("one.png", "two & <b>.png"):
        overlay(np.zeros((20, 20), np.uint8), np.eye(3)).savefig(pictures / name)
    (pictures / "pictures.json").write_text(json.dumps({"one.png": NASTY}))
    write_summary(run_dir)
    parsed = Page(write_report(run_dir).read_text())
    assert parsed.open == []
    return parsed


def test_page_needs_nothing_from_outside(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, attributes)
            if name in ("src", "href", "xlink:href"):
                assert value is not None and value.startswith(("data:image/png;base64,", "#"))
            assert tag == "svg" or name.startswith("xmlns") or "://" not in (value or "")


def test_text_of_others_stays_text(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [picture["alt"] for picture in pictures] == [NASTY, "two & <b>"]
    assert NASTY in page.text and "<img src=x>" in page.text and "finding <b>effusion</b>" in page.text
    assert "truncated <JPEG>" in page.text


def test_warnings_come_before_the_leaderboard(page: Page) -> None:
    partial = page.text.index("Partial: 40 of 44 samples have records, 4 are missing.")
    assert partial < page.text.index("Leaderboard") < page.text.index("By finding") < page.text.index("How the model")
    assert page.text.index("substrate flips") > partial
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_leaderboard_shows_gaps_with_intervals_best_first(page: Page) -> None:
    table = page.text[page.text.index("all samples") : page.text.index("Status of the rows")]
    assert re.findall(r"^(\w+\*?)20", table, re.MULTILINE)[:3] == ["oracle", "chefer", "integrated_gradients*"]
    assert re.search(r"[+-]\d\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\]", page.text)
    figures = sum(tag == "svg" for tag, _ in page.tags)
    assert figures == 4  # all, present, answered yes, correctly; nothing is ok among the absent ones


def test_the_page_is_the_same_bytes_each_time(run_dir: Path) -> None:
    write_summary(run_dir)
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first
    assert b"no provenance.json" in first and b"<h2>Pictures" not in first


def test_a_run_without_a_summary_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"summary\.json: missing"):
        write_report(tmp_path)


def test_broken_provenance_is_named(run_dir: Path) -> None:
    (run_dir / "provenance.json").write_text("{")
    with pytest.raises(ValueError, match=r"provenance\.json: not JSON"):
        write_summary(run_dir)
