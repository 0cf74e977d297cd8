"""`cxr-faith app`: a page to drop films into, private, without a request elsewhere, and without a file left."""

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from zipfile import ZipFile

import numpy as np
import pydicom
import pytest

from cxr_faith.__main__ import main
from cxr_faith.app.film_answer import MOST_METHODS, Film, FilmError, FilmRoom, Question, read_film
from cxr_faith.app.film_downloads import Downloads
from cxr_faith.app.film_view import FilmView
from cxr_faith.cli import app as command
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer import Explainer
from cxr_faith.report.film import MOVING_SHARES
from tests.data.test_data_dicom import write_dicom
from tests.report.browser import Browser, chromium

ROOT = Path(__file__).parents[2]
PICTURE = sorted((bundled_manifest().parent / "images").iterdir())[0]
RESULT = "document.querySelector('#result')"


@dataclass
class App:
    """A running `cxr-faith app`."""

    process: subprocess.Popen[str]
    address: str
    folder: Path
    """Where the process may put temporary files."""

    def files(self) -> list[Path]:
        """Files with content that it has."""
        return [file for file in self.folder.rglob("*") if file.is_file() and file.stat().st_size]

    def ask(self, target: str, host: str | None = None) -> http.client.HTTPResponse:
        place = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=60)
        connection.request("GET", target, headers={} if host is None else {"Host": host})
        return connection.getresponse()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The command with the bundled model, ended with status 99 if it reaches for another machine."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("temporary")
    words = [sys.executable, str(ROOT / "tests" / "cli" / "no_network.py"), "app"]
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder.parent
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.match(r"app +(http://127\.0\.0\.1:\d+/[\w-]{20,}/)$", line)
        assert address is not None, line + process.stdout.read()
        yield App(process, address[1], folder)
        process.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def drop(browser: Browser, file: Path) -> None:
    """Give a file to the page's drop area."""
    root = browser.send("DOM.getDocument")["root"]["nodeId"]
    node = browser.send("DOM.querySelector", nodeId=root, selector="#drop input[type=file]")["nodeId"]
    browser.send("DOM.setFileInputFiles", files=[str(file)], nodeId=node)


def write_question(browser: Browser, text: str) -> None:
    typed = "(s, t) => { s.value = t; s.dispatchEvent(new Event('input', {bubbles: true})); }"
    browser.run(f"({typed})(document.querySelector('#question textarea'), {json.dumps(text)})")


def error_after(browser: Browser, script: str, words: str) -> str:
    """The line that the page shows once a script has run; it holds these words."""
    browser.run(script)
    browser.until(f"{RESULT}.querySelector('.error')?.textContent.includes({json.dumps(words)})")
    return str(browser.run(f"{RESULT}.textContent.trim()"))


PRESS = "document.querySelector('#explain').click()"


@pytest.mark.slow
def test_only_the_printed_address_shows_the_app(running: App) -> None:
    place = urlsplit(running.address)
    answer = running.ask(place.path)
    policy = answer.getheader("Content-Security-Policy", "")
    assert answer.status == 200 and b"gradio_config" in answer.read()
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    assert answer.getheader("Cache-Control") == "no-store"
    for target in ("/", "/gradio_api/info", place.path[:-5] + "/", "/config"):
        assert running.ask(target).status == 403, target
    assert running.ask(place.path, host="evil.example").status == 403


