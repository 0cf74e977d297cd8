"""`prepare` as a user meets it, and each source from its published layout to records."""

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.data.intake import accept
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.prepare import watched
from cxr_faith.data.sources import SOURCES
from cxr_faith.data.tally import Tally
from cxr_faith.records import read_records
from tests.data.conftest import mimic, slake, vindr, vqa_rad  # noqa: F401

CONFIG = """
trainer: {{accelerator: cpu, devices: 1}}
model:
  methods: {{attention: {{}}}}
  protocol: {{steps: 2, random_orders: 2, substrates: ["blur:0.1"]}}
data: {{manifest: {manifest}, batch_size: 4}}
"""


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run(*arguments)`: exit status, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        return (status, *capfd.readouterr())

    return call


def test_help_names_every_source(run: Callable) -> None:
    status, out, _ = run("prepare", "--help")
    assert status == 0 and "examples:" in out and all(name in out for name in SOURCES)
    status, out, _ = run("prepare", "mimic-cxr-vqa", "--help")
    assert status == 0
    assert all(option in out for option in ("--root", "--out", "--limit", "--vqa", "--ms_cxr", "--masks"))
    assert "tally" not in out
    status, out, _ = run("prepare", "folder", "--help")
    assert status == 0 and out.startswith("usage: cxr-faith prepare folder DIR [options]") and "--root" not in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["vindr"], "no source 'vindr'; did you mean vindr-cxr?"),
        (["phantom", "--root", "r"], "out"),
        (["phantom", "--root", "r", "--out", "o", "--patient", "3"], "did you mean --patients?"),
        (["phantom", "--root", "r", "--out", "o", "--limit", "0"], "--limit must be at least 1"),
        (["slake", "--root", "/nowhere", "--out", "o"], "/nowhere: no such folder"),
        (["folder", "--out", "o", "--question", "q"], "DIR missing; cxr-faith prepare folder --help explains"),
        (["folder", "--out", "o", "--question", "q", "/nowhere"], "/nowhere: no such folder; DIR is the folder of"),
        (["folder", "a", "--root", "b", "--out", "o", "--question", "q"], "unexpected argument 'a'"),
        (["check", "/nowhere"], "/nowhere: manifest not found"),
        (["check", ".", "--images", "some"], "--images must be a number or all"),
        (["bench", ".", "--images", "0"], "--images must be at least 1, got 0"),
        (["slake", "--root", ".", "--out", "o", "--splits", ""], "--splits names no split; there are train, validate"),
        (["table", "--root", ".", "--out", "o", "--file", "q.csv"], "q.csv: file not found"),
        (["table", "--root", ".", "--out", "o", "--file", "/dev/zero"], "/dev/zero: is not a file"),
        (["table", "--root", ".", "--out", "o", "--file", "."], ".: is not a file"),
        (
            ["table", "--root", ".", "--out", "o", "--file", "q.csv", "--columns", "image_path"],
            "--columns is written as image_path=path,answer=label or as JSON, got 'image_path'",
        ),
    ],
)
def test_usage_errors_are_one_line(
    run: Callable, arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run("prepare", *arguments)
    lines = err.strip().splitlines()
    assert status == 2 and len(lines) == 1, err
    assert lines[0].startswith("cxr-faith: error: ") and expected in lines[0]


def test_prepare_prints_what_it_took_and_left(run: Callable, vqa_rad: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "m"
    status, text, _ = run("prepare", "vqa-rad", "--root", vqa_rad, "--out", out)
    assert status == 0
    words = " ".join(text.split())
    for part in (
        "images 1 ",
        "questions 4 choice 1, open 1, yes_no 2",
        "yes_no: yes 2",
        "dropped 1 question: organ HEAD",
        str(out / "drops.csv"),
    ):
        assert part in words
    card = json.loads((out / "card.json").read_text())
    assert card["questions"] == 4 and card["data_root"] == str(vqa_rad)
    assert "| question: organ HEAD | 1 |" in (out / "README.md").read_text()


def test_a_bad_picture_and_its_questions_are_counted_in_one_line(run: Callable, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((60, 50), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    rows = ["image_path,question", "a.png,Is there a nodule?", "b.png,Is there a nodule?", "b.png,Where?"]
    (tmp_path / "q.csv").write_text("\n".join(rows) + "\n")
    status, text, err = run(
        "prepare", "table", "--file", tmp_path / "q.csv", "--root", tmp_path, "--out", tmp_path / "m"
    )
    assert status == 0, err
    dropped = [line for line in text.splitlines() if "not an image" in line]
    assert [" ".join(line.split()) for line in dropped] == ["dropped 1 image: not an image (with 2 questions)"]
    card = json.loads((tmp_path / "m" / "card.json").read_text())
    assert card["drops"] == {"question: image not an image": 2, "image: not an image": 1}
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("limit", [None, 2])
def test_the_bar_ends_at_its_total(slake: Path, limit: int | None) -> None:  # noqa: F811
    tally, reports = Tally(), list[tuple[int, int | None]]()
    samples = accept(SOURCES["slake"](slake, tally), slake, tally)
    taken = list(watched(islice(samples, limit), tally, lambda *report: reports.append(report), limit))
    assert len(taken) == (limit or 3)
    assert reports[-1] == (limit or 5, limit or 5)


def test_check_lists_faults(run: Callable, vqa_rad: Path, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "m"
    run("prepare", "vqa-rad", "--root", vqa_rad, "--out", out)
    status, text, _ = run("prepare", "check", out, "--images", "all")
    assert status == 0 and "4 of 4 opened, 0 with a fault" in text and "80 × 120" in text
    picture = vqa_rad / "VQA_RAD Image Folder/synpic1.jpg"
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(picture)
    status, text, _ = run("prepare", "check", out, "--images", "2")
    assert status == 1 and "2 of 4 opened, 2 with a fault" in text
    assert "vqa-rad/0  VQA_RAD Image Folder/synpic1.jpg: picture is 9×9 px, the manifest says 80×120" in text
    moved = vqa_rad.with_name("moved")
    shutil.move(vqa_rad, moved)
    assert "file not found" in run("prepare", "check", out)[1]


def test_bench_counts_pictures_by_type(run: Callable, vindr: SimpleNamespace, tmp_path: Path) -> None:  # noqa: F811
    run("prepare", "vindr-cxr", "--root", vindr.root, "--out", tmp_path / "m")
    (vindr.root / "test/e1.dicom").unlink()
    status, text, _ = run("prepare", "bench", tmp_path / "m", "--size", 64, "--workers", 1, "--cache", tmp_path / "c")
    cells = [line.split() for line in text.splitlines() if "DICOM" in line]
    rows = [(" ".join(line[:-5]), *line[-5:]) for line in cells]
    assert status == 0 and [row[0] for row in rows] == ["DICOM", "cache of DICOM"]
    pictures = len(set(open_manifest(tmp_path / "m")["image_id"])) - 1
    assert [row[1:3] for row in rows] == [(str(pictures), "1")] * 2
    assert all(float(row[4]) > 0 and row[4] == row[5] for row in rows)
    assert not list((tmp_path / "c").iterdir())  # the cache that was measured is gone


def evaluated(run: Callable, manifest: Path, folder: Path, limit: int = 3) -> "object":
    """Records of the first samples of a prepared manifest, by the bundled model on a tiny schedule."""
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(manifest=manifest))
    status, _, err = run("evaluate", "--config", config, "--run_dir", folder / "run", "--limit", limit)
    assert status == 0, err
    return read_records(folder / "run")


@pytest.mark.slow
def test_mimic_from_its_layout_to_records(
    run: Callable,
    mimic: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    out = tmp_path / "manifests/mimic"
    joined = ("--ms_cxr", mimic.ms_cxr, "--chest_imagenome", mimic.imagenome)
    source = ("mimic-cxr-vqa", "--root", mimic.root, "--vqa", mimic.vqa, "--splits", "test")
    status, _, err = run("prepare", *source, *joined, "--out", out)
    assert status == 0, err
    records = evaluated(run, out, tmp_path, limit=5)
    assert set(records.sample_id) == {f"mimic-cxr-vqa/test/{i}" for i in range(5)}
    controls = {"random", "random_map", "center", "edges", "oracle", "attention/blurred"}
    assert set(records.method) == {"attention", *controls}
    assert not (records.reason.fillna("").str.contains("file|size|picture")).any()
    oracle = records[(records.method == "oracle") & (records.sample_id == "mimic-cxr-vqa/test/0")].iloc[0]
    grid = np.array(oracle["map"]).reshape(int(oracle.grid_h), int(oracle.grid_w)) > 0
    # The left lung is on the right of the picture: x from 64 to 108 of 120.
    assert grid[:, grid.shape[1] // 2 + 1 :].any() and not grid[:, : grid.shape[1] // 2].any()


@pytest.mark.slow
def test_vindr_from_its_layout_to_records(
    run: Callable,
    vindr: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    data_store = pytest.importorskip("data_store", reason="pydicom-data is a development dependency")
    real = Path(data_store.__file__).parent / "data" / "RG1_UNCR.dcm"
    shutil.copyfile(real, vindr.root / "test/e1.dicom")
    out = tmp_path / "manifests/vindr"
    status, _, err = run("prepare", "vindr-cxr", "--root", vindr.root, "--out", out)
    assert status == 0, err
    sizes = {(row["height"], row["width"]) for row in open_manifest(out) if row["image_id"] == "e1"}
    assert sizes == {(1955, 1841)}
    records = evaluated(run, out, tmp_path)
    assert set(records.image_id) == {"e1", "e2"}
    assert (records[records.method == "attention"].status != "invalid").all()


@pytest.mark.slow
def test_other_sources_from_their_layout_to_records(
    run: Callable,
    vindr: SimpleNamespace,  # noqa: F811
    slake: Path,  # noqa: F811
    vqa_rad: Path,  # noqa: F811
    mimic: SimpleNamespace,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The first questions of each source's manifest, evaluated."""
    table = tmp_path / "own/test.csv"
    table.parent.mkdir()
    shutil.copyfile(slake / "imgs/xmlab1/source.jpg", table.parent / "a.jpg")
    table.write_text("image,image_path,question,answer\na.jpg,a.jpg,Is it?,yes\na.jpg,a.jpg,Is it there?,no\n")
    prepared = {
        "vindr-cxr-vqa": (vindr.root, "--vqa", vindr.vqa),
        "slake": (slake,),
        "vqa-rad": (vqa_rad,),
        "phantom": (tmp_path / "phantoms", "--patients", 1),
        "mimic-cxr": (mimic.root,),
        "table": (table.parent, "--file", table),
        "hub": (tmp_path / "hub", "--dataset", table.parent),
    }
    for source, (root, *options) in prepared.items():
        folder = tmp_path / "prepared" / source
        folder.mkdir(parents=True)
        out = folder / "manifest"
        status, _, err = run("prepare", source, "--root", root, *options, "--out", out, "--limit", 2)
        assert status == 0, err
        records = evaluated(run, out, folder, limit=2)
        failed = records[records.status == "invalid"]
        assert len(set(records.sample_id)) == 2 and failed.empty, (source, set(failed.reason))
