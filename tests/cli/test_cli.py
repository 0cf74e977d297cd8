"""The command line as a user meets it: help, one-line errors, and exit statuses."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer.clinical import calibration_of
from cxr_faith.records import RecordWriter
from cxr_faith.vlm import bundled_model
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.identity import model_identity
from tests.synthetic import make_rows

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


def written(done: Done, ending: str = "json") -> Path:
    """A file of an explanation, named as the command printed it."""
    stem = re.search(r"^numbers     (.*)\.json$", done.stdout, re.MULTILINE)
    assert done.status == 0 and stem is not None, done.stderr
    return Path(f"{stem[1]}{'' if ending.startswith('-') else '.'}{ending}")


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


def wide(text: str) -> list[str]:
    """Lines that a terminal of 80 columns breaks."""
    return [line for line in text.splitlines() if len(line) > 80]


def test_help_shows_commands_and_examples(run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "evaluate --config FILE" in run("--help").stdout and wide(run("--help").stdout) == []
    names = ("evaluate", "explain", "report", "prepare", "plan", "view", "app", "doctor", "sanity", "bench", "fit-sae")
    names += ("dossier",)
    for command in names:
        text = run(command, "--help").stdout
        assert "examples:" in text and f"  cxr-faith {command}" in text, command
        assert "default: )" not in text and "every aspect of training" not in text, command
        assert wide(text.split("\noptions:")[0]) == [], command
    for source in ("mimic-cxr-vqa", "vindr-cxr", "phantom", "table", "check", "bench"):
        assert wide(run("prepare", source, "--help").stdout) == [], source
    assert 'default: ""' in run("prepare", "table", "--help").stdout
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
        (["--model.vlm.dtype", "float16"], "vlm.dtype must be one of float32, bfloat16, got float16"),
        (["--model.vlm.faster", "[fused]"], "vlm.faster must name fused_norm or padded_heads, got 'fused'"),
        (["--data.manifest", "nowhere.parquet"], "nowhere.parquet"),
        (["--data.data_root", "nowhere"], "data.data_root: nowhere: no such folder"),
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
    content = json.loads(written(done).read_text())
    assert content["answer"] in ("yes", "no") and len(content["map"]) == 12
    assert f"{content['margin']:+.3f}" in done.stdout
    with Image.open(written(done, "png")) as overlay:
        assert min(overlay.size) > 200


def test_explain_draws_several_methods_films_and_other_formats(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    arguments = ["explain", str(picture), "--question", "Is there a nodule?", "--out", str(tmp_path)]
    done = run(*arguments, "--methods", "attention, edges", "--format", "svg")
    content = json.loads(written(done).read_text())
    assert list(content["methods"]) == ["attention", "edges"] and "method      edges" in done.stdout
    assert content["methods"]["edges"]["map"] != content["map"] == content["methods"]["attention"]["map"]
    assert "<svg" in written(done, "svg").read_text()
    done = run(
        *(*arguments, "--methods", "edges,center", "--film", "true", "--gif", "true"),
        *("--max_new_tokens", "2", "--kind", "open"),
    )
    assert "kind" in json.loads(written(done).read_text())
    for method in ("edges", "center"):
        with (
            Image.open(written(done, f"-{method}-film.png")) as film,
            Image.open(written(done, f"-{method}.gif")) as gif,
        ):
            assert film.width > 3 * film.height and gif.n_frames == 21  # type: ignore[attr-defined]
    for options, message in (
        (["--methods", "attention,edgs"], "--methods: no method 'edgs'; did you mean edges?"),
        (["--methods", "attention,edges", "--clinical", "true"], "--methods and --clinical exclude each other"),
        (["--window", "600"], "--window is a center and a width, such as 2048,4096, got 600"),
        (["--window", "600,1200"], "a window is for DICOM pictures"),
        (["--format", "bmp"], "format must be one of png, pdf, svg"),
    ):
        assert message in error_line(run(*arguments, *options))


def test_explain_by_a_method_with_options(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    arguments = ["explain", str(picture), "--question", "Is there a nodule?", "--method", "tam", "--out", str(tmp_path)]
    maps = []
    for options in ([], ["--method_options", '{"source": "attention"}']):
        done = run(*arguments, *options)
        assert done.status == 0, done.stderr
        maps.append(json.loads(written(done).read_text())["map"])
    assert maps[0] != maps[1]
    done = run(*arguments, "--method_options", '{"sauce": 1}')
    assert done.status == 2 and "sauce" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_explain_a_prior_and_a_current_study(tmp_path: Path, run: Callable[..., Done]) -> None:
    current, prior = sorted((bundled_manifest().parent / "images").iterdir())[:2]
    arguments = ["explain", str(current), "--prior", str(prior), "--question", "Is there a nodule?"]
    done = run(*arguments, "--method", "gradient", "--out", str(tmp_path))
    assert done.status == 0, done.stderr
    content = json.loads(written(done).read_text())
    first, second = content["pictures"]
    assert (first["name"], second["name"]) == ("prior", "current")
    assert (first["image"], second["image"], content["image"]) == (str(prior), str(current), str(current))
    assert [len(each["map"]) for each in (first, second)] == [12, 12]
    assert first["share"] + second["share"] == pytest.approx(1)
    assert f"prior {first['share']:.0%} ({first['effect']:+.2f}), current " in done.stdout
    assert content["image_id"] == f"{prior.name}+{current.name}"
    alone = json.loads(written(run("explain", *arguments[1:2], *arguments[4:], "--out", str(tmp_path))).read_text())
    assert "pictures" not in alone and alone["margin"] != content["margin"]
    tokens = run(*arguments, "--target", "tokens", "--method", "gradient", "--out", str(tmp_path))
    of_tokens = json.loads(written(tokens).read_text())
    assert len(of_tokens["pictures"]) == len(of_tokens["map"]) and len(of_tokens["pictures"][0]) == 2


def test_explain_slices_of_a_series(tmp_path: Path, run: Callable[..., Done]) -> None:
    series = tmp_path / "series 2"
    series.mkdir()
    for number, source in enumerate(sorted((bundled_manifest().parent / "images").iterdir())[:5]):
        (series / f"slice{number}.jpg").write_bytes(source.read_bytes())
    arguments = ["explain", "--slices", str(series), "--question", "Is there a nodule?", "--method", "gradient"]
    done = run(*arguments, "--n_slices", "2", "--out", str(tmp_path))
    assert done.status == 0, done.stderr
    content = json.loads(written(done).read_text())
    assert [each["name"] for each in content["pictures"]] == ["slice1.jpg", "slice3.jpg"]
    assert written(done).name.startswith("series_2-gradient-") and content["image"] == str(series)
    (series / "slice3.jpg").write_bytes((series / "slice0.jpg").read_bytes())
    again = run(*arguments, "--n_slices", "2", "--out", str(tmp_path))
    assert written(again) != written(done)  # the name tells other pictures apart


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.png", "--prior", "nowhere.png"], "nowhere.png: file not found"),
        (["a.png", "--prior", "a.png", "--clinical", "true"], "--clinical is of one picture: leave out --prior"),
        (["a.png", "--slices", "series"], "unexpected argument 'a.png'"),
        (["--slices", "nowhere"], "--slices nowhere: no such folder"),
        (["--slices", "series"], "no slice: it holds no DICOM, PNG or JPEG file"),
        (["--slices", "series", "--n_slices", "0"], "--n_slices must be at least 1, got 0"),
        (["--slices", "series", "--prior", "a.png"], "--prior and --slices exclude each other"),
    ],
)
def test_pictures_that_cannot_be_explained_together_are_refused(
    arguments: list[str], expected: str, tmp_path: Path, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.linear_gradient("L").resize((64, 64)).save("a.png")
    Path("series").mkdir()
    assert expected in error_line(run("explain", *arguments, "--question", "Is there a nodule?", "--out", "out"))


def test_explain_a_keyword(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    arguments = ("explain", str(picture), "--question", "Is there a nodule?", "--out", str(tmp_path))
    done = run(*arguments)
    answer = json.loads(written(done).read_text())["generated"]
    done = run(*arguments, "--keyword", answer.upper())
    assert done.status == 0, done.stderr
    content = json.loads(written(done).read_text())
    assert content["target"]["kind"] == "tokens" and content["target"]["name"] == f"keyword:{answer.upper()}"


def test_explain_each_token(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[4]  # of an effusion, which takes two words
    arguments = ["explain", str(picture), "--question", "What findings are there?", "--out", str(tmp_path)]
    done = run(*arguments, "--target", "tokens")
    assert done.status == 0, done.stderr
    content = json.loads(written(done).read_text())
    maps = np.array(content["map"])
    assert maps.shape == (len(content["tokens"]), 12, 12) and content["scored"] == list(range(len(maps))) != [0]
    assert [list(np.unravel_index(one.argmax(), one.shape)) for one in maps] == content["strongest_cell"]
    with Image.open(written(done, "png")) as strip:
        assert strip.width > strip.height
    options = ("--method", "igos_pp", "--method_options", '{"iterations": 1, "path_steps": 1}')
    done = run(*arguments, "--target", "tokens", *options)
    optimized = json.loads(written(done).read_text())
    assert optimized["tokens"] == content["tokens"]  # which iGOS++ has a name like it for
    assert len(optimized["loss_history"]) == len(maps) and len(optimized["deletion_mask"]) == len(maps)
    done = run(*arguments, "--target", "tokens", "--evaluate", "true")
    assert done.status == 2 and "--target tokens gives many maps" in done.stderr


def test_explain_writes_a_clinical_page(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    with Image.open(picture) as original:
        mask = Image.new("L", original.size, 0)
    mask.paste(255, (0, 0, mask.width // 2, mask.height))
    (tmp_path / "masks" / "right half").mkdir(parents=True)
    mask.save(tmp_path / "masks" / "right half" / f"{picture.stem}.png")
    arguments = ["--question", "Is there a nodule?", "--out", str(tmp_path), "--clinical", "true", "--steps", "6"]
    more = ["--paraphrases", '["Is a nodule present?"]', "--masks", str(tmp_path / "masks")]
    done = run("explain", str(picture), *arguments, *more)
    assert done.status == 0, done.stderr
    content = json.loads(written(done, "-clinical.json").read_text())
    assert content["faithfulness"]["status"] and set(content["agreement"]) >= {"attention", "gradient"}
    assert content["model"]["parameters"] > 1_000_000 and len(content["model"]["weights"]) == 32
    assert content["paraphrases"][0] in ("yes", "no")
    named = {"name": picture.name, "sha256": hashlib.sha256(picture.read_bytes()).hexdigest()}
    assert content["picture"] == named | {"sop_instance": None, "study_date": None}
    assert content["no_evidence"] is None and not Path(content["model"]["source"]).is_absolute()
    share = content["evidence"]["organs"]["right half"]
    assert content["evidence"]["caveat"].endswith("By fractions: lungs, heart, mediastinum.")
    assert content["flags"][0].startswith("The bundled model knows drawn phantoms only") and "note " in done.stdout
    assert share == pytest.approx(content["evidence"]["sides"]["patient_right"], abs=1e-6)
    sheet = written(done, "-clinical.pdf").read_bytes()
    assert sheet.startswith(b"%PDF") and len(re.findall(rb"/Type */Page\b", sheet)) == 1
    page = written(done, "-clinical.html").read_text()
    assert "not for diagnosis" in page and "Is there a nodule?" in page and "not for diagnosis" in done.stdout


def test_explain_says_what_its_p_can_be(tmp_path: Path, run: Callable[..., Done]) -> None:
    picture = sorted((bundled_manifest().parent / "images").iterdir())[0]
    arguments = ["--question", "Is there a nodule?", "--out", str(tmp_path), "--evaluate", "true", "--steps", "2"]
    done = run("explain", str(picture), *arguments)
    assert done.status == 0, done.stderr
    content = json.loads(written(done).read_text())["evaluation"]
    assert content["status"] == "ok" and content["random_p"] >= 1 / 21
    assert f"p           {content['random_p']:.3f} (the least that 20 random orders can give is 0.048)" in done.stdout
    assert done.stdout.count(f"{content['srg']:+.3f}") == 1


def test_calibration_must_be_the_models_own(tmp_path: Path) -> None:
    RecordWriter(tmp_path, rank=0, start=0).write(make_rows())
    known = {"source": "bundled", "hash": model_identity(ModelConfig())["hash"], "revision": ""}
    (tmp_path / "provenance.json").write_text(json.dumps({"model": known}))
    found = calibration_of(tmp_path, str(bundled_model()))
    assert (found.n, found.confidence_range) == (39, (0.9, 0.9))
    (tmp_path / "provenance.json").write_text(json.dumps({"model": known | {"source": "other", "hash": "x"}}))
    with pytest.raises(ValueError, match=r"a run of another model \(other\)"):
        calibration_of(tmp_path, str(bundled_model()))


def test_report_says_first_what_is_wrong_and_fills_no_lines(tmp_path: Path, run: Callable[..., Done]) -> None:
    rows = [row for row in make_rows() if row["status"] in ("degenerate", "inverted")]
    RecordWriter(tmp_path, rank=0, start=0).write(rows)
    done = run("report", str(tmp_path))
    assert done.status == 0, done.stderr
    assert "note         No sample is ok under any substrate" in done.stdout and "srg" in done.stdout
    assert [line for line in done.stdout.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (None, [], "missing.png"),
        ("folder", [], "missing.png: is a folder, not a picture"),
        ("picture", ["--calibration", "/nowhere"], "--calibration /nowhere: no run directory"),
        (b"\xff\xd8\xff\xe0 no jpeg", [], "missing.png"),
        ("constant", [], "missing.png: the picture is constant"),
        ("picture", ["--method", "oracle"], "needs a finding mask"),
        ("picture", ["--target", "7x"], "target must be"),
        ("picture", ["--modle", "x"], "did you mean --model?"),
        ("picture", ["--method", "cheffer"], "--method: no method 'cheffer'; did you mean chefer?"),
        ("picture", ["--keyword", "nodule", "--target", "0"], "--keyword and --target exclude each other"),
        ("picture", ["--keyword", "scoliosis"], "the keyword 'scoliosis' is not in the answer"),
    ],
)
def test_explain_errors_are_one_line(
    content: bytes | str | None, arguments: list[str], expected: str, tmp_path: Path, run: Callable[..., Done]
) -> None:
    file = tmp_path / "missing.png"
    if content == "picture":
        Image.linear_gradient("L").resize((64, 64)).save(file)
    elif content == "constant":
        Image.new("L", (64, 64), 90).save(file)
    elif content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    done = run("explain", str(file), "--question", "Is there a nodule?", "--out", str(tmp_path), *arguments)
    assert expected in error_line(done)


def test_lightning_says_nothing_about_itself() -> None:
    """Its first import would set the levels of its loggers again."""
    code = (
        "from cxr_faith.cli.startup import quiet_lightning; quiet_lightning()\n"
        "import lightning.pytorch as L; L.Trainer(accelerator='cpu', logger=False, max_steps=0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
