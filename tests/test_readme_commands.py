"""Every command and example of the README: run where it needs no data of others and no hours, else as far as that goes.

Commands on others' data go as far as their settings (`--print_config`) or their folder; scripts that take minutes are
compiled here and run, in smaller form, by the tests of what they do.
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
from tests.synthetic import make_rows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [line.strip() for line in re.findall(r"(?m)^    (\S.*)$", README.replace("\\\n", " "))]
COMMANDS = [line.split(" #")[0] for line in LINES if line.startswith("cxr-faith ")]
INLINE = re.findall(r"`((?:cxr-faith|make|prepare|pip) [^`]+)`", README)
SCRIPTS = re.findall(r"`((?:python|pytest) [^`]+)`", README) + [line for line in LINES if line.startswith("sbatch ")]
EXAMPLES = re.findall(r"(?s)```python\n(.*?)```", README)
PICTURE = sorted((bundled_manifest().parent / "images").iterdir())[0]


def run(arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


def test_there_are_commands_to_run() -> None:
    found = {command.split()[1] for command in COMMANDS}
    assert found >= {"evaluate", "explain", "prepare", "doctor", "sanity"}, found


@pytest.mark.parametrize("command", COMMANDS)
def test_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    name, *rest = shlex.split(command)[1:]
    if name in ("evaluate", "doctor", "sanity"):  # on data that are not ours: everything but the run
        assert run([name, *rest, "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["model"]["methods"]
    elif name == "explain":
        assert run([name, str(PICTURE), *rest[1:], "--steps", "4", "--out", str(tmp_path)]) == 0
        printed = capsys.readouterr().out
        assert "answer" in printed and len(list(tmp_path.glob("*.png"))) == 1
    elif (name, rest[0]) == ("prepare", "check"):
        assert run([name, "check", str(bundled_manifest()), "--images", "3"]) == 0
    else:
        assert name == "prepare"
        root = rest[rest.index("--root") + 1]
        assert run([name, *rest]) == 2  # every option is known; only the data set is not there
        assert f"{root}: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", INLINE)
def test_inline_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, *rest = command.split()
    if name == "make":
        done = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    elif name == "pip":
        (extra,) = re.findall(r"\[(\w+)\]", command)
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    elif name == "cxr-faith" and rest[0] == "report":  # run by the test of a run's figures
        assert rest == ["report", "runs/demo"]
    else:
        words = rest if name == "cxr-faith" else [name, *rest]
        options = [word for word in words if word.startswith("--")]
        assert run([words[0], "phantom" if words[1:2] == ["SOURCE"] else "--help", "--help"]) == 0
        printed = capsys.readouterr().out
        assert all(option in printed for option in options), options


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_script_or_module_is_there_and_can_be_read(command: str) -> None:
    words = [word for word in shlex.split(command) if word != "-s"]
    path = f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1]
    text = (ROOT / path).read_text(encoding="utf-8")
    if words[0] == "sbatch":
        assert subprocess.run(["bash", "-n", path], cwd=ROOT, timeout=60).returncode == 0
        assert (ROOT / words[2]).is_file() and "#SBATCH" in text
    else:
        compile(text, path, "exec")
        assert words[0] == "pytest" or '__name__ == "__main__"' in text


def test_the_figures_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [code for code in EXAMPLES if "run_figures" in code]
    RecordWriter(tmp_path / "runs" / "demo", rank=0, start=0).write(make_rows())
    monkeypatch.chdir(tmp_path)
    assert run(["report", "runs/demo"]) == 0
    exec(example, {})
    assert {"curves.pdf", "forest.pdf", "forest_findings.pdf"} <= {path.name for path in tmp_path.iterdir()}


def test_make_lists_the_two_commands() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert {command for command in re.findall(r"\bmake ([a-z-]+)", README)} <= listed


def test_the_library_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    (example,) = [code for code in EXAMPLES if "from_pretrained" in code]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chest.png").write_bytes(PICTURE.read_bytes())
    exec(example.replace("steps=50", "steps=4"), {"cxr_faith": cxr_faith})
    assert "(12, 12)" in capsys.readouterr().out and (tmp_path / "overlay.png").stat().st_size > 10_000


def test_the_records_load_with_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"(?m)^    import pandas as pd\n(?:    .*\n)+", README)
    assert found is not None
    RecordWriter(tmp_path / "runs" / "demo", rank=0, start=0).write(make_rows())
    monkeypatch.chdir(tmp_path)
    lines = [line.strip() for line in found[0].splitlines()]
    scope: dict[str, object] = {}
    exec("\n".join([*lines[:-1], f"means = {lines[-1]}"]), scope)
    assert scope["means"].loc["chefer", "gap_srg_center"] > 0
