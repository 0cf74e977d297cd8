"""slurm/Dockerfile and slurm/cxr_faith.def describe one image: the package, its pinned dependencies, no data."""

import re
import shlex
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "slurm" / "Dockerfile").read_text(encoding="utf-8")
DEFINITION = (ROOT / "slurm" / "cxr_faith.def").read_text(encoding="utf-8")


def instructions(name: str) -> list[str]:
    """Arguments of every Dockerfile instruction of this name."""
    return re.findall(rf"^{name} (.+)$", DOCKERFILE, re.MULTILINE)


def section(name: str) -> list[str]:
    """Lines of a section of the Apptainer definition, without comments."""
    body = re.search(rf"^%{name}\n((?:    .*\n|\n)+)", DEFINITION, re.MULTILINE)
    assert body is not None, name
    lines = [line.strip() for line in body[1].splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def copied() -> list[str]:
    """What the Dockerfile copies from the repository."""
    return [source for line in instructions("COPY") for source in line.split()[:-1]]


def test_everything_that_is_copied_exists() -> None:
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {"pyproject.toml", "setup.py", "constraints.txt", "configs", "cxr_faith"}
    assert set(copied()) == needed | {project["readme"], *project["license-files"]}


def test_both_images_have_the_same_pinned_base_and_the_same_content() -> None:
    (base,) = instructions("FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base), "pin the patch version and the Debian release"
    assert f"Bootstrap: docker\nFrom: {base}\n" in DEFINITION
    assert [line.split() for line in section("files")] == [[name, f"/source/{name}"] for name in copied()]


def test_both_images_install_with_the_same_command_and_the_tested_versions() -> None:
    (folder, _), (install, *_) = instructions("WORKDIR"), instructions("RUN")
    assert section("post") == [f"cd {folder}", install]
    assert shlex.split(install)[:2] == ["pip", "install"] and "-c constraints.txt" in install
    extras = re.findall(r"\.\[([\w,]+)\]", install)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras[0].split(",")) == set(project["optional-dependencies"]) & {"dicom", "masks"}


def test_both_images_run_the_command_and_docker_does_so_without_root() -> None:
    assert instructions("ENTRYPOINT") == ['["cxr-faith"]']
    assert section("runscript") == ['exec cxr-faith "$@"']
    (user,) = instructions("USER")
    assert user.isdecimal() and int(user) > 0
    assert DOCKERFILE.index("USER ") > DOCKERFILE.index("RUN useradd"), "nothing may run as root after that"


def test_the_slurm_script_runs_in_the_image() -> None:
    script = (ROOT / "slurm" / "eval.sh").read_text(encoding="utf-8")
    assert 'apptainer exec --nv "$CONTAINER"' in script and "slurm/cxr_faith.def" in script
    assert "CONTAINER=cxr_faith.sif sbatch slurm/eval.sh" in DEFINITION
    assert section("environment") == ["export PYTHONNOUSERSITE=1"], "Apptainer mounts the home folder"
