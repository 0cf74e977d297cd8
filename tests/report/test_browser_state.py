"""The report page in a real browser: the short table, its address, CSV, dark, printed, and answers without effect."""

import csv
import json
import re
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.browser import CONTRAST, FIRST_COLUMN, Browser, choose
from tests.report.conftest import REMOVED
from tests.synthetic import METHODS, STEPS

HEADS = "[...document.querySelectorAll('#board th button')].map((button) => button.dataset.key)"
GRAY = "((c) => { const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; "
GRAY += "return p.every((v, i) => i % 4 === 3 || v === p[i - (i % 4)]); })"


@pytest.fixture
def media(opened: Browser) -> Iterator[Browser]:
    yield opened
    opened.send("Emulation.setEmulatedMedia", media="", features=[])


def test_the_table_is_short_until_all_columns_are_asked_for(opened: Browser) -> None:
    assert opened.run(HEADS) == ["method", "verdict", "srg", "gap_srg_center", "coverage"]
    assert opened.run("document.querySelectorAll('#board svg.bar .zero').length") == len(opened.run(FIRST_COLUMN))
    opened.run("document.getElementById('more').click()")
    keys = opened.run(HEADS)
    assert {"n", "flat", "deletion_auc", "drop_50", "srg_logit"} <= set(keys) and len(keys) > 10
    # Where hardly any sample is ok, srg logit takes the place of srg, and columns without a value are left out.
    choose(opened, "slice", "absent")
    assert "gap_srg_center" not in opened.run(HEADS)
    opened.run("document.getElementById('more').click()")
    assert opened.run(HEADS) == ["method", "verdict", "srg_logit_scored", "coverage"]


def test_the_first_click_puts_the_best_first(opened: Browser) -> None:
    opened.run("document.getElementById('more').click()")
    board = opened.run("data.boards[0]")
    for column in [*board["columns"], {"key": "coverage", "arrow": "↑"}, {"key": "flat", "arrow": "↓"}]:
        key = column["key"]
        opened.run("document.querySelector('#board [data-key=verdict]').click()")
        opened.run(f"document.querySelector('#board [data-key={key}]').click()")
        rows = {row["label"]: row["values"].get(key, row.get(key)) for row in board["rows"]}
        known = [value for value in rows.values() if value is not None]
        best = min(known) if column["arrow"] == "↓" else max(known)
        assert rows[opened.run(FIRST_COLUMN)[0]] == best, key


@pytest.mark.parametrize("width", [390, 1024])
def test_nothing_of_the_table_is_hidden(opened: Browser, page: Path, width: int) -> None:
    """The short table needs no scrolling; of all columns, the names stay in sight."""
    opened.size(width, 800, mobile=width < 500)
    opened.open(page)
    overflow = "((box) => box.scrollWidth - box.clientWidth)(document.getElementById('board-scroll'))"
    assert opened.run(overflow) <= 0
    opened.run("document.getElementById('more').click()")
    scrolled = "(box => { box.scrollLeft = 9999; return [box.scrollLeft, "
    scrolled += "box.querySelector('td').getBoundingClientRect().left - box.getBoundingClientRect().left]; })"
    moved, left = opened.run(f"{scrolled}(document.getElementById('board-scroll'))")
    assert abs(left) < 1 and (moved > 100 or width > 500)


