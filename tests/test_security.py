"""What SECURITY.md promises, as far as a test can say."""

import ast
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cxr_faith.data.images import ImageError, load_image, load_mask
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.report.html import SCRIPTS
from cxr_faith.vlm import Gemma3VLM
from cxr_faith.vlm.base import ModelError
from tests.runs import ROOT, records, run_here, write_config

SOURCES = sorted((ROOT / "cxr_faith").rglob("*.py"))
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Dotted name and keyword arguments of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def test_nothing_that_is_read_can_run_code() -> None:
    assert len(SOURCES) > 100
    for file in SOURCES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in modules} & RUNS_CODE, file
        for name, words in calls(tree):
            assert name not in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen"), (file, name)
            if name.endswith("torch.load"):
                assert ast.unparse(words["weights_only"]) == "True", file
            for word, forbidden in (("allow_pickle", "True"), ("trust_remote_code", "True"), ("shell", "True")):
                assert word not in words or ast.unparse(words[word]) != forbidden, f"{file}: {name}({word}={forbidden})"


def test_the_pages_script_makes_no_markup_and_no_request() -> None:
    parts = sorted((ROOT / "cxr_faith" / "report").glob("*.js"))
    assert [part.name for part in parts] == sorted(SCRIPTS)
    script = "".join(part.read_text(encoding="utf-8") for part in parts)
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function"
    request = r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|\bimport\("
    assert re.findall(f"{markup}|{request}", script) == []
    page = (ROOT / "cxr_faith" / "report" / "page.html.j2").read_text(encoding="utf-8")
    assert page.count("<script") == 2 and '<script type="application/json" id="data">' in page
    assert "default-src 'none'" in page


def test_a_pickle_in_place_of_weights_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cxr_faith.vlm import bundled_model

    fired = tmp_path / "fired"
    for file in bundled_model().iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    # What pickle.dumps gives for an object whose __reduce__ is (os.mkdir, (fired,)).
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(V" + str(fired).encode() + b"\ntR.")
    with pytest.raises(ModelError, match="safetensors"):
        Gemma3VLM.from_pretrained(tmp_path)
    assert not fired.exists()


def test_a_tag_in_a_config_runs_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fired = tmp_path / "fired"
    file = tmp_path / "config.yaml"
    file.write_text(f"model: !!python/object/apply:os.mkdir [{fired}]\n")
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(file.read_text())
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(run_here(file, tmp_path / "run"))
    assert stop.value.code == 2 and not fired.exists()
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def png(width: int, height: int, data: bytes) -> bytes:
    """A gray PNG of a stated size, whatever its data hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_before_they_grow(tmp_path: Path) -> None:
    side = 40_000
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(side, side, zlib.compress(bytes(side + 1) * 100)))
    for read in (load_image, load_mask):
        with pytest.raises(ImageError, match="bomb.png.*(more than|decompression bomb|exceeds)"):
            read("bomb.png", tmp_path)
    # More data than the header says is no way around it.
    packer = zlib.compressobj()
    data = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(300)), packer.flush()])
    (tmp_path / "long.png").write_bytes(png(8, 8, data))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before = peak_memory()
    try:
        assert load_image("long.png", tmp_path).shape == (8, 8, 3)
    except ImageError:
        pass
    assert peak_memory() - before < 100e6


def peak_memory() -> int:
    """Largest resident size of this process since the peak was reset, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.parametrize("way", ["../secret.png", "{absolute}", "images/link.png", "images/../../secret.png"])
def test_no_picture_outside_the_data_root_is_read(way: str, tmp_path: Path) -> None:
    picture = next((bundled_manifest().parent / "images").iterdir()).read_bytes()
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture)
    (root / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    row = pq.read_table(bundled_manifest()).slice(0, 1).to_pylist()[0]
    row |= {"image_path": way.format(absolute=tmp_path / "secret.png"), "finding_mask_path": None}
    row |= {"boxes": [], "anatomy_masks": []}
    config = write_config(tmp_path, 1)
    table = pa.Table.from_pylist([row], pq.read_schema(bundled_manifest()))
    pq.write_table(table, tmp_path / "manifest.parquet")
    assert run_here(config, tmp_path / "run", "--data.data_root", str(root)) == 0
    frame = records(tmp_path / "run")
    assert frame["status"].eq("invalid").all() and frame["reason"].str.contains("outside the data root").all()


def test_files_have_the_modes_that_the_umask_leaves(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1)
    before = os.umask(0o027)
    try:
        assert run_here(config, tmp_path / "run", "--show_images", "true") == 0
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "run", *(tmp_path / "run").rglob("*")]}
    assert len(modes) > 8
    wrong = {path: oct(mode) for path, mode in modes.items() if mode & 0o027 or (path.is_file() and mode & 0o111)}
    assert wrong == {}
