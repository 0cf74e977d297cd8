"""Files are decoded in a process with limits: it ends in time, leaves nothing behind, and costs no good file."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_faith.data import decoder
from cxr_faith.data.check import check_manifest
from cxr_faith.data.decoder import DecoderStartError
from cxr_faith.data.images import ImageError, load_image, read_size
from cxr_faith.data.manifest import write_manifest
from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.data.sample import Sample
from tests.data.layouts import pixels

REPOSITORY = Path(__file__).parents[2]


def endless(file: Path) -> Path:
    """A JPEG that takes minutes in C code: a progressive one that repeats a scan of 36 bytes half a million times."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(0, 2000, 2000)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    starts = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    scan = content[starts[1] : starts[2]]
    assert len(scan) < 50
    file.write_bytes(content[: starts[2]] + scan * 500_000 + content[starts[2] :])
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture, and one that takes minutes, with two questions each."""
    endless(tmp_path / "endless.jpg")
    Image.fromarray(pixels(1)).save(tmp_path / "good.png")
    questions = [(name, number) for name in ("endless.jpg", "good.png") for number in range(2)]
    samples = [Sample(f"{name}{i}", image_id=name, image_path=name, question="Is it?") for name, i in questions]
    write_manifest(samples, tmp_path / "m.parquet")
    return tmp_path


MAC = """
import os, resource, signal, sys, time
from pathlib import Path
def refuse(what, limits, real=resource.setrlimit):
    if what == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    real(what, limits)
resource.setrlimit = refuse
del os.sched_getaffinity, signal.sigtimedwait
if len(sys.argv) == 1:
    from cxr_faith.data.decoder_process import serve
    serve(os.getppid())
from cxr_faith.run.stop import listening
with listening() as request:
    os.kill(os.getpid(), signal.SIGUSR2)
    limit = time.monotonic() + 20
    while not request and time.monotonic() < limit:
        time.sleep(0.05)
    print(request.signal.name)
from cxr_faith.data.cache import ImageCache
cache = ImageCache.open(Path(sys.argv[1]) / "cache", ["good.png"], Path(sys.argv[1]), (8, 8), 0.0)
print(cache.get("good.png")[0].shape[0])
"""


def test_a_system_without_the_calls_of_linux_works_without_them(tmp_path: Path) -> None:
    """As on macOS: no limit of the address space, no list of processors, no waiting for a signal with a time limit."""
    Image.fromarray(pixels(1)).save(tmp_path / "good.png")
    words = [sys.executable, "-c", MAC, str(tmp_path)]
    said = subprocess.run(words, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, timeout=60)
    assert said.stdout.split() == ["SIGUSR2", "3"], said.stderr
    words.pop()
    with subprocess.Popen(words, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdin and started.stdout and started.stdout.read(5) == b"ready"
        started.stdin.close()


def process() -> int:
    """Process id of this thread's decoder."""
    return decoder._this_threads_decoder()._process.pid


def ends(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends within a time; a zombie has ended."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", [None, "cache"])
def test_a_file_that_takes_too_long_costs_its_samples_only(folder: Path, workers: int, cache: str | None) -> None:
    kept = None if cache is None else str(folder / cache)
    data = CXRVQADataModule(str(folder / "m.parquet"), num_workers=workers, cache=kept, decode_seconds=0.7)
    data.image_size = (32, 32)
    errors = {item.sample.sample_id: item.error for batch in data.loader() for item in batch}
    reason = f"{folder / 'endless.jpg'}: decoding takes longer than 0.7 s"
    assert errors == {"endless.jpg0": reason, "endless.jpg1": reason, "good.png0": None, "good.png1": None}


def test_prepare_check_has_the_limit_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxr_faith.data.images.decode", lambda *request: decoder.decode(*request[:3], 0.7))
    checked, faults = check_manifest(folder / "m.parquet")
    assert [fault and fault.error.rpartition(": ")[2] for fault in faults] == [
        *["decoding takes longer than 0.7 s"] * 2,
        *[None] * 2,
    ]
    assert checked.faults == 2


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_the_limit_must_be_a_time(folder: Path, seconds: float) -> None:
    with pytest.raises(ValueError, match="decode_seconds must be more than 0"):
        CXRVQADataModule(str(folder / "m.parquet"), decode_seconds=seconds)


def test_a_decoder_is_kept(folder: Path) -> None:
    load_image(folder / "good.png")
    first = process()
    (folder / "bad.png").write_bytes(b"\x89PNG")
    with pytest.raises(ImageError):
        load_image(folder / "bad.png")
    assert load_image(folder / "good.png").shape == (80, 120, 3) and process() == first