def test_a_wide_screen_is_used(opened: Browser, page: Path) -> None:
    opened.size(1400, 900)
    opened.open(page)
    widths = "['#board', '#board .ranked .bar'].map((one) => document.querySelector(one).getBoundingClientRect().width)"
    table, bar = opened.run(widths)
    assert table == opened.run("document.getElementById('board-scroll').clientWidth") > 1200 and bar > 500
    verdict = "document.querySelector('#board td.word')"
    opened.run(f"{verdict}.textContent = 'too few patients to say'")
    lines = "((c) => { const all = new Range(); all.selectNodeContents(c); return all.getClientRects().length; })"
    assert opened.run(f"{lines}({verdict})") == 1
    # The bar has the scale of its board: intervals are where their numbers say.
    ends = "[...document.querySelectorAll('#board .bar line.mark')].map((one) => ['x1', 'x2'].map((end) => "
    ends += "parseFloat(one.getAttribute(end))))"
    numbers = "board().rows.filter((r) => r.ci.srg).map((r) => r.ci.srg).sort((a, b) => a[0] - b[0])"
    places, values = (np.array(opened.run(script)) for script in (ends, numbers))
    places = places[np.argsort(places[:, 0])]
    scale = np.polyfit(values.ravel(), places.ravel(), 1)
    assert scale[0] > 0 and np.abs(np.polyval(scale, values) - places).max() < 0.02


def test_rows_say_at_a_glance_what_to_believe(opened: Browser) -> None:
    marks = "[...document.querySelectorAll('#board tbody tr')].map((row) => [row.cells[1].textContent, row.className, "
    marks += "getComputedStyle(row.cells[1], '::before').content.slice(1, 2)])"
    shown = {word: (name, mark) for word, name, mark in opened.run(marks)}
    assert shown["believe"] == ("believe", "✓") and shown["control"][0] == "" and shown["control"][1] not in "✓✗"
    assert {mark for word, (_, mark) in shown.items() if word in opened.run("data.against")} <= {"✗"}


def test_a_forest_has_marks_on_both_sides_of_zero(opened: Browser) -> None:
    lines = "[-1.3, 0.8].map((value) => ({ method: 'chefer', name: 'chefer', value }))"
    texts = f"[...forestChart('gap', {lines}, [-1.3, 0.8]).querySelectorAll('text')].map((one) => one.textContent)"
    numbers = [float(text.replace("−", "-")) for text in opened.run(texts) if re.fullmatch(r"−?[\d.]+", text)]
    assert numbers == [-1, -0.5, 0, 0.5]


def test_a_slice_without_effect_is_ranked_and_drawn_by_srg_logit(opened: Browser) -> None:
    choose(opened, "slice", "absent")
    assert opened.run(HEADS) == ["method", "verdict", "srg_logit_scored", "coverage"]
    assert (
        opened.run("document.querySelector('#board [aria-sort=descending] button').dataset.key") == "srg_logit_scored"
    )
    values = opened.run("Object.fromEntries(board().rows.map((r) => [r.label, r.values.srg_logit_scored]))")
    assert opened.run(FIRST_COLUMN) == sorted(values, key=lambda name: -values[name])
    assert opened.run("document.getElementById('board-note').textContent").startswith(
        "Hardly any sample here has an eff"
    )
    first = "document.querySelector('#forest svg').ariaLabel"
    assert opened.run("document.getElementById('forest-metric').value") == "srg_logit"
    assert opened.run(first).startswith("srg logit, by method: ") and "chefer" in opened.run(first)
    opened.run("location.hash = 'slice=present'")
    opened.until("document.getElementById('forest-metric').value === 'gap_srg_center'")
    opened.run("location.hash = 'slice=absent'")
    opened.until("document.getElementById('forest-metric').value === 'srg_logit'")
    choose(opened, "slice", "all")
    assert opened.run(HEADS)[2:4] == ["srg", "gap_srg_center"]
    assert opened.run("document.getElementById('forest-metric').value") == "gap_srg_center"


