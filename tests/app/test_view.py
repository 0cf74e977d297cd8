"""`cxr-faith view`: every sample of a run in a browser, read only, on this machine alone."""

import http.client
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from benchmarks.summary_scale import METHODS, SUBSTRATES, write_run
from benchmarks.view_in_browser import waits
from cxr_faith.__main__ import main
from cxr_faith.app.choice import Choice
from cxr_faith.app.drawing import charts, map_pictures
from cxr_faith.app.pages import Pages
from cxr_faith.app.run_samples import PAGE, RunSamples
from cxr_faith.app.server import Viewer
from cxr_faith.metrics.functional import MEASURED
from cxr_faith.records import RecordWriter, read_records
from cxr_faith.records.controls import is_control
from cxr_faith.report.charts import method_styles
from cxr_faith.report.results import write_results
from cxr_faith.report.samples import BANNERS
from tests.report.browser import CONTRAST, Browser, chromium
from tests.synthetic import NASTY, make_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6,000 records: 200 samples under 15 methods and two substrates, without a report."""
    folder = tmp_path_factory.mktemp("large")
    assert write_run(folder, 6_000, samples_a_block=100) == 6_000
    return folder


@pytest.fixture(scope="module")
def table(large: Path) -> pd.DataFrame:
    return read_records(large, ["status", "srg", "finding", "correct", "image_id", "study_id", "patient_id"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty samples whose names hold markup, with their report; `pictures` beside it has a picture."""
    run_dir = tmp_path_factory.mktemp("small") / "run"
    run_dir.mkdir()
    RecordWriter(run_dir, rank=0, start=0).write([row | {"image_path": "a.png"} for row in make_rows()])
    write_results(run_dir)
    (run_dir.parent / "pictures").mkdir()
    ramp = np.tile(np.arange(200, dtype=np.uint8), (160, 1))
    Image.fromarray(ramp).save(run_dir.parent / "pictures" / "a.png")
    Image.fromarray(ramp).save(run_dir.parent / "outside.png")
    return run_dir