@pytest.mark.slow
def test_the_app_from_drop_to_download(running: App, browser: Browser, tmp_path: Path) -> None:
    browser.size(1400, 950)
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.visit(running.address)
    browser.until("document.querySelector('#explain')")
    # Mistakes get one line that says what to do.
    assert "Drop a PNG, JPEG or DICOM file first." in error_after(browser, PRESS, "no film")
    (broken := tmp_path / "notes.png").write_bytes(b"no picture")
    drop(browser, broken)
    line = error_after(browser, "0", "notes.png")
    assert line.count("\n") == 0 and "Drop a PNG, JPEG or DICOM file." in line and str(running.folder) not in line
    drop(browser, PICTURE)
    browser.until("document.querySelector('.dropped img')?.naturalWidth > 100")
    assert PICTURE.name in browser.run("document.querySelector('.dropped').textContent")
    assert running.files() == []  # the film is in memory alone
    assert "Write one" in error_after(browser, PRESS, "no question")
    # The answer, with a verdict for each map.
    write_question(browser, "Is there a nodule?")
    browser.run("document.querySelector('#tokens input').click()")
    browser.run(PRESS)
    browser.until(f"{RESULT}.querySelector('.answer')", seconds=300)
    shown = browser.run(f"{RESULT}.textContent")
    assert "The model says yes" in shown and shown.count("Believe: ") + shown.count("Do not believe: ") == 2
    assert (
        browser.run(f"[...{RESULT}.querySelectorAll('.wide img')].map((one) => one.naturalWidth > 300)") == [True] * 2
    )
    # The slider shows the same share for both methods.
    slider = f"{RESULT}.querySelector('.removal input')"
    visible = f"[...{RESULT}.querySelectorAll('.frame')].filter((one) => one.offsetParent)"
    before = browser.run(f"{visible}.map((one) => one.querySelector('img').src)")
    move = "(s) => { s.value = 20; s.dispatchEvent(new Event('input', {bubbles: true})); }"
    browser.run(f"({move})({slider})")
    after = browser.run(f"{visible}.map((one) => one.querySelector('img').src)")
    assert len(before) == len(after) == 2 and not set(before) & set(after)
    assert browser.run(f"{RESULT}.querySelector('output').textContent") == "100% removed"
    # Downloads are files of the page itself.
    links = browser.run(f"[...{RESULT}.querySelectorAll('.downloads a')].map((one) => [one.download, one.href])")
    assert [name.rsplit(".")[-1] for name, _ in links] == ["png", "pdf", "json"]
    contents = [base64.b64decode(address.partition(",")[2]) for _, address in links]
    assert contents[0].startswith(b"\x89PNG") and contents[1].startswith(b"%PDF")
    numbers = json.loads(contents[2])
    assert list(numbers["methods"]) == ["chefer", "attention"]
    assert f"{numbers['methods']['chefer']['p_yes']:.3f}" in shown
    browser.run(f"{RESULT}.querySelectorAll('.downloads a')[2].click()")
    file, end = tmp_path / links[2][0], time.monotonic() + 30
    while not (file.exists() and file.stat().st_size == len(contents[2])):
        assert time.monotonic() < end
        time.sleep(0.05)
    # Nothing is kept, and nothing went elsewhere.
    assert running.files() == [] and file.read_bytes() == contents[2]
    assert browser.run("indexedDB.databases().then((all) => all.length)") == 0
    assert "nodule" not in browser.run("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    hosts = {urlsplit(address).netloc for address in browser.requests if not address.startswith("data:")}
    assert hosts == {urlsplit(running.address).netloc}
    assert [error for error in browser.errors if "Method not implemented" not in error] == []


@pytest.mark.slow
def test_dicom_objects_are_downloaded_and_leave_no_file(running: App, browser: Browser, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="extra dicom-out")
    from tests.report.test_dicom import film as written

    ramp = np.linspace(0, 1000, 96 * 80).astype(np.uint16)
    film = written(tmp_path, 96, 80, PixelData=ramp.tobytes(), WindowCenter=500, WindowWidth=1000)
    browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.visit(running.address)
    browser.until("document.querySelector('#explain')")
    drop(browser, film)
    browser.until("document.querySelector('.dropped img')")
    write_question(browser, "Is there a nodule?")
    browser.run("document.querySelector('#judge input').click()")
    browser.run(PRESS)
    browser.until(f"{RESULT}.querySelector('.answer')", seconds=300)
    link = f"{RESULT}.querySelector('.downloads a[href^=objects]')"
    assert browser.run(f"{link}.href").startswith(running.address) and running.files() == []
    assert running.ask("/objects/" + browser.run(f"{link}.href").rpartition("/")[2]).status == 403
    browser.run(f"{link}.click()")
    end = time.monotonic() + 60
    while not (files := list(tmp_path.glob("*.zip"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    with ZipFile(files[0]) as archive:
        assert len(archive.namelist()) == 8  # four objects for each of two methods
    assert running.files() == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
def test_the_app_fits_the_screen(running: App, browser: Browser, width: int) -> None:
    browser.size(width, 900, mobile=width < 500)
    browser.visit(running.address)
    browser.until("document.querySelector('#explain')")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('#drop').getBoundingClientRect().right") <= width


@pytest.mark.slow
def test_ctrl_c_ends_the_app_and_removes_its_folder(running: App) -> None:
    """Stands last: the other tests share the process."""
    (folder,) = running.folder.glob("cxr-faith-app-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=30) == 130
    assert running.process.stdout is not None and "Traceback" not in running.process.stdout.read()
    assert list(running.folder.iterdir()) == []


def test_what_is_cut_off_at_the_end_prints_nothing() -> None:
    """The server has ended when the command does; its own task, which waits for the end of the app, is cut off."""
    script = """
import os, signal, threading
import uvicorn
from fastapi import FastAPI
from cxr_faith.app.film_server import HOST, FilmServer, listen

server = FilmServer.__new__(FilmServer)
server._listener = listen(HOST, 0)
server._server = uvicorn.Server(uvicorn.Config(FastAPI(), log_config=None, access_log=False))
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    server.serve_forever()
except KeyboardInterrupt:
    print("ended", server._server.started, threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("ended True 1\n", "")


def test_a_second_sigterm_does_not_keep_the_folder(tmp_path: Path) -> None:
    script = """
import os, signal, tempfile, time
from cxr_faith.app.film_server import private_folder

class Slow(tempfile.TemporaryDirectory):
    def __exit__(self, *error):
        os.kill(os.getpid(), signal.SIGTERM)
        super().__exit__(*error)

tempfile.TemporaryDirectory = Slow
with private_folder() as folder:
    (folder / "film.png").write_bytes(b"x")
    print(tempfile.mkdtemp().startswith(str(folder)), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (143, "True\n"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def room(bundled) -> FilmRoom:
    return FilmRoom(Explainer(bundled))


def test_answers_are_those_of_the_library(room: FilmRoom, bundled) -> None:
    film = read_film(PICTURE.read_bytes(), PICTURE.name)
    told: list[float] = []
    question = Question("Is there a nodule?", ("attention",), judge=False, tokens=True)
    answer = room.ask(film, question, lambda done, what: told.append(done))
    alone = Explainer(bundled).explain(PICTURE, "Is there a nodule?", "attention")
    assert answer.explanations[0].answer == alone.answer
    np.testing.assert_allclose(answer.explanations[0].map, alone.map, rtol=1e-5)
    assert all(one.verdict is None for one in answer.explanations)  # it was not asked for
    assert json.loads(answer.files["json"])["methods"].keys() == {"attention"}
    assert answer.files.keys() == {"png", "pdf", "json"}
    assert {name: len(frames) for name, frames in answer.films.items()} == {"attention": len(MOVING_SHARES)}
    assert answer.token_maps is not None and answer.token_maps.startswith(b"\x89PNG")
    assert told == sorted(told) and 0 < told[0] and told[-1] < 1


def test_a_dicom_film_gets_dicom_objects(room: FilmRoom, tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom", reason="extra dicom-out")
    from tests.report.test_dicom import film as written

    ramp = np.linspace(0, 1000, 96 * 80).astype(np.uint16)
    content = written(tmp_path, 96, 80, PixelData=ramp.tobytes(), WindowCenter=500, WindowWidth=1000).read_bytes()
    film = read_film(content, "film.dcm")
    question = Question("Is there a nodule?", ("center",), judge=False)
    answer = room.ask(film, question)
    assert answer.objects is not None and "zip" not in answer.files  # they are made when they are asked for
    downloads = Downloads()
    place = downloads.offer("a.zip", answer.objects)
    sent = downloads.send(place.partition("/")[2])
    assert sent.headers["Content-Disposition"] == 'attachment; filename="a.zip"'
    with ZipFile(io.BytesIO(bytes(sent.body))) as archive:
        names = archive.namelist()
        assert names == [f"film-center-{kind}.dcm" for kind in ("map", "cells", "report", "figure")]
        objects = [pydicom.dcmread(io.BytesIO(archive.read(name))) for name in names]
    source = pydicom.dcmread(io.BytesIO(content))
    assert {one.StudyInstanceUID for one in objects} == {source.StudyInstanceUID}
    assert hd.pm.ParametricMap.from_dataset(objects[0]).Rows == 96
    shown = FilmView().answer(film, answer, place)
    assert f'href="{place}"' in shown and "DICOM objects, ZIP" in shown and "application/zip" not in shown
    assert "DICOM objects" not in FilmView().answer(film, answer)
    assert read_film(PICTURE.read_bytes(), PICTURE.name).dicom is None


def test_downloads_are_of_the_latest_answers() -> None:
    downloads = Downloads()
    keys = [downloads.offer(f"{number}.zip", str(number).encode) for number in range(6)]
    sent = [downloads.send(key.partition("/")[2]) for key in keys]
    assert [one.status_code for one in sent] == [404, 404, 200, 200, 200, 200]
    assert [bytes(one.body) for one in sent[2:]] == [b"2", b"3", b"4", b"5"]
    refused = downloads.send(downloads.offer("no.zip", lambda: None).partition("/")[2])
    assert refused.status_code == 422 and b"cannot repeat" in bytes(refused.body)


def test_films_are_read_in_memory(tmp_path: Path) -> None:
    pixels = np.outer(np.arange(1, 41), np.arange(60)).astype(np.uint16)
    film = read_film(write_dicom(tmp_path / "a.dcm", pixels).read_bytes(), "folder/x\u202ea.dcm")
    assert film.picture.shape == (40, 60, 3) and film.name == r"x\u202ea.dcm"
    with pytest.raises(FilmError, match=r"^b\.png cannot be read: .*Drop a PNG, JPEG or DICOM file\.$") as error:
        read_film(b"text", "C:\\films\\b.png")
    assert "\n" not in str(error.value)


def test_what_cannot_be_asked(room: FilmRoom) -> None:
    film = Film("a", np.full((64, 64, 3), 90, np.uint8))
    with pytest.raises(FilmError, match="no film yet"):
        room.ask(None, Question("Is there a nodule?", ("chefer",)))
    with pytest.raises(FilmError, match="no question yet"):
        room.ask(film, Question("  ", ("chefer",)))
    for methods in ((), ("center",) * (MOST_METHODS + 1)):
        with pytest.raises(FilmError, match=f"Choose 1 to {MOST_METHODS} methods"):
            room.ask(film, Question("Is there a nodule?", methods))
    with pytest.raises(FilmError, match="constant at model size. Ask another"):
        room.ask(film, Question("Is there a nodule?", ("center",)))


def test_methods_that_need_more_than_a_film_are_not_offered(room: FilmRoom) -> None:
    assert {"chefer", "attention", "integrated_gradients", "random_map"} <= set(room.methods)
    assert not {"file", "oracle", "oracle_near"} & set(room.methods)
    assert room.methods[-3:] == ["center", "edges", "random_map"]


def test_without_gradio_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert capsys.readouterr().err == f"cxr-faith: error: {command.INSTALL}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port 70000: must be between 0 and 65535"),
        (["--model", "models/nowhere"], "models/nowhere"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 --port 0: "),
        (["--hots", "x"], "did you mean --host?"),
    ],
)
def test_wrong_options_of_the_app(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