def test_the_address_opens_the_same_page(opened: Browser, page: Path) -> None:
    choose(opened, "setting", "1")
    choose(opened, "slice", "present")
    opened.run("document.querySelector('#methods input[value=attention]').click()")
    opened.run("document.getElementById('more').click()")
    opened.run("document.querySelector('#board [data-key=deletion_auc]').click()")
    choose(opened, "sample-search", "nodule?", "input")
    choose(opened, "sample-order", "worst")
    opened.run("document.querySelector('#sample-rows a').click()")
    opened.until("!document.getElementById('sample').hidden")
    seen = f"[{FIRST_COLUMN}, {HEADS}, document.querySelector('#board caption').textContent, state.sample, "
    seen += "document.getElementById('sample-count').textContent, document.getElementById('sample-rows').textContent]"
    before, address = opened.run(seen), opened.run("location.hash")
    opened.visit("about:blank")
    opened.visit(page.resolve().as_uri() + address)
    opened.until("document.documentElement.dataset.ready === 'yes'")
    assert opened.run(seen) == before and "attention" not in before[0]
    assert opened.run("document.querySelector('#methods input[value=attention]').checked") is False
    opened.run("document.querySelector('.contents a[href=\"#terms\"]').click()")
    opened.until("location.hash.includes('sample=')")  # a link within the page keeps what is shown
    assert opened.run(seen) == before
    opened.run("location.hash = ''")
    opened.until("document.getElementById('sample').hidden")
    assert opened.run(HEADS)[2] == "srg" and "attention" in opened.run(FIRST_COLUMN)
    opened.run("location.hash = 'board=99&slice=none&sort=-x&list-status=?&sample=%E0%A4%A'")  # typed by hand
    opened.until("!document.getElementById('sample').hidden")
    assert opened.run("document.getElementById('sample').textContent").startswith("No such sample")
    assert len(opened.run(FIRST_COLUMN)) > 5


def test_samples_answered_wrongly(opened: Browser, rows: list[dict[str, Any]]) -> None:
    choose(opened, "sample-answer", "wrong")
    wrong = sorted({row["sample_id"] for row in rows if row["correct"] is False})
    assert opened.run("state.listed") == wrong
    assert "(wrong)" in opened.run("document.getElementById('sample-rows').textContent")
    assert opened.run("location.hash") == "#list-answer=wrong"


def test_previous_and_next_follow_the_list(opened: Browser) -> None:
    choose(opened, "sample-order", "best")
    listed = opened.run("state.listed")
    opened.run("document.querySelector('#sample-rows a').click()")
    opened.until(f"document.querySelector('#sample h2')?.textContent === 'Sample {listed[0]}'")
    links = "[...document.querySelectorAll('#sample a.plain')].map((a) => a.textContent)"
    assert opened.run(links) == ["Close", "Next sample ›"]
    opened.run("document.querySelectorAll('#sample a')[1].click()")
    opened.until(f"document.querySelector('#sample h2').textContent === 'Sample {listed[1]}'")
    assert opened.run(links) == ["Close", "‹ Previous sample", "Next sample ›"]
    assert opened.run("location.hash") == f"#sample={listed[1]}&list-order=best"


def test_the_table_is_saved_as_csv(opened: Browser, tmp_path: Path) -> None:
    opened.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened.run("document.getElementById('csv').click()")
    file, end = tmp_path / "leaderboard-all-blur_0.1.csv", time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < end, list(tmp_path.iterdir())
        time.sleep(0.05)
    with file.open(encoding="utf-8", newline="") as opened_file:
        lines = {line["method"]: line for line in csv.DictReader(opened_file)}
    board = opened.run("data.boards[0]")
    assert list(lines) == [name.rstrip("*†‡") for name in opened.run(FIRST_COLUMN)]
    for row in board["rows"]:
        line = lines[row["method"]]
        assert line["srg"] == "" if row["values"]["srg"] is None else float(line["srg"]) == row["values"]["srg"]
        assert [float(line["srg_low"]), float(line["srg_high"])] == row["ci"]["srg"] if "srg" in row["ci"] else True
    # No cell is a formula to a spreadsheet, and quotes stay text.
    hostile = json.dumps('=HYPERLINK("x")')
    first = opened.run(f"csv({{...board(), slice: {hostile}}}).split('\\r\\n')[1]")
    assert first.startswith('"\'=HYPERLINK(""x"")",')