@pytest.fixture
def viewer(small: Path) -> Iterator[Viewer]:
    with Viewer(Pages(small, small.parent / "pictures")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(viewer: Viewer, target: str, method: str = "GET", host: str | None = None) -> tuple[int, str, bytes]:
    """Status, policy and content of an answer; the target follows the token unless it begins with a slash."""
    address = urlsplit(viewer.address)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    path = target if target.startswith("/") else address.path + target
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.getheader("Content-Security-Policy", ""), content


def files_below(folder: Path) -> dict[Path, tuple[int, int]]:
    """File → its size and when it was changed."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def twin(rows: pd.DataFrame, choice: Choice) -> list[str]:
    """The ids that match, in order, from a table of all records: `Choice` spelled out."""
    substrate = [*rows["substrate"].value_counts(sort=False).sort_index().index][choice.setting]
    ids, scores = [], []
    for sample_id, mine in rows[rows["substrate"].eq(substrate)].groupby("sample_id"):
        counted = [
            row
            for row in mine.to_dict("records")
            if (row["method"] == choice.method if choice.method else not is_control(row["method"]))
        ]
        known = [row["srg"] for row in counted if row["status"] in MEASURED and row["srg"] == row["srg"]]
        srg = round(float(np.mean(known)), 9) if known else None
        first = counted[0]
        names = " ".join(str(first[name]) for name in ("sample_id", "image_id", "study_id", "patient_id"))
        right = first["correct"] is (choice.answered == "right")
        if (
            (not choice.finding or first["finding"] == choice.finding)
            and (not choice.status or choice.status in [row["status"] for row in counted])
            and (not choice.answered or right)
            and (not choice.low or (srg is not None and srg >= float(choice.low)))
            and (not choice.high or (srg is not None and srg <= float(choice.high)))
            and choice.words.lower() in names.lower()
        ):
            ids.append(str(sample_id))
            scores.append(srg)
    table = pd.DataFrame({"id": ids, "srg": pd.Series(scores, dtype=float)})
    if choice.order != "id":
        table = table.sort_values("srg", ascending=choice.order == "worst", na_position="last", kind="stable")
    return table["id"].tolist()


@pytest.mark.parametrize(
    "choice",
    [
        Choice(),
        Choice(order="worst"),
        Choice(setting=1, method="chefer", order="best"),
        Choice(method="random", status="inverted"),
        Choice(finding="edema", answered="wrong", order="best"),
        Choice(answered="right", low="0.2", high="0.26"),
        Choice(words="P0000001"),
        Choice(words="nobody"),
    ],
    ids=lambda choice: choice.address() or "all",
)
def test_the_list_holds_what_matches(large: Path, table: pd.DataFrame, choice: Choice) -> None:
    samples, expected = RunSamples(large), twin(table, choice)
    total, listed = samples.page(choice).total, list[str]()
    assert total == len(expected)
    for page in range(1 + total // PAGE):
        part = samples.page(Choice(**vars(choice) | {"page": page})).rows
        listed += part["sample_id"].tolist() if len(part) else []
    assert listed == expected


def test_the_list_is_filtered_by_what_answers_do_with_their_picture(tmp_path: Path) -> None:
    """Runs that measured it offer the filter; others do not."""
    classes, rows = ("uses", "mixed", "ignores"), make_rows()
    names = sorted({row["sample_id"] for row in rows})
    use = {name: classes[place % 3] for place, name in enumerate(names)}
    for name, known in (("with", use), ("without", {})):
        (tmp_path / name).mkdir()
        given = [row | {"image_use": known.get(row["sample_id"])} for row in rows]
        RecordWriter(tmp_path / name, rank=0, start=0).write(given)
    samples = RunSamples(tmp_path / "with")
    for one in classes:
        listed = samples.page(Choice(use=one)).rows["sample_id"].tolist()
        assert listed == [name for name in names if use[name] == one]
    assert Choice.from_query({"use": "ignores"}, 1, []).address() == "use=ignores"
    with pytest.raises(ValueError, match="use: this run has no 'sometimes'"):
        Choice.from_query({"use": "sometimes"}, 1, [])
    for name, offered in (("with", True), ("without", False)):
        assert (b'name="use"' in Pages(tmp_path / name).listing({})[1]) == offered


def test_previous_and_next_go_through_what_matches(large: Path, table: pd.DataFrame) -> None:
    samples, choice = RunSamples(large), Choice(finding="edema", status="ok", order="best")
    expected, walked = twin(table, choice), list[str]()
    current: str | None = expected[0]
    assert samples.place(expected[0], choice).before is None
    while current is not None and len(walked) < 8:
        place = samples.place(current, choice)
        assert (place.number, place.total) == (len(walked), len(expected))
        walked.append(current)
        current = place.after
    assert walked == expected[:8]
    assert samples.place("s00000001", choice).number is None  # of another finding


def test_a_part_that_is_merged_meanwhile_is_found_again(large: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(large, tmp_path / "run")
    samples = RunSamples(run_dir)
    for part in (run_dir / "records").glob("part-000-*.parquet"):
        part.rename(part.with_name(part.name.replace("part-000", "part-001")))
    assert samples.page(Choice(order="best")).total == 200
    assert len(samples.sample("s00000003")) == len(METHODS) * len(SUBSTRATES)


def test_runs_of_older_versions_open(large: Path, tmp_path: Path) -> None:
    run_dir = shutil.copytree(large, tmp_path / "run")
    for part in (run_dir / "records").iterdir():
        table = pq.read_table(part)
        pq.write_table(table.drop_columns(["flat", "caution", "picture_hash", "thought", "image_path"]), part)
    pages = Pages(run_dir)
    assert "1–50 of 200" in pages.listing({})[1].decode()
    assert "Sample s00000007" in pages.sample({"id": "s00000007"})[1].decode()


def test_a_run_without_records_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("{}")
    assert "no records yet" in Pages(tmp_path).listing({})[1].decode()


def test_maps_are_drawn_cell_by_cell(small: Path) -> None:
    rows = read_records(small)
    mine = rows[rows["sample_id"].eq("s02") & rows["method"].eq("chefer")]
    (picture,) = map_pictures(mine, over=False)
    assert (picture.rows, picture.columns) == (12, 12)
    content = io.BytesIO(b64decode(picture.uris[0].partition(",")[2]))
    green = np.asarray(Image.open(content))[..., 1].astype(float)  # grows with strength in viridis
    order = np.asarray(mine["map"].iloc[0]).argsort()
    assert (np.diff(green.ravel()[order]) >= 0).all() and green.max() > green.min() + 100


def test_an_answer_without_effect_says_so_and_has_gray_maps(small: Path) -> None:
    rows, pages = read_records(small), Pages(small)
    known = rows[rows["method"].eq("chefer")].set_index("sample_id")["status"]
    for wanted in ("ok", "degenerate", "inverted"):
        name = str(known.index[known.eq(wanted)][0])
        page = pages.sample({"id": name})[1].decode()
        assert (f"<strong>{wanted}:</strong> {BANNERS.get(wanted)}" in page) == (wanted != "ok")
        assert (f"<figcaption>chefer<br>{wanted}</figcaption>" in page) == (wanted != "ok")
        drawn = map_pictures(rows[rows["sample_id"].eq(name)], over=False)
        assert drawn and "center" not in [one.method for one in drawn]  # its cells have no positive value
        for one in drawn:
            pixels = np.asarray(Image.open(io.BytesIO(b64decode(one.uris[0].partition(",")[2]))))[..., :3]
            assert bool((pixels == pixels[..., :1]).all()) == (wanted != "ok"), (wanted, one.method)


def test_pages_say_what_the_report_says(small: Path) -> None:
    """A method has one color on both pages, wrong answers are marked, and random_p says how low it can be."""
    (small / "provenance.json").write_text(json.dumps({"methods": ["rollout", "chefer", "attention"]}))
    try:
        rows, pages = read_records(small), Pages(small)
        methods = pages.samples.methods
        assert methods[:2] == ["chefer", "attention"]
        mine = rows[rows["sample_id"].eq("s02")]
        colors = {line.method: line.color for line in charts(mine, methods)[0].lines}
        assert colors == {name: to_hex(style["color"]) for name, style in method_styles(methods).items()}
        page = pages.sample({"id": "s02"})[1].decode()
        assert re.findall(r"<tr><td>([a-z_]+)\*?</td>", page) == methods
    finally:
        (small / "provenance.json").unlink()
    wrong = rows.drop_duplicates("sample_id").set_index("sample_id")["correct"].eq(False)
    listing = pages.listing({})[1].decode()
    assert 0 < wrong.sum() == listing.count(" (wrong)</td>") < len(wrong)
    assert ", which is wrong" in pages.sample({"id": str(wrong.index[wrong][0])})[1].decode()


def test_random_p_says_how_low_it_can_be(tmp_path: Path) -> None:
    floors = {"random": {"random_srgs": [0.0] * 8}}
    RecordWriter(tmp_path, rank=0, start=0).write([row | floors.get(row["method"], {}) for row in make_rows(2)])
    assert "it cannot be below 1/9 = 0.111" in Pages(tmp_path).sample({"id": "s00"})[1].decode()


def test_questions_of_several_pictures_have_a_map_on_each(small: Path, tmp_path: Path) -> None:
    """The second picture's cells are those of the first times two, so that both must be on one scale."""
    images = [{"image_id": name, "path": f"{name}.png", "role": role} for name, role in (("a", "prior"), ("b", NASTY))]
    grids, rows = [{"h": 12, "w": 12}] * 2, make_rows(2)
    for row in rows:
        row |= {"images": images, "grids": grids, "grid_h": None, "grid_w": None, "picture_shares": [0.25, 0.75]}
        row["map"] = np.concatenate([row["map"], 2 * row["map"]]) if "map" in row else None
    RecordWriter(tmp_path, rank=0, start=0).write(rows)
    mine = pd.DataFrame([row for row in rows if row["sample_id"] == "s00" and row["method"] == "chefer"])
    (drawn,) = map_pictures(mine, over=False)
    assert (len(drawn.uris), drawn.rows, drawn.columns) == (2, 12, 12)
    contents = [io.BytesIO(b64decode(uri.partition(",")[2])) for uri in drawn.uris]
    green = np.concatenate([np.asarray(Image.open(content))[..., 1].astype(float).ravel() for content in contents])
    assert (np.diff(green[mine["map"].iloc[0].ravel().argsort()]) >= 0).all() and green.max() > green.min() + 100
    root = tmp_path / "pictures"
    root.mkdir()
    shutil.copy(small.parent / "pictures" / "a.png", root / "a.png")
    Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (70, 1))).save(root / "b.png")
    pages = Pages(tmp_path, root)
    page = pages.sample({"id": "s00"})[1].decode()
    assert NASTY not in page and page.count("picture?id=s00&amp;n=1") == page.count("picture?id=s00&amp;n=0") > 1
    assert "prior<br>0.250 of the map</span>" in page and 'alt="map of chefer, prior"' in page
    sizes = [Image.open(io.BytesIO(pages.picture({"id": "s00", "n": n})[1])).size for n in ("0", "1")]
    assert sizes == [(200, 160), (90, 70)]
    for place in ("2", "-1", "x", ""):
        with pytest.raises(LookupError, match="No picture"):
            pages.picture({"id": "s00", "n": place})


