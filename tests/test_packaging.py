"""What makes the project installable: metadata, package data, pins, Makefile, checks before a commit and in CI."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import cxr_faith
from tests.test_architecture import imported_modules

ROOT = Path(__file__).parents[1]
# CUDA builds of torch bring these, each at the version that torch itself asks for.
BUILD_SPECIFIC = ("nvidia-", "cuda-", "triton")
# Absolute paths of somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:home|root|Users|work|mnt|scratch|media|opt|tmp)/\w")
TEXT_FILES = (".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".sh", ".j2", ".jinja", ".json", ".cfg")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all([s.operator for s in r.specifier] == ["=="] and r.url is None for r in requirements)
    return {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in requirements}


def project_files() -> list[Path]:
    """Files of the source tree, without what tools and runs leave in it."""
    left_out = re.compile(r"^(\..*(?<!\.ci)|__pycache__|.*\.egg-info|build|dist|site|runs|explanations)$")
    files = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not left_out.match(name)]
        files += [Path(folder) / name for name in names]
    return files


def package_data(pyproject: dict[str, Any]) -> set[Path]:
    """Files of the package that are not Python code and that the patterns put into a wheel."""
    package = ROOT / "cxr_faith"
    patterns = pyproject["tool"]["setuptools"]["package-data"]["cxr_faith"]
    return {file for pattern in patterns for file in package.glob(pattern) if file.is_file()}


def test_version_is_the_same_everywhere(pyproject: dict[str, Any]) -> None:
    assert cxr_faith.__version__ == pyproject["project"]["version"]
    assert distribution("cxr-faith").version == cxr_faith.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == cxr_faith.__version__
    assert citation["repository-code"] == pyproject["project"]["urls"]["Source"]


def test_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="cxr-faith")
    assert callable(command.load())


def test_files_named_by_the_metadata_exist(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    for name in (project["readme"], *project["license-files"]):
        assert (ROOT / name).stat().st_size > 0
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_pattern_of_package_data_finds_a_file(pyproject: dict[str, Any]) -> None:
    package = ROOT / "cxr_faith"
    for pattern in pyproject["tool"]["setuptools"]["package-data"]["cxr_faith"]:
        assert any(file.is_file() for file in package.glob(pattern)), pattern


def test_package_data_is_complete(pyproject: dict[str, Any]) -> None:
    package = ROOT / "cxr_faith"
    wanted = {file for file in project_files() if package in file.parents and file.suffix not in (".py", ".pyc")}
    assert wanted - package_data(pyproject) == set()
    names = {file.relative_to(package).as_posix() for file in wanted}
    assert {"vlm/bundled/model.safetensors", "data/bundled/phantom/manifest.parquet", "report/page.html.j2"} <= names


def test_every_dependency_is_pinned_within_its_range(pyproject: dict[str, Any], pins: dict[str, Version]) -> None:
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    for text in (*project["dependencies"], *extras["dev"], *extras["docs"]):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


MODULE_OF = {"pillow": "PIL", "scikit-image": "skimage", "pyyaml": "yaml", "python-docx": "docx"}
"""Packages whose module has another name."""


def test_what_the_package_imports_is_declared(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    texts = list(project["dependencies"])
    for extra in ("masks", "segment", "dicom-out", "app", "docx"):
        texts += extras[extra]
    names = {Requirement(text).name for text in texts}
    declared = {MODULE_OF.get(name, name.replace("-", "_")) for name in names}
    beside = {"torchcam", "quantus"}  # other tools, compared by `bench` where they are installed
    beside |= {"_typeshed"}  # known to type checkers only, and imported for them only
    for file in sorted((ROOT / "cxr_faith").rglob("*.py")):
        modules = {module.split(".")[0] for module in imported_modules(file, ROOT / "cxr_faith")}
        missing = modules - declared - beside - sys.stdlib_module_names - {"cxr_faith"}
        assert not missing, f"{file}: {', '.join(missing)} is not in pyproject.toml"


def test_pins_cover_what_dependencies_need_in_turn(pins: dict[str, Version]) -> None:
    missing, seen = set(), set()
    waiting = [Requirement("cxr-faith[dev,docs]")]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or name.startswith(BUILD_SPECIFIC):
            continue
        seen.add(key)
        if name != "cxr-faith" and name not in pins:
            missing.add(f"{name} {requirement.specifier}")
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        for text in installed.requires or []:
            needed = Requirement(text)
            extras = ["", *requirement.extras]
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    assert missing == set()
    assert len(seen) > 50


def test_make_help_lists_the_targets() -> None:
    command = ["make", "-C", str(ROOT), "--no-print-directory"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in result.stdout.splitlines()]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    targets = "help venv install install-dev demo methods greedy panel families gpu-check test test-fast test-cluster"
    targets += " test-versions test-gpu lint format notebook docs train clean"
    assert listed == phony[1].split() == targets.split()


def test_install_is_quiet_unless_pip_fails_and_the_demo_needs_no_test_tools(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/usr/bin/env bash\necho "pip got: $*"\nexit $STATUS\n')
    python.chmod(0o755)
    stamp = tmp_path / ".venv" / ".installed"

    def make(target: str, status: int) -> subprocess.CompletedProcess[str]:
        # A make that runs these tests would print its directories here too.
        environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
        environment["STATUS"] = str(status)
        return subprocess.run(["make", target], cwd=tmp_path, env=environment, capture_output=True, text=True)

    failed = make("install", 1)
    assert failed.returncode != 0 and "pip got: -m pip install" in failed.stdout and not stamp.exists()
    done = make("install", 0)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1 and "a few minutes" in done.stdout
    assert stamp.exists() and not stamp.with_name(".installed-dev").exists()
    log = stamp.with_name("pip.log").read_text(encoding="utf-8")
    assert "-e ." in log and "[dev" not in log and "-c constraints.txt" in log
    demo = subprocess.run(["make", "-n", "demo"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pip install" not in demo.stdout, "the demo needs more than `make install`"


def test_ci_runs_linters_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and "make lint" in text and "make test" in text


def test_the_workflow_runs_the_ci_script_on_the_oldest_python(pyproject: dict[str, Any]) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["check"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert pyproject["project"]["requires-python"] == f">={job['strategy']['matrix']['python'][0]}"


def test_pre_commit_uses_the_pinned_ruff(pins: dict[str, Version]) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    revisions = {repo["repo"].rsplit("/", 1)[-1]: repo.get("rev") for repo in config["repos"]}
    assert revisions["ruff-pre-commit"] == f"v{pins['ruff']}"
    hooks = {hook["id"] for repo in config["repos"] for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy"} <= hooks


def test_tests_named_by_the_documents_exist() -> None:
    defined = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    documents = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        name for document in documents for name in re.findall(r"`(test_\w+)`", document.read_text(encoding="utf-8"))
    }
    assert len(named) > 25 and named - defined == set()


def test_no_machine_paths() -> None:
    hits = []
    for file in project_files():
        if file.suffix in TEXT_FILES or file.name in ("Makefile", "run"):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if MACHINE_PATH.search(line):
                    hits.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert hits == []


def test_no_line_is_kept_from_the_formatter() -> None:
    switch = re.compile(r"#\s*fmt\s*:")
    kept = [file for file in project_files() if file.suffix == ".py" and switch.search(file.read_text("utf-8"))]
    assert kept == []


def test_pattern_of_machine_paths() -> None:
    assert MACHINE_PATH.search("root: /" + "home/ann/data") and MACHINE_PATH.search('"/' + 'scratch/x"')
    assert not MACHINE_PATH.search("configs/work/a.yaml and https://x.org/home/page")


def test_the_oldest_transformers_that_is_tested_is_the_oldest_that_is_allowed() -> None:
    stated = re.search(r'"transformers>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    tested = re.search(r"^TRANSFORMERS \?= ([0-9.]+) newest$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert stated is not None and tested is not None
    assert tested[1].removesuffix(".0") == stated[1]