def test_maps_of_an_answer_without_effect_are_gray(opened: Browser, rows: list[dict[str, Any]]) -> None:
    status = {row["sample_id"]: row["status"] for row in rows if row["method"] == "chefer"}
    for wanted in ("off_format", "inverted", "degenerate", "ok"):
        sample = next(name for name, one in status.items() if one == wanted)
        opened.run(f"location.hash = '#sample={sample}'")
        map_of = "document.querySelector('#sample canvas[aria-label^=\"map of chefer\"]')"
        opened.until(f"document.querySelector('#sample h2').textContent.endsWith('{sample}') && {map_of}")
        banner = opened.run("document.getElementById('sample-banner')?.textContent ?? ''")
        assert banner.startswith(f"{wanted}: ") == (wanted != "ok") == opened.run(f"{GRAY}({map_of})")
        scale = opened.run("document.querySelector('#sample .colorbar .scale').style.background")
        colors = re.findall(r"rgb\((\d+), (\d+), (\d+)\)", scale)
        assert len(colors) > 1 and all(len(set(color)) == 1 for color in colors) == (wanted != "ok")


def test_cards_show_a_map(opened: Browser) -> None:
    cards = "[...document.querySelectorAll('#gallery li')]"
    opened.until(f"{cards}.length > 10 && {cards}.every((card) => card.querySelector('canvas'))")
    gray = opened.run(f"{cards}.map((card) => [card.textContent, {GRAY}(card.querySelector('canvas'))])")
    assert {one for text, one in gray if re.search("degenerate|inverted", text)} == {True}
    assert {one for text, one in gray if "srg" in text} == {False}


def test_dark_where_the_reader_wants_it(media: Browser) -> None:
    media.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    media.run("location.hash = '#sample=s00'")
    media.until("document.querySelectorAll('#sample canvas').length == 5")
    assert media.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    count, faint = media.run(CONTRAST)
    assert count > 100 and faint == []
    # The charts of matplotlib too, in print on white again.
    grounds = "[['fill', 'patch_1'], ['stroke', 'xtick_1']].map(([key, id]) => "
    grounds += "getComputedStyle(document.querySelector(`.drawn #${id} [style*='${key}: #']`))[key])"
    assert media.run(grounds) == ["rgb(18, 22, 28)", "rgb(228, 233, 240)"]
    media.send("Emulation.setEmulatedMedia", media="print", features=[])
    assert media.run(grounds) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]