def test_only_the_printed_address_answers(viewer: Viewer, small: Path) -> None:
    before = files_below(small)
    status, policy, content = ask(viewer, "")
    assert status == 200 and "1–40 of 40" in content.decode() and "default-src 'none'" in policy
    assert NASTY not in content.decode() and "&lt;script&gt;" in content.decode()
    token = urlsplit(viewer.address).path.strip("/")
    assert len(token) >= 24 and viewer.server_address[0] == "127.0.0.1"
    for target in ("/", f"/{token[:-1]}/", f"/{token}x/sample?id=s00", "/report"):
        assert ask(viewer, target)[0] == 403, target
    for host in ("evil.example", f"evil.example:{viewer.server_port}", ""):
        assert ask(viewer, "", host=host)[0] == 403, host
    for method in ("POST", "PUT", "DELETE"):
        assert ask(viewer, "", method)[0] == 501
    for target, expected in {
        "nowhere": 404,
        "sample?id=nobody": 404,
        "../../etc/passwd": 404,
        "?method=nobody": 400,
        "?page=-1": 400,
        "?low=few": 400,
        "?words=%00": 400,
        "?setting=9": 400,
        "?" + "&".join(f"a{number}=1" for number in range(99)): 400,
    }.items():
        status, _, content = ask(viewer, target)
        assert status == expected and b"Traceback" not in content, target
    assert "page 1 of 1" in ask(viewer, "?page=7")[2].decode()
    words = "?words='%20OR%20true%20--"
    assert "No sample matches." in ask(viewer, words)[2].decode()
    assert ask(viewer, "report")[2] == (small / "report" / "index.html").read_bytes()
    assert files_below(small) == before  # nothing is written


