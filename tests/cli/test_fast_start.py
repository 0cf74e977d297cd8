"""Help, a typo and a missing file come before the heavy libraries are loaded; what the help says is true."""

import inspect
import json
import os
import pydoc
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

import cxr_faith
from cxr_faith.attribution import METHODS
from cxr_faith.bench.compare import BenchOptions
from cxr_faith.checks.doctor import DoctorOptions
from cxr_faith.cli.evaluate import DESCRIPTION, read_run, run_command
from cxr_faith.cli.lightning_cli import EvaluateCLI
from cxr_faith.cli.signatures import description_of, options_of, registry
from cxr_faith.data.sources import SOURCES
from cxr_faith.explainer.options import ExplainOptions
from cxr_faith.planning.options import PlanOptions

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "lightning", "transformers", "torchmetrics", "matplotlib", "datasets"}
SECONDS = 2.0
# Runs the code that follows it on the command line, then prints which modules are loaded, as the last line.
LOADED = """
import sys
def run(code):
    try:
        exec(code, {})
    except SystemExit as stop:
        return stop.code
status = run(sys.argv.pop(1))
import json
print("\\n" + json.dumps([status, sorted({name.split(".")[0] for name in sys.modules})]))
"""
COMMAND = "import sys; from cxr_faith.__main__ import main; sys.exit(main())"


