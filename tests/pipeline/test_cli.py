"""The command line as a user meets it: help, one-line errors, and exit statuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest

ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    """What a command left: exit status and what it printed."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs a command in this process, which has the libraries loaded."""
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> Done:
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Done(status, *capfd.readouterr())

    return call


def error_line(done: Done) -> str:
    """The one line of a usage error."""
    assert done.status == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("cxr-faith: error: "), done.stderr
    return lines[0]


def test_both_spellings_of_the_command() -> None:
    script = Path(sys.executable).with_name("cxr-faith")
    for command in ([str(script)], [sys.executable, "-m", "cxr_faith"]):
        done = subprocess.run([*command, "--version"], cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and done.stdout.startswith("cxr-faith ")


def test_help_shows_commands_and_examples(run: Callable[..., Done]) -> None:
    assert "evaluate --config FILE" in run("--help").stdout
    assert "examples:" in run("evaluate", "--help").stdout
    assert "no command 'evalute'; did you mean evaluate?" in error_line(run("evalute"))


def test_print_config_is_the_resolved_config(run: Callable[..., Done]) -> None:
    done = run("evaluate", "--config", "configs/demo.yaml", "--model.protocol.steps", "9", "--print_config")
    config = yaml.safe_load(done.stdout)
    assert config["model"]["protocol"]["steps"] == 9 and config["data"]["manifest"] == "bundled"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.protocol.step", "9"], "did you mean --model.protocol.steps?"),
        (["--model.protocol.random_orders", "3"], "random_orders must be even"),
        (["--model.protocol.steps", "145"], "steps=145 is more than the 144 cells"),
        (["--model.protocol.substrates", "[blurr:0.1]"], "substrate 'blurr:0.1'"),
        (["--model.methods", "{cheffer: {}}"], "no method class 'cheffer'; did you mean 'chefer'?"),
        (["--model.methods", "{a: {class: attention, head: max}}"], "methods.a.head: not an option of attention"),
        (["--model.vlm.path", "/nowhere/model"], "no model folder /nowhere/model"),
        (["--model.vlm.dtype", "float16"], "vlm.dtype must be float32 or bfloat16"),
        (["--data.manifest", "nowhere.parquet"], "nowhere.parquet"),
        (["--limit", "0"], "limit must be at least 1"),
    ],
)
def test_config_errors_are_one_line(
    arguments: list[str], expected: str, tmp_path: Path, run: Callable[..., Done]
) -> None:
    done = run("evaluate", "--config", "configs/demo.yaml", "--run_dir", str(tmp_path / "run"), *arguments)
    assert expected in error_line(done)
    assert not (tmp_path / "run" / "records").exists()


def test_a_wrong_key_in_a_file_names_the_right_one(tmp_path: Path, run: Callable[..., Done]) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("model: {methods: {chefer: {}}, protocol: {substrate: [mean]}}\ndata: {manifest: bundled}\n")
    assert "model.protocol.substrates" in error_line(run("evaluate", "--config", str(file)))


def test_explain_writes_overlay_and_json(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    done = run("explain", str(picture), "--question", "Is there a nodule?", "--out", str(tmp_path))
    assert done.status == 0, done.stderr
    assert "answer" in done.stdout and "logits" in done.stdout
    content = json.loads((tmp_path / f"{picture.stem}-chefer.json").read_text())
    assert content["answer"] in ("yes", "no") and len(content["map"]) == 12
    assert f"{content['margin']:+.3f}" in done.stdout
    with Image.open(tmp_path / f"{picture.stem}-chefer.png") as overlay:
        assert min(overlay.size) > 200


def test_explain_a_keyword(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    arguments = ("explain", str(picture), "--question", "Is there a nodule?", "--out", str(tmp_path))
    assert run(*arguments).status == 0
    answer = json.loads((tmp_path / f"{picture.stem}-chefer.json").read_text())["generated"]
    done = run(*arguments, "--keyword", answer.upper())
    assert done.status == 0, done.stderr
    content = json.loads((tmp_path / f"{picture.stem}-chefer.json").read_text())
    assert content["target"]["kind"] == "tokens" and content["target"]["name"] == f"keyword:{answer.upper()}"


def test_explain_writes_a_clinical_page(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    arguments = ["--question", "Is there a nodule?", "--out", str(tmp_path), "--clinical", "true", "--steps", "6"]
    done = run("explain", str(picture), *arguments)
    assert done.status == 0, done.stderr
    content = json.loads((tmp_path / f"{picture.stem}-chefer-clinical.json").read_text())
    assert content["faithfulness"]["status"] and set(content["agreement"]) >= {"attention", "gradient"}
    assert content["model"]["parameters"] > 1_000_000 and len(content["model"]["weights"]) == 32
    page = (tmp_path / f"{picture.stem}-chefer-clinical.html").read_text()
    assert "not for diagnosis" in page and "Is there a nodule?" in page and "not for diagnosis" in done.stdout


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (None, [], "missing.png"),
        (b"\xff\xd8\xff\xe0 no jpeg", [], "missing.png"),
        ("picture", ["--method", "oracle"], "needs a finding mask"),
        ("picture", ["--target", "7x"], "target must be"),
        ("picture", ["--modle", "x"], "did you mean --model?"),
        ("picture", ["--method", "cheffer"], "--method: no method 'cheffer'; did you mean 'chefer'?"),
        ("picture", ["--keyword", "nodule", "--target", "0"], "--keyword and --target exclude each other"),
        ("picture", ["--keyword", "scoliosis"], "the keyword 'scoliosis' is not in the answer"),
    ],
)
def test_explain_errors_are_one_line(
    content: bytes | str | None, arguments: list[str], expected: str, tmp_path: Path, run: Callable[..., Done]
) -> None:
    file = tmp_path / "missing.png"
    if content == "picture":
        Image.new("L", (64, 64), 90).save(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    done = run("explain", str(file), "--question", "Is there a nodule?", "--out", str(tmp_path), *arguments)
    assert expected in error_line(done)