def test_pictures_are_shown_from_the_data_root_only(viewer: Viewer, small: Path, tmp_path: Path) -> None:
    status, _, content = ask(viewer, "picture?id=s02")
    assert status == 200 and Image.open(io.BytesIO(content)).size == (200, 160)
    assert b'src="picture?id=s02"' in ask(viewer, "sample?id=s02")[2]
    pages = Pages(small)
    assert b"picture?id" not in pages.sample({"id": "s02"})[1]
    with pytest.raises(LookupError, match="No picture"):
        pages.picture({"id": "s02"})
    rows = [row | {"image_path": "../outside.png"} for row in make_rows(2)]
    RecordWriter(tmp_path, rank=0, start=0).write(rows)
    with pytest.raises(ValueError, match="outside the data root"):
        Pages(tmp_path, small.parent / "pictures").picture({"id": "s00"})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_in_a_browser(browser: Browser, large: Path) -> None:
    with Viewer(Pages(large)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            look_through(browser, server.address)
        finally:
            server.shutdown()
            thread.join()


def look_through(browser: Browser, address: str) -> None:
    """List, next page, filter, sample, next sample; no script, no error, no request elsewhere."""
    caption, heading = "document.querySelector('caption')?.textContent", "document.querySelector('h1')?.textContent"
    browser.size(1200, 900)
    browser.visit(address)
    assert browser.run(caption) == "1–50 of 200"
    browser.run("document.querySelector('nav a[href*=\"page=1\"]').click()")
    browser.until(f"{caption} === '51–100 of 200'")
    browser.run("document.querySelector('select[name=answered]').value = 'wrong'")
    browser.run("document.querySelector('select[name=order]').value = 'worst'")
    browser.run("document.querySelector('form button').click()")
    browser.until(f"{caption}?.endsWith(' of 60')")
    first = "document.querySelector('#samples tbody a')"
    name = browser.run(f"{first}.textContent")
    browser.run(f"{first}.click()")
    browser.until(f"{heading} === 'Sample {name}'")
    assert browser.run("document.querySelector('nav .quiet').textContent") == "1 of 60"
    assert (
        browser.run("[...document.querySelectorAll('img.map')].filter((one) => one.naturalWidth === 16).length") == 13
    )
    assert browser.run("document.querySelectorAll('.charts polyline').length") == 2 * len(METHODS)
    # Dark where the reader wants it: frames, fields, lines and letters too.
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.send("Emulation.setEmulatedMedia", features=dark)
    count, faint = browser.run(CONTRAST)
    assert count > 50 and faint == []
    assert browser.run("getComputedStyle(document.querySelector('.charts rect')).stroke") == "rgb(52, 61, 73)"
    assert browser.run("getComputedStyle(document.querySelector('.charts polyline')).filter") == "brightness(1.5)"
    browser.send("Emulation.setEmulatedMedia", features=[])
    browser.run("document.querySelector('a[rel=next]').click()")
    browser.until("document.querySelector('nav .quiet')?.textContent === '2 of 60'")
    assert browser.run("document.scripts.length") == 0
    outside = [one for one in browser.requests if not one.startswith((address, "data:", "about:"))]
    assert browser.errors == [] and outside == []


def test_a_hundred_thousand_records_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    """The first list and a filter: 50 samples are sent each time, and no more than they need are read."""
    count = write_run(tmp_path, 100_000)
    samples = count // (len(METHODS) * len(SUBSTRATES))
    with Viewer(Pages(tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            first, filtered = waits(browser, server.address)[2:]
            listed = browser.run("document.querySelectorAll('#samples tbody tr').length")
        finally:
            server.shutdown()
            thread.join()
    assert count >= 100_000 and first == f"1–50 of {samples:,}" and listed == PAGE == 50
    table = read_records(tmp_path, ["correct"])
    wrong = table[table["correct"].eq(False)]["sample_id"].nunique()
    assert filtered == f"1–50 of {wrong:,}" and 0 < wrong < samples
    assert browser.errors == []


def test_the_command_serves_until_ctrl_c(small: Path) -> None:
    words = [sys.executable, "-m", "cxr_faith", "view", str(small)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    address = re.fullmatch(r"view         (http://127\.0\.0\.1:\d+/[\w-]+/)\n", line)
    assert address is not None, line + process.communicate()[1]
    url = urlsplit(address[1])
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=60)
    connection.request("GET", url.path)
    assert b"1\xe2\x80\x9340 of 40" in connection.getresponse().read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such run directory"),
        (["{run}", "--data_root", "nowhere"], "--data_root nowhere: no such folder"),
        (["{run}", "--port", "70000"], "--port 70000: must be between 0 and 65535"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *(word.format(run=small) for word in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_damaged_provenance_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "provenance.json").write_text(json.dumps({"rows": {"scored": 3}}))
    assert main(["view", str(tmp_path)]) == 2
    assert "provenance.json: rows is damaged" in capsys.readouterr().err
