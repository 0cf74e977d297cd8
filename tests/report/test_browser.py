"""The report page in a real browser: sorts, filters, opens a sample, without errors and without any request."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cxr_faith.report.charts import AnswerCurves
from cxr_faith.report.clinical.answer import Answer, Faithfulness, ModelCalibration
from cxr_faith.report.clinical.page import clinical_page
from cxr_faith.report.clinical.summary import clinical_summary
from tests.report.browser import CONTRAST, FIRST_COLUMN, Browser, choose
from tests.synthetic import NASTY


def test_a_click_sorts_and_marks_the_column(opened: Browser) -> None:
    assert opened.run(FIRST_COLUMN)[:3] == ["oracle", "chefer", "integrated_gradients*"]  # srg, best first
    assert opened.run("document.querySelector('#board th:has([data-key=srg])').ariaSort") == "descending"
    opened.run("document.querySelector('#board [data-key=srg]').click()")
    assert opened.run(FIRST_COLUMN)[-1] == "oracle"
    opened.run("document.querySelector('#board [data-key=method]').click()")
    names = opened.run(FIRST_COLUMN)
    assert names == sorted(names) and opened.run("document.activeElement.dataset.key") == "method"
    # Missing values stay at the end, whichever way it sorts.
    for _ in range(2):
        opened.run("document.querySelector('#board [data-key=gap_srg_center]').click()")
        assert set(opened.run(FIRST_COLUMN)[-2:]) == {"center", "random"}


def test_filters_by_substrate_finding_and_method(opened: Browser) -> None:
    before = opened.run(FIRST_COLUMN)
    choose(opened, "setting", "1")
    assert opened.run(FIRST_COLUMN) != before and "mean" in opened.run(
        "document.querySelector('#board caption').textContent"
    )
    choose(opened, "setting", "0")
    choose(opened, "slice", "finding:<b>effusion</b>")
    assert "<b>effusion</b>" in opened.run("document.querySelector('#board caption').textContent")
    lines = opened.run("document.querySelectorAll('#curves svg')[0].querySelectorAll('path[fill=none]').length")
    opened.run("document.querySelector('#methods input[value=chefer]').click()")
    assert "chefer" not in opened.run(FIRST_COLUMN)
    now = "document.querySelectorAll('#curves svg')[0].querySelectorAll('path[fill=none]').length"
    assert opened.run(now) == lines - 1 > 0
    choose(opened, "slice", "absent")
    assert opened.run("document.getElementById('curves').textContent").startswith("No mean curves")


def test_the_verdict_follows_the_slice(opened: Browser) -> None:
    """The head has that of all samples; that of another slice stands above its board."""
    head, own = "document.querySelector('div.verdict').textContent", "document.getElementById('board-verdict')"
    assert opened.run(head).startswith("Believe chefer and attention here") and opened.run(f"{own}.hidden")
    choose(opened, "slice", "absent")
    assert opened.run(f"{own}.textContent").startswith("No map can be judged here.") and not opened.run(f"{own}.hidden")
    assert opened.run(head).startswith("All samples: Believe chefer")
    choose(opened, "slice", "all")
    assert opened.run(head).startswith("Believe chefer")
    column = (
        "[...document.querySelectorAll('#board tbody tr')].map((row) => [0, 1].map((k) => row.cells[k].textContent))"
    )
    assert dict(opened.run(column))["chefer"] == "believe" and dict(opened.run(column))["oracle"] == "control"
    for _ in range(2):
        opened.run("document.querySelector('#board [data-key=verdict]').click()")
        assert set(opened.run(FIRST_COLUMN)[-4:]) == {"oracle", "random_map", "center", "random"}


def test_forests_have_the_leaderboards_order_and_no_empty_line(opened: Browser) -> None:
    texts = "[...s.querySelectorAll('text')].map((t) => t.textContent).filter((t) => data.methods.includes(t))"
    names = opened.run(f"[...document.querySelectorAll('#forest svg')].map((s) => {texts})")
    board = [name.rstrip("*") for name in opened.run(FIRST_COLUMN)]
    assert len(names) == 3 and names[0] == [name for name in board if name not in ("center", "random")]  # no gap
    assert all(one == [name for name in names[0] if name in one] and len(one) > 2 for one in names[1:])


def test_opens_a_sample_with_its_maps_and_curves(opened: Browser) -> None:
    opened.run("document.querySelector('#sample-rows a[href=\"#sample=s00\"]').click()")
    opened.until("document.querySelectorAll('#sample canvas').length == 5")
    assert NASTY in opened.run("document.getElementById('sample').textContent")
    assert opened.run("document.querySelectorAll('#sample script, #sample b').length") == 0
    assert opened.run("document.querySelectorAll('#sample .charts svg[role=img]').length") == 2
    keys = opened.run("[...document.querySelectorAll('#sample .charts .key')].map((one) => one.children.length)")
    assert keys[0] == keys[1] > 3  # each line has its name below the chart
    assert opened.run("document.querySelectorAll('#sample .stage img').length") == 5 + 1  # and the picture alone
    assert opened.run("document.activeElement.textContent") == "Sample s00"
    opened.run("document.querySelector('#sample a').click()")
    opened.until("document.getElementById('sample').hidden")


def test_a_map_is_upright_and_where_it_belongs(opened: Browser, rows: list[dict[str, Any]]) -> None:
    values = next(r["map"] for r in rows if (r["sample_id"], r["method"]) == ("s02", "chefer"))
    opened.run("location.hash = '#sample=s02'")
    opened.until("document.querySelector('#sample canvas[aria-label=\"map of chefer\"]')")
    canvas = "document.querySelector('#sample canvas[aria-label=\"map of chefer\"]')"
    pixels = opened.run(f"(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])({canvas})")
    green = np.array(pixels).reshape(12, 12, 4)[..., 1]  # grows with the value all along viridis
    assert np.corrcoef(green.ravel(), np.argsort(np.argsort(values.ravel())))[0, 1] > 0.98


def test_samples_are_searched_filtered_and_ordered(opened: Browser) -> None:
    count = "document.getElementById('sample-count').textContent"
    assert opened.run(count) == "1–40 of 40"
    choose(opened, "sample-search", "$nodule$", "input")
    assert opened.run(count) == "1–1 of 1"
    choose(opened, "sample-search", "", "input")
    choose(opened, "sample-status", "off_format")
    assert opened.run(count) == "1–1 of 1"
    choose(opened, "sample-status", "")
    choose(opened, "sample-order", "worst")
    scores = opened.run("[...document.querySelectorAll('#sample-rows td:last-child')].map((c) => c.textContent)")
    numbers = [float(s.replace("−", "-")) for s in scores if s != "–"]
    assert numbers == sorted(numbers) and scores[len(numbers) :] == ["–"] * (40 - len(numbers)) and len(numbers) > 5


def test_fits_a_phone_and_every_control_has_a_name(opened: Browser, page: Path, tmp_path: Path) -> None:
    opened.size(390, 800, mobile=True)
    opened.open(page)
    assert opened.run("document.documentElement.scrollWidth") <= 391
    # A table that is wider than the phone moves below its caption and beside its first column.
    opened.run("document.querySelectorAll('.scroll').forEach((one) => { one.scrollLeft = 120; })")
    for part in ("caption", ".scroll tr > :first-child"):
        edges = f"[...document.querySelectorAll('{part}')].map((c) => c.getBoundingClientRect())"
        places = opened.run(f"{edges}.filter((r) => r.width).map((r) => [r.left, r.right])")
        assert len(places) > 5 and all(left >= 0 and right <= 391 for left, right in places), part
    controls = "[...document.querySelectorAll('select, input, button')]"
    named = "(c) => (c.labels && c.labels.length) || c.textContent.trim()"
    unnamed = opened.run(f"{controls}.filter((c) => !({named})(c)).map((c) => c.outerHTML)")
    assert unnamed == []
    opened.screenshot(tmp_path / "phone.png")
    with Image.open(tmp_path / "phone.png") as shot:
        assert shot.width == 390 and len(shot.convert("RGB").resize((50, 50)).getcolors(2500) or []) > 20


def test_text_has_contrast(opened: Browser) -> None:
    """WCAG 2 AA: 4.5 to 1, on the page and in an opened sample."""
    for place in ("", "#sample=s00"):
        opened.run(f"location.hash = '{place}'")
        if place:
            opened.until("document.querySelectorAll('#sample canvas').length == 5")
        count, faint = opened.run(CONTRAST)
        assert count > 100 and faint == []


def press(browser: Browser, key: str, code: int, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        more = {"text": text} if text and kind == "keyDown" else {}
        browser.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


def test_the_page_works_with_the_keyboard_alone(opened: Browser) -> None:
    """Tab reaches every control in the order of the page, and shows where it is; Enter sorts and opens a sample."""
    opened.run("document.activeElement.blur(); scrollTo(0, 0)")
    controls = "[...document.querySelectorAll('a[href], button, select, input')]"
    focusable = f"{controls}.filter((c) => c.offsetParent !== null && !c.disabled)"
    wanted = opened.run(f"{focusable}.length")
    seen: list[int] = []
    for _ in range(2 * wanted):
        press(opened, "Tab", 9)
        place = opened.run(f"{focusable}.indexOf(document.activeElement)")
        if place == -1:
            continue  # a table that can be scrolled, or the page itself
        if place in seen:
            break  # once around
        seen.append(place)
        if len(seen) == 1:
            assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert seen == sorted(seen) and wanted > 20
    missed = opened.run(f"{focusable}.map((c) => c.outerHTML)")
    assert [text for place, text in enumerate(missed) if place not in seen] == []
    opened.run("document.querySelector('#board [data-key=method]').focus()")
    press(opened, "Enter", 13, "\r")
    names = opened.run(FIRST_COLUMN)
    assert names in (sorted(names), sorted(names, reverse=True))
    opened.run("document.querySelector('#sample-rows a[href=\"#sample=s00\"]').focus()")
    press(opened, "Enter", 13, "\r")
    opened.until("!document.getElementById('sample').hidden")
    assert opened.run("document.activeElement.textContent") == "Sample s00"


@pytest.mark.parametrize("shape", [(260, 200), (200, 260)])
def test_a_clinical_page_prints_on_one_sheet(browser: Browser, tmp_path: Path, shape: tuple[int, int]) -> None:
    corner = np.zeros((12, 12))
    corner[0, 0] = 1.0
    noise = np.random.default_rng(0).random((12, 12))
    summary = clinical_summary(
        Answer(
            question=NASTY * 5,
            answer="consolidation in the left lower lung and a small pleural effusion on the same side",
            p_yes=0.7,
            map=corner,
            method="integrated_gradients",
            model={"source": "/a/long/path" * 8, "weights": "0123456789abcdef" * 2, "parameters": 4_300_000_000},
            faithfulness=Faithfulness(
                status="ok",
                substrate="blur:0.1",
                deletion_auc=None,
                insertion_auc=None,
                srg=-0.1,
                random_z=-0.4,
                random_p=0.48,
                effect=12.5,
                gap_srg_center=-0.33,
            ),
            verdict="Do not believe: no better than random orders (srg -0.10, p = 0.480, -0.33 to the center).",
            others={name: noise for name in ("attention", "chefer", "gradient", "grad_x_input")},
            calibration=ModelCalibration("runs", n=64, accuracy=0.97, ece=0.02, confidence_range=(0.9, 1.0)),
            paraphrases=["no", "yes"],
        )
    )
    assert len(summary.flags) == 5
    x = np.linspace(0, 1, 5)
    page = tmp_path / "clinical.html"
    curves = AnswerCurves(x, 1 - x, x)
    page.write_text(clinical_page(summary, np.full(shape, 90, np.uint8), corner, curves), encoding="utf-8")
    browser.visit(page.as_uri())
    assert (browser.sheets(8.27, 11.69), browser.sheets(8.5, 11.0)) == (1, 1)
    browser.size(390, 800, mobile=True)
    assert browser.run("document.documentElement.scrollWidth") <= 391
