"""Every command and example of the documents: run if it needs no data of others and no hours, else as far as possible.

Commands on others' data run up to their settings (`--print_config`) or their folder. Scripts that take minutes are
compiled here; the tests of what they do run them in smaller form.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import cxr_faith
from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.records import RecordWriter
from tests.docs.documents import ROOT, blocks, command_lines, document, documents, inline_commands
from tests.synthetic import make_rows

TEXTS = documents()
LINES = sorted({line for text in TEXTS.values() for line in command_lines(text)})
COMMANDS = [line for line in LINES if line.startswith("cxr-faith ")]
INLINE = sorted({command for text in TEXTS.values() for command in inline_commands(text)})
SCRIPTS = [line for line in (*LINES, *INLINE) if line.startswith(("python ", "pytest ", "sbatch "))]
EXAMPLES = [code for text in TEXTS.values() for code in blocks(text, "python")]
PICTURE = sorted((bundled_manifest().parent / "images").iterdir())[0]


def run(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_there_are_commands_to_run() -> None:
    names = {command.split()[1] for command in COMMANDS}
    assert names >= {"evaluate", "explain", "prepare", "doctor", "sanity", "report", "fit-sae"}, names
    assert len(COMMANDS) > 12 and len(INLINE) > 20 and len(SCRIPTS) > 8


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    name, *rest = shlex.split(command)[1:]
    if name in ("evaluate", "plan", "doctor", "sanity"):  # on data that are not ours: everything but the run
        assert run([name, *rest, *(["--print_config"] if "--print_config" not in rest else [])]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["model"]["methods"]
    elif name == "explain":
        words = shlex.split(command.replace("--model google/medgemma-4b-it", "--model bundled"))[3:]
        assert run([name, str(PICTURE), *words, "--steps", "4", "--out", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert "answer" in printed and len(list(tmp_path.glob("*.png"))) == 1
    elif name == "report":
        monkeypatch.chdir(tmp_path)
        RecordWriter(tmp_path / rest[0], rank=0, start=0).write(make_rows())
        assert run([name, *rest]) == 0
        assert (tmp_path / rest[0] / "report" / "index.html").is_file()
    elif name == "compare":
        monkeypatch.chdir(tmp_path)
        for folder in rest[: rest.index("--out")]:
            RecordWriter(tmp_path / folder, rank=0, start=0).write(make_rows(16))
        assert run([name, *rest]) == 0
        assert (tmp_path / rest[-1] / "index.html").is_file()
    elif name in ("view", "app", "fit-sae", "export", "dossier"):  # they serve, train, or need films or runs
        options_exist(name, rest, capsys)
    elif (name, rest[0]) == ("prepare", "check"):
        assert run([name, "check", str(bundled_manifest()), "--images", "3"]) == 0
    elif (name, rest[0]) == ("prepare", "planted"):
        assert run([name, *rest]) == 2  # every option is known; only the manifest is not there
        assert f"{rest[1]}: manifest not found" in capsys.readouterr().err
    else:
        assert name == "prepare"
        root = rest[rest.index("--root") + 1]
        assert run([name, *rest]) == 2  # every option is known; only the data set is not there
        assert re.search(rf"({re.escape(root)}|questions\.csv): no such f", capsys.readouterr().err)


def options_exist(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The help of a command (of a source of `prepare`) names every option that is given."""
    assert (
        run(
            [
                name,
                *(["phantom"] if words[:1] in (["SOURCE"], ["NAME"]) else words[:1] if name == "prepare" else []),
                "--help",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    options = [word for word in words if word.startswith("--")]
    assert all(option in printed for option in options), options


@pytest.mark.parametrize("command", INLINE, ids=str)
def test_inline_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = shlex.split(command)
    if name == "make":
        done = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    elif name == "pip":
        (extra,) = re.findall(r"\[([\w-]+)\]", command)
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    elif name == "prepare":
        options_exist(name, rest, capsys)
    elif name == "cxr-faith" and rest[0] != "report":  # that one is run by the test of a run's figures
        options_exist(rest[0], rest[1:], capsys)
    else:
        runs = (["runs/demo"], ["runs/mimic"], ["runs/mimic", "--methods", "chefer,rollout"])
        assert command in SCRIPTS or rest[1:] in runs


@pytest.mark.parametrize("command", SCRIPTS, ids=str)
def test_a_script_or_module_is_there_and_can_be_read(command: str) -> None:
    words = [word for word in shlex.split(command) if word != "-s"]
    (script,) = [word for word in words if word.endswith((".py", ".sh"))] or [f"{words[2].replace('.', '/')}.py"]
    text = (ROOT / script).read_text(encoding="utf-8")
    if words[0] == "sbatch":
        assert subprocess.run(["bash", "-n", script], cwd=ROOT, timeout=60).returncode == 0
        config = words[words.index(script) + 1]
        assert (config == "CONFIG" or (ROOT / config).is_file()) and "#SBATCH" in text
    else:
        compile(text, script, "exec")
        assert words[0] == "pytest" or '__name__ == "__main__"' in text


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_make_lists_the_targets_that_are_named(name: str) -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert set(re.findall(r"\bmake ([a-z-]+)(?=`|  )", document(name))) <= listed


def test_every_example_is_run_by_a_test() -> None:
    run_here = (
        "cxr_faith.compare",
        "from_pretrained",
        "picture_effects",
        "run_figures",
        "read_parquet",
        "load_run",
        "(Method)",
        "Iterator[Sample]",
    )
    assert len(EXAMPLES) >= 6 and all(any(word in code for word in run_here) for code in EXAMPLES)


def test_the_figures_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [code for code in EXAMPLES if "run_figures" in code]
    RecordWriter(tmp_path / "runs" / "demo", rank=0, start=0).write(make_rows())
    monkeypatch.chdir(tmp_path)
    assert run(["report", "runs/demo"]) == 0
    exec(example, {})
    assert {"curves.pdf", "forest.pdf", "forest_findings.pdf"} <= {path.name for path in tmp_path.iterdir()}


def test_the_library_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = {code for code in EXAMPLES if "from_pretrained" in code and "captum" not in code}
    assert len(examples) == 1, "the README's example and that of the page on the library are one"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chest.png").write_bytes(PICTURE.read_bytes())
    exec(examples.pop().replace("steps=50", "steps=4"), {"cxr_faith": cxr_faith})
    assert "(12, 12)" in capsys.readouterr().out and (tmp_path / "explanation.png").stat().st_size > 10_000
    (example,) = [code for code in EXAMPLES if "picture_effects" in code]
    (tmp_path / "older.png").write_bytes(PICTURE.with_name("p001-s0-i0.jpg").read_bytes())
    names = {"explainer": cxr_faith.Explainer.from_pretrained("bundled")}
    known = example.replace("Is the nodule larger than before?", "Is there a nodule?")  # phantoms have no history
    exec(known.replace("steps=50", "steps=2"), names)
    assert re.match(r"prior \(12, 12\) 0\.\d+\ncurrent \(12, 12\) 0\.\d+\n\[", capsys.readouterr().out)


def test_the_captum_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("captum", reason="development dependency captum")
    (example,) = [code for code in EXAMPLES if "captum" in code]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chest.png").write_bytes(PICTURE.read_bytes())
    exec(example, {})
    assert re.search(r"tensor\(\[\d", capsys.readouterr().out)


def test_the_records_load_with_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [code for code in EXAMPLES if "read_parquet" in code]
    RecordWriter(tmp_path / "runs" / "demo", rank=0, start=0).write(make_rows())
    monkeypatch.chdir(tmp_path)
    lines = example.strip().splitlines()
    scope: dict[str, object] = {}
    exec("\n".join([*lines[:-1], f"means = {lines[-1]}"]), scope)
    assert scope["means"].loc["chefer", "gap_srg_center"] > 0


def test_a_run_opens_as_data_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [code for code in EXAMPLES if "load_run" in code]
    RecordWriter(tmp_path / "runs" / "demo", rank=0, start=0).write(make_rows())
    monkeypatch.chdir(tmp_path)
    assert run(["report", "runs/demo"]) == 0
    capsys.readouterr()
    exec(example, {})
    printed = capsys.readouterr().out
    assert "srg_low" in printed and "chefer" in printed


def test_runs_are_compared_in_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [code for code in EXAMPLES if "cxr_faith.compare" in code]
    for name in ("medgemma", "gemma"):
        RecordWriter(tmp_path / "runs" / name, rank=0, start=0).write(make_rows(16))
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert "chefer 0.0" in capsys.readouterr().out


def test_the_readme_is_short_and_its_links_are_there() -> None:
    text = document("README.md")
    assert len(text.splitlines()) <= 220
    for name, page in TEXTS.items():
        folder = (ROOT / name).parent
        for link in re.findall(r"\]\(([^)#\s]+)", page):
            there = (folder / link).exists() or link.endswith(("one-picture.md", "changelog.md"))
            assert there or link.startswith("https://"), f"{name}: {link}"


def test_paths_that_are_named_exist() -> None:
    made = re.compile(r"^(runs|datasets|manifests|site|alerts|records|tensorboard|report)/")
    for name, page in TEXTS.items():
        for path in re.findall(r"`([\w.-]+(?:/[\w.-]+)+/?)`", page):
            known = any((base / path).exists() for base in (ROOT, ROOT / "cxr_faith", (ROOT / name).parent))
            assert known or made.match(path) or not re.search(r"\.\w+$|/$", path), f"{name}: {path}"