def test_prints_on_landscape_sheets_without_cutting_tables(media: Browser) -> None:
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    media.send("Emulation.setEmulatedMedia", media="print", features=dark)
    media.size(1032, 700)  # A4 landscape within its margins, at 96 pixels an inch
    assert media.run("document.getElementById('board').getBoundingClientRect().width") > 950  # the sheet is used
    outline = "((one) => { one.className = 'outline'; document.body.append(one); return getComputedStyle(one); })"
    # Printed without its background, the outline of a finding would be a white sheet over the picture.
    assert media.run(f"{outline}(document.createElement('div')).printColorAdjust") == "exact"
    media.run("document.getElementById('more').click()")
    assert media.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    wide = (
        "[...document.querySelectorAll('table, svg, canvas')].filter((one) => one.getBoundingClientRect().right > 1033)"
    )
    assert media.run(f"{wide}.map((one) => one.outerHTML.slice(0, 200))") == []
    lines = "((c) => { const all = new Range(); all.selectNodeContents(c); return all.getClientRects().length; })"
    texts = "[...document.querySelectorAll('#board tbody td:nth-child(n + 3)')].filter((c) => !c.children.length)"
    assert set(media.run(f"{texts}.map({lines})")) == {1}  # no number is broken in two
    printed = b64decode(media.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    boxes = [tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox\s*\[([\d. ]+)\]", printed)]
    assert boxes and all(width > height for _, _, width, height in boxes)


def test_every_column_leads_to_its_word(opened: Browser) -> None:
    opened.run("document.getElementById('more').click()")
    opened.run("location.hash = '#sample=s00'")
    opened.until("document.querySelector('#sample table')")
    links = "[...document.querySelectorAll('#board th a, #sample th a, #samples ~ * th a')]"
    words = opened.run(f"{links}.map((a) => [a.ariaLabel, document.querySelector(a.hash)?.textContent])")
    assert len(words) > 15 and all(words)
    assert ["what verdict means", "verdict"] in words and ["what Δsrg center ↑ means", "Δ random, Δ center"] in words
    heads = opened.run("[...document.querySelectorAll('#board th')].filter((th) => !th.querySelector('a')).length")
    assert heads == 1  # the method's name needs no word
    opened.run("document.querySelector('#board th a[href=\"#term-drop-50\"]').click()")
    opened.until("scrollY > 1000 && location.hash.includes('columns=all')")  # what is shown stays
    assert "drop@50" in opened.run("document.querySelector('dt:target').textContent")


def test_one_matrix_shows_each_measure_of_agreement(opened: Browser, rows: list[dict[str, Any]]) -> None:
    cells = "[...document.querySelectorAll('#agreement tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    shown, pairs = {}, opened.run("data.agreement.pairs")
    for place, measure in enumerate(("spearman", "ssim", "top_overlap")):
        choose(opened, "agreement-measure", measure)
        shown[measure] = opened.run(cells)
        for a, b, _, *values in pairs:
            expected = (
                "–" if values[place] is None else f"{values[place]:.2f}".replace("-0.00", "0.00").replace("-", "−")
            )
            assert shown[measure][a][b + 1] == shown[measure][b][a + 1] == expected
    assert shown["spearman"] != shown["ssim"] and {row[0] for row in shown["ssim"]} == set(METHODS) - {"center"}
    # The more alike, the fuller the shade; opposite maps have another color.
    shades = "[...document.querySelectorAll('#agreement .shade')].map((c) => [Math.abs(parseFloat(c.textContent"
    shades += ".replace('−', '-'))), parseFloat(c.style.getPropertyValue('--shade')), c.className.includes('against')"
    shades += " === c.textContent.startsWith('−')])"
    drawn = opened.run(shades)
    assert len(drawn) == 2 * len(pairs) and all(rule for *_, rule in drawn)
    assert all(shade == pytest.approx(45 * value, abs=0.3) for value, shade, _ in drawn)


def test_the_lowest_random_p_says_so(opened: Browser) -> None:
    opened.run("location.hash = '#sample=s00'")
    opened.until("document.querySelector('#sample table')")
    table = "[...document.querySelectorAll('#sample tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    column = 2 + opened.run("data.values.indexOf('random_p')")
    said = {cells[0].rstrip("*"): cells[column] for cells in opened.run(table)}
    others = dict.fromkeys(METHODS, "0.524")
    assert said == others | {"chefer": "0.048lowest possible", "random": "–"}
    assert "cannot be below 1/21 = 0.048" in opened.run("document.getElementById('sample').textContent")


def large(browser: Browser, name: str) -> None:
    """Open a sample's map in the large view."""
    button = f"document.querySelector('#sample button[aria-label=\"enlarge {name}\"]')"
    browser.run("location.hash = '#sample=s00'")
    browser.until(button)
    browser.run(f"{button}.click()")
    browser.until("document.getElementById('large').open && large.stage.querySelector('img').complete")


def test_a_map_is_enlarged_with_opacity_zoom_and_the_truth(opened: Browser) -> None:
    large(opened, "the map of chefer")
    box = "((one, all) => [one.left - all.left, one.top - all.top, one.width, one.height].map((v, i) => "
    box += "v / (i % 2 ? all.height : all.width)))(document.querySelector('#large .truth').getBoundingClientRect(), "
    box += "large.stage.getBoundingClientRect())"
    opened.until("large.stage.getBoundingClientRect().width > 600")
    assert opened.run(box) == pytest.approx([0.25, 0.5, 0.125, 0.25], abs=0.002)
    assert opened.run("document.querySelector('#sample .truth').title") == "nodule"  # on the picture alone too
    width = opened.run("large.stage.getBoundingClientRect().width")
    choose(opened, "large-zoom", "250", "input")
    assert opened.run("large.stage.getBoundingClientRect().width") == pytest.approx(2.5 * width, rel=0.001)
    assert opened.run("(view => view.scrollWidth > view.clientWidth)(document.getElementById('large-view'))")
    assert opened.run("document.documentElement.scrollWidth") <= 1200  # it scrolls in its own frame
    assert opened.run("getComputedStyle(large.map).opacity") == "0.6"
    choose(opened, "large-opacity", "25", "input")
    assert opened.run("getComputedStyle(large.map).opacity") == "0.25"
    opened.run("document.getElementById('large-truth').click()")
    assert opened.run("document.querySelector('#large .truth').hidden")
    opened.send("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    opened.until("!document.getElementById('large').open")


def test_the_film_of_deletion_removes_the_first_cells(opened: Browser, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if (row["sample_id"], row["method"]) == ("s00", "chefer"))
    order = np.argsort(-row["map"].ravel(), kind="stable")
    large(opened, "the map of chefer")
    opened.until("large.film")
    assert opened.run("getComputedStyle(large.film.canvas).opacity") == "1"
    # Read from a copy: Chromium warns of a canvas that is read several times.
    pixels = "(c => { const copy = new OffscreenCanvas(c.width, c.height).getContext('2d'); copy.drawImage(c, 0, 0); "
    pixels += "return [c.width, c.height, ...copy.getImageData(0, 0, c.width, c.height).data]; })"
    for step in (0, 3, STEPS):
        choose(opened, "large-film", str(step), "input")
        width, height, *drawn = opened.run(f"{pixels}(large.film.canvas)")
        assert (width, height) == (180, 128)  # the part of 200 by 160 pixels that the model saw
        film, count = np.array(drawn).reshape(height, width, 4), round(144 * step / STEPS)
        gone = np.zeros(144, bool)
        gone[order[:count]] = True
        for cell in range(144):
            y, x = round((cell // 12 + 0.5) * 128 / 12), round((cell % 12 + 0.5) * 15)
            assert (film[y, x, 3] > 0) == gone[cell]
            assert not gone[cell] or np.abs(film[y, x, :3] - REMOVED).max() <= 3
        *_, alpha = (np.array(opened.run(f"{pixels}(large.map)")[2:]).reshape(144, 4)).T
        assert not alpha[gone].any() and (step or alpha.any())  # the map is not drawn over what is gone
        said = opened.run("document.getElementById('large-said').textContent")
        score = float(re.search(r"score ([+−0-9.]+)", said)[1].replace("−", "-"))
        assert said.startswith(f"{round(100 * count / 144)} % of the cells removed")
        assert score == pytest.approx(row["deletion_scores"][step], abs=0.05)  # curves have 256 levels
        assert ("no longer “yes”" in said) == (score < 0)
    assert "replaced by blur:0.1" in opened.run("document.getElementById('large-film-box').textContent")
    # Under another substrate than that of the picture, removed cells are gray, and the page says so.
    opened.run("document.getElementById('large').close()")
    choose(opened, "setting", "1")
    large(opened, "the map of chefer")
    opened.until("large.film && !large.film.removed")
    choose(opened, "large-film", str(STEPS), "input")
    assert opened.run(f"{pixels}(large.film.canvas)")[2:5] == [128, 128, 128]
    assert "drawn gray" in opened.run("document.getElementById('large-film-box').textContent")
    choose(opened, "setting", "0")


def test_a_map_without_its_order_has_no_film(opened: Browser) -> None:
    large(opened, "the map of attention")
    assert opened.run("document.getElementById('large-film-box').hidden")
    opened.run("document.getElementById('large').close()")
    large(opened, "the picture alone")
    opened.until("document.getElementById('large-opacity-label').hidden")
    assert opened.run("document.querySelectorAll('#large canvas').length") == 0
