"""The package works where there is only its wheel: no repository, no make, an empty folder to start in."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SOURCES = "cxr_faith configs pyproject.toml setup.py MANIFEST.in README.md LICENSE CHANGELOG.md CITATION.cff".split()
SOURCES += ["constraints.txt"]
NOT_SOURCE = shutil.ignore_patterns("__pycache__", ".manifest_cache")


def files_below(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, so that no build leaves anything in the repository."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=NOT_SOURCE)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    build = f"from setuptools.build_meta import build_sdist; build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (archive,) = out.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds from the source distribution."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(out), str(sdist)]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = out.glob("*.whl")
    return archive


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin/ of a new virtual environment: the wheel, and the dependencies of this one but not its editable install.

    A path in a .pth file is searched, but the .pth files in it, such as an editable install's, are not read.
    """
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths))
    return folder / "bin"


def run(command: list[str | Path], cwd: Path) -> str:
    """Standard output of a command that must succeed, run without this process's Python paths."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SLURM"))}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_the_whole_package_and_the_configs(source: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {f"cxr_faith/{name}" for name in files_below(source / "cxr_faith")}
    configs = {f"cxr_faith/configs/{name}" for name in files_below(source / "configs")}
    assert names == package | configs
    assert "cxr_faith/configs/trainer/slurm.yaml" in configs
    for name in ("py.typed", "report/page.html.j2", "report/page.css", "report/page.js", "report/clinical.schema.json"):
        assert f"cxr_faith/{name}" in names
    assert "cxr_faith/vlm/bundled/model.safetensors" in names
    assert "cxr_faith/data/bundled/phantom/manifest.parquet" in names


def test_source_distribution_holds_what_the_package_is_built_from(source: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    built_from = {name for name in files_below(source) if ".egg-info/" not in name}
    assert built_from <= names


@pytest.fixture(scope="module")
def package(bare: Path) -> Path:
    """Folder of the installed package."""
    find = "import cxr_faith, pathlib; print(pathlib.Path(cxr_faith.__file__).parent)"
    folder = Path(run([bare / "python", "-c", find], bare).strip())
    assert bare.parent in folder.parents, "the package does not come from the wheel"
    return folder


def test_evaluate_by_the_name_of_a_shipped_config(bare: Path, tmp_path: Path) -> None:
    shorter = ["--model.protocol.steps=4", "--model.protocol.random_orders=2", "--model.methods={attention: {}}"]
    one_process = ["--trainer.devices=1", "--trainer.strategy=auto"]
    evaluate = [bare / "cxr-faith", "evaluate", "--config", "demo", "--limit", "2"]
    printed = run([*evaluate, *shorter, *one_process], tmp_path)
    assert "attention" in printed and "oracle" in printed
    summary = json.loads((tmp_path / "runs" / "demo" / "summary.json").read_text())
    assert {"attention", "random_map"} <= {row["method"] for row in summary["boards"][0]["rows"]}
    assert (tmp_path / "runs" / "demo" / "report" / "index.html").stat().st_size > 50_000
    assert files_below(tmp_path / "runs" / "demo" / "records")


def test_explain_the_bundled_picture(bare: Path, package: Path, tmp_path: Path) -> None:
    picture = package / "data" / "bundled" / "phantom" / "images" / "p000-s0-i0.jpg"
    printed = run([bare / "cxr-faith", "explain", picture, "--question", "Is there a nodule?"], tmp_path)
    assert "answer" in printed
    assert any(name.endswith(".png") for name in files_below(tmp_path))
