"""Standard streams that cannot be written, or not in UTF-8: a run goes on, a command that only prints ends quietly."""

import errno
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cxr_faith.cli.streams import Output, PlainText
from cxr_faith.data.manifest import bundled_manifest
from tests.runs import ROOT, assert_same, command, environment, ranks, reference, small

__all__ = ["reference", "small"]

PICTURE = sorted((bundled_manifest().parent / "images").iterdir())[0]
# With these, Python takes the locale as it is, and the locale is ASCII.
PLAIN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "ascii, strict": {"PYTHONIOENCODING": "ascii:strict"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C"},
    "C without UTF-8": PLAIN_C,
}


def cxr_faith(
    *words: str, streams: str = "", variables: dict[str, str] | None = None, cwd: Path = ROOT
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command; `streams` is what a shell makes of its streams, such as `>&-`."""
    line = ["bash", "-c", f'"$@" {streams}', "bash", sys.executable, "-m", "cxr_faith", *words]
    return subprocess.run(line, capture_output=True, cwd=cwd, env=environment() | (variables or {}), timeout=300)


@pytest.mark.parametrize("words", [["--help"], ["evaluate", "--help"], ["prepare", "--help"], ["--version"], []])
@pytest.mark.parametrize("locale", LOCALES)
def test_help_in_any_encoding(locale: str, words: list[str]) -> None:
    done = cxr_faith(*words, variables=LOCALES[locale])
    assert (done.returncode, done.stderr) == (0 if words else 2, b"") and done.stdout


@pytest.mark.parametrize(
    ("streams", "status"), [("| true", 0), (">&-", 0), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 1)]
)
def test_help_to_a_stream_that_cannot_be_written(streams: str, status: int) -> None:
    done = cxr_faith("evaluate", "--help", streams=streams)
    assert done.returncode == status and done.stderr.count(b"\n") == status and b"Traceback" not in done.stderr


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full"])
def test_an_error_keeps_its_status_where_stderr_cannot_be_written(streams: str) -> None:
    done = cxr_faith("evalute", streams=streams)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


def test_a_failed_descriptor_writes_nothing_more() -> None:
    read, write = os.pipe()
    os.close(read)
    raw = Output(write)
    assert raw.write(b"lost") == 4 and raw.write(b"more") == 4  # now to nowhere
    raw.patient, full = False, Output(os.open("/dev/full", os.O_WRONLY))
    full.patient = False
    with pytest.raises(OSError, match="No space left") as error:
        full.write(b"x")
    assert error.value.errno == errno.ENOSPC and full.write(b"x") == 1


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    raw, content = io.BufferedWriter(Output(write)), bytes(300_000)
    reader = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(read, 65536), b"")))
    received: list[bytes] = []
    reader.start()
    raw.write(content)
    raw.flush()
    os.close(write)
    reader.join()
    assert b"".join(received) == content


def test_messages_hold_no_escape_sequence() -> None:
    buffer = io.BytesIO()
    stream = PlainText(buffer, encoding="utf-8")
    text = "warning: \x1b[31mred\x07 \x9b2J \u202ereversed\n\tline 2\r\n"
    assert stream.write(text) == len(text)
    stream.write("\r 10 %")  # a progress bar
    stream.flush()
    assert buffer.getvalue().decode() == "warning: \\x1b[31mred\\x07 \\x9b2J \\u202ereversed\n\tline 2 \n\r 10 %"


NAME = "übung 胸部 🫁"


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_a_run_in_any_encoding(locale: str, small: Path, reference: Path, tmp_path: Path) -> None:
    """Run directory and config have names that the encoding lacks; all that is written is UTF-8 and the same."""
    config, run_dir = tmp_path / f"{NAME}.yaml", tmp_path / NAME
    config.write_text(f"# {NAME}\n{small.read_text()}", encoding="utf-8")
    words = command(config, run_dir)[3:]
    for arguments in (words, ["report", str(run_dir)]):
        done = cxr_faith(*arguments, variables=LOCALES[locale])
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(errors="replace")
    assert_same(run_dir, reference)
    for file in (*run_dir.glob("*.json"), run_dir / "config.yaml", run_dir / "report" / "index.html"):
        file.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["ascii", "C without UTF-8"])
def test_explain_and_prepare_in_any_encoding(locale: str, tmp_path: Path) -> None:
    picture = tmp_path / f"{NAME}.jpg"
    picture.write_bytes(PICTURE.read_bytes())
    question = "結節はありますか 🫁?"
    done = cxr_faith("explain", str(picture), "--question", question, "--out", str(tmp_path), variables=LOCALES[locale])
    assert (done.returncode, done.stderr) == (0, b"")
    [numbers] = tmp_path.glob("*.json")
    content = json.loads(numbers.read_text(encoding="utf-8"))
    assert (content["question"], Path(content["image"]).name) == (question, picture.name)
    table = tmp_path / "questions.csv"
    table.write_text(f"image_path,question,answer\n{picture.name},{question},yes\n", encoding="utf-8")
    made = ["prepare", "table", "--file", str(table), "--root", str(tmp_path), "--out", str(tmp_path / f"{NAME} made")]
    for arguments in (made, ["prepare", "check", made[-1]]):
        done = cxr_faith(*arguments, variables=LOCALES[locale])
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["| head -1", ">&-", "2>&-", "<&-", ">/dev/full 2>&1", "<&- >&- 2>&-"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_goes_on_without_its_streams(
    devices: int, streams: str, small: Path, reference: Path, tmp_path: Path
) -> None:
    words = [*command(small, tmp_path / "run")[3:], *(ranks(2) if devices == 2 else [])]
    done = cxr_faith(*words, streams=f'{streams}; exit "${{PIPESTATUS[0]}}"')
    assert done.returncode == 0 and done.stderr.count(b"\n") == 0, done.stderr
    assert_same(tmp_path / "run", reference)


@pytest.mark.slow
def test_a_run_says_that_its_log_is_full(small: Path, tmp_path: Path) -> None:
    done = cxr_faith(*command(small, tmp_path / "run")[3:], streams=">/dev/full")
    told = b"cxr-faith: stdout: No space left on device; the command goes on without it\n"
    assert (done.returncode, done.stderr) == (0, told)