def loaded(code: str, *arguments: str) -> tuple[int, set[str], float]:
    """Exit status, loaded top-level modules, and seconds of processor time of a new process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-c", LOADED, code, *arguments]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    status, modules = json.loads(done.stdout.splitlines()[-1])
    return status or 0, set(modules), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        *(([command, "--help"], 0) for command in ("evaluate", "explain", "report", "prepare", "doctor", "sanity")),
        *(([command, "--help"], 0) for command in ("bench", "fit-sae", "plan", "view", "app", "dossier")),
        (["evaluate", "--help_trainer"], 0),
        (["prepare", "mimic-cxr-vqa", "--help"], 0),
        (["prepare", "check", "--help"], 0),
        (["evaluate", "--config", "demo", "--limt", "3"], 2),
        (["evaluate", "--config", "demo", "--model.protocol.step", "3"], 2),
        (["evaluate", "--config", "nowhere.yaml"], 2),
        (["evaluate", "--config", "demo", "--data.manifest", "nowhere.parquet"], 2),
        (["doctor", "--config", "demo", "--sample", "3"], 2),
        (["explain", "nowhere.png", "--question", "Is there a nodule?"], 2),
        (["explain", "README.md", "--question", "Is there a nodule?", "--method", "cheffer"], 2),
        (["report", "runs/nowhere"], 2),
        (["bench", "--presett", "tiny"], 2),
        (["fit-sae", "--config", "nowhere.yaml"], 2),
        (["prepare", "vindr"], 2),
        (["prepare", "check", "nowhere"], 2),
        (["evaluate", "--config", "demo", "--model.methods", "{chefr: {}}"], 2),
        (["evaluate", "--config", "demo", "--limit", "abc"], 2),
        (["evaluate", "--config", "demo", "--limit", "0"], 2),
        (["sanity", "--config", "demo", "--limit", "-1"], 2),
        (["doctor", "--config", "demo", "--limit", "0"], 2),
        (["plan", "--config", "demo", "--pilot", "runs/nowhere"], 2),
        (["view", "runs/nowhere"], 2),
        (["app", "--model", "nowhere"], 2),
        (["dossier", "runs/nowhere", "--out", "dossier.md"], 2),
        (["prepare", "phantom", "--root", "nowhere", "--out", "nowhere", "--limit", "0"], 2),
        (["prepare", "vindr-cxr", "--root", ".", "--out", "nowhere", "--limit", "-5"], 2),
        (["evaluate", "--config", "demo", "--run_dir", "README.md/run"], 2),
        (["evaluate", "--config", "demo", "--model.protocol.controls", "al"], 2),
        (["evaluate", "--config", "demo", "--shard", "abc"], 2),
        (["evaluate", "--config", "demo", "--model.vlm.dtype", "flaot"], 2),
        (["bench", "--preset", "nope"], 2),
        (["prepare", "vindr-cxr", "--root", "nowhere", "--out", "nowhere-out"], 2),
        (["prepare", "table", "--root", ".", "--file", "nowhere.csv", "--out", "nowhere-out"], 2),
        (["evaluate", "--config", "demo", "--model.vlm.path", "nowhere"], 2),
        (["evaluate", "--config", "demo", "--data.data_root", "nowhere"], 2),
        (["explain", "README.md", "--question", "Is there a nodule?", "--model", "nowhere"], 2),
        (["explain", "configs", "--question", "Is there a nodule?"], 2),
        (["explain", "README.md", "--question", "Is there a nodule?", "--calibration", "nowhere"], 2),
        (["fit-sae", "--config", "sae_bundled", "--model", "nowhere"], 2),
        (["report", "configs"], 2),
    ],
)
def test_nothing_heavy_is_loaded_before_the_arguments_are_checked(arguments: list[str], status: int) -> None:
    found, modules, seconds = loaded(COMMAND, *arguments)
    print(f"{seconds:.2f} s of processor time")
    assert found == status
    assert modules & HEAVY == set()
    assert seconds < SECONDS


def test_nothing_heavy_is_loaded_before_a_config_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    for wrong in ("methods: {chefr: {}}", "methods: {a: {class: chefr}}", "methods: {rise: {}}, micro_batch: many"):
        file.write_text(f"model: {{{wrong}}}\ndata: {{manifest: bundled}}\n")
        status, modules, seconds = loaded(COMMAND, "evaluate", "--config", str(file))
        assert (status, modules & HEAVY) == (2, set()), wrong
        assert seconds < SECONDS


def test_null_is_an_option_that_is_not_given() -> None:
    for word in ("null", "~"):
        options = (f"--{key}={word}" for key in ("shard", "limit", "data.data_root", "model.vlm.dtype"))
        assert read_run(run_command("evaluate", DESCRIPTION), ["--config", "demo", *options]).configs


def test_the_library_loads_what_it_uses() -> None:
    _, modules, seconds = loaded("from cxr_faith import Explainer")
    print(f"{seconds:.2f} s of processor time")
    assert modules & (HEAVY - {"torch", "transformers"}) == set()


def test_explain_loads_what_it_uses(tmp_path: Path) -> None:
    picture = sorted((ROOT / "cxr_faith/data/bundled").rglob("*.png"))[0]
    arguments = ["explain", str(picture), "--question", "Is there a nodule?", "--out", str(tmp_path)]
    status, modules, seconds = loaded(COMMAND, *arguments)
    print(f"{seconds:.2f} s of processor time")
    assert status == 0 and list(tmp_path.glob("*.json"))
    assert modules & {"lightning", "torchmetrics", "datasets"} == set()
    status, modules, _ = loaded(COMMAND, "explain", "README.md", *arguments[2:])  # no picture
    assert status == 2
    assert "torch" in modules and modules & {"matplotlib", "lightning", "torchmetrics", "datasets"} == set()
    status, modules, _ = loaded(COMMAND, *arguments, "--model", "configs")  # no model
    assert (status, modules & HEAVY) == (2, set())


def test_the_package_shows_what_a_user_needs() -> None:
    names = {"Explainer", "Explanation", "Scores", "METHODS", "bundled_model", "adapters", "load_run"}
    assert names <= set(cxr_faith.__all__) and set(dir(cxr_faith)) == set(cxr_faith.__all__)
    text = pydoc.plain(pydoc.render_doc(cxr_faith))
    assert "explainer.evaluate(explanation)" in text and all(name in text for name in names)
    for name in names:
        assert getattr(cxr_faith, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Explaner'"):
        _ = cxr_faith.Explaner


def test_options_are_those_of_the_typed_parser() -> None:
    files = ["--config", str(ROOT / "configs" / "demo.yaml"), "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    parser = EvaluateCLI(files, DoctorOptions).parser
    names = {name.removeprefix("--") for action in parser._actions for name in action.option_strings}
    command = run_command("doctor", "", "cxr_faith.checks.doctor:DoctorOptions")
    groups = {
        key[: key.index(".", start)] for key in command.options for start in range(len(key)) if key.find(".", start) > 0
    }
    ours = {*command.options, *groups, "-h", "help", "-c"}
    without_plus = {name for name in names if not name.endswith(("+", ".help")) and name != "print_shtab"}
    assert without_plus == ours - {"help_trainer"}


@pytest.mark.parametrize(
    ("place", "made"),
    [
        ("lightning.pytorch.trainer.trainer:Trainer", Trainer),
        ("cxr_faith.explainer.options:ExplainOptions", ExplainOptions),
        ("cxr_faith.bench.compare:BenchOptions", BenchOptions),
        ("cxr_faith.planning.options:PlanOptions", PlanOptions),
        *((place, SOURCES[name]) for name, place in registry("cxr_faith.data.sources", "SOURCES").items()),
    ],
)
def test_signatures_in_the_source_are_the_real_ones(place: str, made: type) -> None:
    real = {name: one for name, one in inspect.signature(made).parameters.items() if name not in ("tally", "self")}
    options = {option.key: option for option in options_of(place, skip=("tally",))}
    assert list(options) == list(real)
    for name, parameter in real.items():
        assert (options[name].default is None) == (parameter.default is inspect.Parameter.empty), name
        if isinstance(parameter.default, str | int | float) and parameter.default != "":
            assert options[name].default == str(parameter.default), name
        assert options[name].text, name


def test_methods_and_sources_are_the_registered_ones() -> None:
    methods = registry("cxr_faith.attribution", "METHODS")
    assert list(methods) == list(METHODS)
    for name, place in methods.items():
        assert description_of(place).split("\n")[0] == (METHODS[name].__doc__ or "").split("\n")[0]
    assert list(registry("cxr_faith.data.sources", "SOURCES")) == list(SOURCES)


def test_help_of_evaluate_shows_its_own_options_first() -> None:
    text = run_command("evaluate", DESCRIPTION).help()
    places = [text.index(part) for part in ("--run_dir", "--model.protocol.steps", "--data.manifest", "--monitor.")]
    assert places == sorted(places) and len(text.splitlines()) <= 140
    assert "--trainer.devices" not in text and "--help_trainer" in text
    assert "\n  --model.methods JSON" in text and "(required)\n" in text
    assert text.count("`") % 2 == 0, "no clause ends inside code"
    assert all(f"\n  {name} " in text for name in METHODS)
    assert "…" not in text.split("\nmethods, as in")[1], "no method's line is cut"