@pytest.mark.parametrize("busy", [False, True])
def test_a_decoder_ends_with_a_reader_that_is_killed(folder: Path, busy: bool) -> None:
    then = f"load_image({str(folder / 'endless.jpg')!r})" if busy else "time.sleep(100)"
    script = (
        "import sys, threading, time\n"
        "from cxr_faith.data import decoder\n"
        "from cxr_faith.data.images import load_image\n"
        f"load_image({str(folder / 'good.png')!r})\n"
        "print(decoder._this_threads_decoder()._process.pid, flush=True)\n"
        f"{then}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as reader:
        assert reader.stdout
        pid = int(reader.stdout.readline())
        time.sleep(0.5)
        reader.kill()
    assert ends(pid)


def test_a_decoder_ends_with_its_thread(folder: Path) -> None:
    seen = list[int]()
    thread = threading.Thread(target=lambda: (load_image(folder / "good.png"), seen.append(process())))
    thread.start()
    thread.join()
    assert ends(seen[0]) and seen[0] != process()


def test_a_forked_process_leaves_its_parents_decoder_alone(folder: Path) -> None:
    expected, first = load_image(folder / "good.png"), process()
    child = os.fork()
    if child == 0:
        same = (load_image(folder / "good.png") == expected).all()
        os._exit(0 if same and process() != first else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (load_image(folder / "good.png") == expected).all() and process() == first


@pytest.mark.parametrize("number", sorted(decoder.IGNORED_SIGNALS))
def test_signals_of_a_terminal_and_of_slurm_stop_no_decoder(folder: Path, number: signal.Signals) -> None:
    load_image(folder / "good.png")
    first = process()
    os.kill(first, number)
    assert load_image(folder / "good.png").any() and process() == first


def test_a_decoder_that_somebody_killed_costs_no_sample(folder: Path) -> None:
    expected = load_image(folder / "good.png")
    os.kill(process(), signal.SIGKILL)
    assert (load_image(folder / "good.png") == expected).all()


def test_a_decoder_that_only_waits_is_given_up(folder: Path) -> None:
    load_image(folder / "good.png")
    first = process()
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(ImageError, match="good.png: decoding gives no answer within 2 s"):
        load_image(folder / "good.png", seconds=0.2)
    assert ends(first) and load_image(folder / "good.png").any()


def test_a_run_that_was_suspended_has_not_waited(folder: Path) -> None:
    """Reader and decoder are stopped for four seconds, in the middle of a wait of at most three."""
    script = (
        "from cxr_faith.data import decoder\n"
        "from cxr_faith.data.images import load_image\n"
        "print(decoder._this_threads_decoder()._process.pid, flush=True)\n"
        "input()\n"
        f"print(load_image({str(folder / 'good.png')!r}, seconds=0.2).shape)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as reader:
        assert reader.stdout
        pid = int(reader.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        assert reader.stdin
        reader.stdin.write("\n")
        reader.stdin.flush()
        time.sleep(0.5)
        reader.send_signal(signal.SIGSTOP)
        time.sleep(4)
        os.kill(pid, signal.SIGCONT)
        reader.send_signal(signal.SIGCONT)
        assert reader.communicate()[0] == "(80, 120, 3)\n"
    assert reader.returncode == 0


def test_a_decoder_that_crashes_in_a_file_twice_costs_that_file(folder: Path) -> None:
    load_image(folder / "good.png")
    of_this_thread, crashed, done = vars(decoder._local), list[int](), threading.Event()

    def crash_each_decoder() -> None:
        while not done.wait(0.5):
            pid = of_this_thread["decoder"]._process.pid
            if pid not in crashed:
                crashed.append(pid)
                os.kill(pid, signal.SIGSEGV)

    thread = threading.Thread(target=crash_each_decoder)
    thread.start()
    try:
        with pytest.raises(ImageError, match=r"endless.jpg: the decoder ends without an answer \(status -11\)"):
            load_image(folder / "endless.jpg")
    finally:
        done.set()
        thread.join()
    assert len(crashed) == 2 and load_image(folder / "good.png").any()


def test_an_interrupted_answer_is_not_taken_for_the_next_one(folder: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    expected, before = load_image(folder / "good.png"), signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Stopped):
            load_image(folder / "endless.jpg")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (load_image(folder / "good.png") == expected).all()


def test_what_libraries_print_mixes_with_no_answer(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Pillow and pydicom warn of a bomb of 100 million pixels and of a header; libjpeg prints to stderr."""
    Image.new("L", (10_000, 10_000)).save(folder / "large.png", compress_level=1)
    with pytest.raises(ImageError, match="100000000 pixels are more"):
        load_image(folder / "large.png")
    assert read_size(folder / "large.png") == (10_000, 10_000)
    assert capfd.readouterr() == ("", "")


def test_a_machine_that_starts_no_process_is_not_a_files_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_local", threading.local())
    monkeypatch.setattr(sys, "executable", str(folder / "gone"))
    data = CXRVQADataModule(str(folder / "m.parquet"))
    data.image_size = (32, 32)
    with pytest.raises(DecoderStartError, match="no process for decoding pictures can be started"):
        next(iter(data.loader()))


def test_an_answers_shape_is_not_trusted() -> None:
    for shape, dtype in (([10**9, 10**9], "|u1"), ([2, 2], "|O"), ([], "|u1"), ([0, 4], "|u1"), ([-1, -4], "|u1")):
        with pytest.raises(ValueError, match="the decoder answers with an array"):
            decoder._empty(shape, dtype, 1000)
    assert decoder._empty([20, 50, 3], "|u1", 1000).dtype == np.uint8
