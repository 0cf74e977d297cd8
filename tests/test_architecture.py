"""Imports between the rooms of the package go one way."""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cxr_faith.attribution import METHODS
from cxr_faith.attribution.baselines import CONTROLS as CONTROL_CLASSES
from cxr_faith.records import controls

PACKAGE = Path(__file__).parents[1] / "cxr_faith"

# A room may import itself and the rooms before it.
ROOMS = (
    "printable",
    "storage",
    "data",
    "vlm",
    "perturb",
    "attribution",
    "metrics",
    "records",
    "protocol",
    "cases",
    "uncertainty",
    "curves",
    "scoring",
    "summary",
    "report",
    "explainer",
    "adapters",
    "run",
    "checks",
    "bench",
    "planning",
    "app",
    "cli",
)
# Any room may import a leaf; a leaf imports no other room.
LEAF = "metrics"
# These stand before the house: they may import every room, and no room imports them.
FRONT = ("__init__", "__main__")


def imported_modules(file: Path, package: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in the file; `from a import b` gives `a.b`."""
    parents = (package.name, *file.relative_to(package).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            start = ".".join((*base, *(node.module or "").split("."))).strip(".")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def room_of(file: Path, package: Path) -> str:
    """First folder below the package, or the name of a module that lies there itself."""
    return file.relative_to(package).with_suffix("").parts[0]


def violations(package: Path) -> list[str]:
    """One line for every import that goes the wrong way."""
    wrong = []
    for file in sorted(package.rglob("*.py")):
        room = room_of(file, package)
        if room in FRONT:
            continue
        allowed = {LEAF} if room == LEAF else {LEAF, *ROOMS[: ROOMS.index(room) + 1]} if room in ROOMS else set()
        for module in imported_modules(file, package):
            top, _, rest = module.partition(".")
            if top == package.name and rest.split(".")[0] not in allowed:
                wrong.append(f"{file.relative_to(package)} imports {module}")
    return wrong


def test_imports_go_one_way() -> None:
    assert violations(PACKAGE) == []


HEAVY = {"rich", "matplotlib", "lightning", "torchmetrics", "transformers", "tensorboard"}


def test_numbers_need_no_heavy_library() -> None:
    """summary/ turns records into numbers: it neither draws, nor prints, nor runs a model, also not through others."""
    names = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in PACKAGE.glob("summary/*.py")]
    script = f"import sys, {', '.join(names)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert len(names) > 10 and {name.split(".")[0] for name in done.stdout.split()} & HEAVY == set()


def test_sizes() -> None:
    """A file holds one concept, and a function fits a screen; a function's docstring is not counted."""
    lines, large = [], []
    for file in sorted(PACKAGE.rglob("*.py")):
        source, name = file.read_text(encoding="utf-8"), file.relative_to(PACKAGE)
        lines.append(len(source.splitlines()))
        large += [f"{name}: {lines[-1]} lines"] * (lines[-1] > 300)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and length(node) > 150:
                large.append(f"{name}: class {node.name} has {length(node)} lines")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = length(node) - (length(node.body[0]) if ast.get_docstring(node) else 0)
                large += [f"{name}: {node.name} has {own} lines"] * (own > 50)
    assert large == []
    assert statistics.median(lines) <= 130


def length(node: ast.stmt) -> int:
    """Lines of a statement."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_one_definition_of_the_first_setting_and_of_the_controls() -> None:
    """Other modules import these names; nothing else lists the controls or sorts the settings."""
    home, registry = PACKAGE / "records" / "controls.py", PACKAGE / "attribution" / "__init__.py"
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        lists = [listed(node) for node in ast.walk(tree) if isinstance(node, ast.Tuple | ast.List | ast.Set)]
        named = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if file == home:
            assert {"is_control", "first_setting"} <= named
            assert set(controls.SETTING) in [set(texts) for texts in lists]
            continue
        assert not {"is_control", "first_setting"} & named, file
        for texts in lists if file != PACKAGE / "metrics" / "functional.py" else []:  # the names of the baselines
            assert len(set(controls.CONTROLS) & texts) < 2, f"{file}: a list of controls: {texts}"
            assert not texts or texts != set(controls.SETTING), f"{file}: a list of what names a setting"
        if file != registry:
            texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert not {controls.RANDOM_MAP, controls.EDGES, controls.ORACLE} <= texts, file
    registered = {name for name, method in METHODS.items() if issubclass(method, CONTROL_CLASSES)}
    assert registered | {controls.RANDOM} == set(controls.CONTROLS)
    assert all(controls.is_control(name) for name in (*controls.CONTROLS, "chefer/blurred"))


def listed(node: ast.Tuple | ast.List | ast.Set) -> set[str]:
    """The texts in a list of texts; empty for a list of anything else."""
    texts = {each.value for each in node.elts if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return texts if len(texts) == len(node.elts) else set()


def test_every_module_is_in_a_room() -> None:
    rooms = {room_of(file, PACKAGE) for file in PACKAGE.rglob("*.py")}
    assert rooms <= {*ROOMS, *FRONT}, "a new room needs a place in ROOMS"


def test_package_does_not_import_what_lies_outside_it() -> None:
    outside = {"tests", "training"} | {file.stem for file in (PACKAGE.parent / "training").glob("*.py")}
    tops = {m.split(".")[0] for file in PACKAGE.rglob("*.py") for m in imported_modules(file, PACKAGE)}
    assert tops & (outside - sys.stdlib_module_names) == set()


def test_functional_core_is_plain() -> None:
    for file in ("functional", "baselines", "running_sums"):
        modules = list(imported_modules(PACKAGE / "metrics" / f"{file}.py", PACKAGE))
        tops = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names)
        assert tops <= {"numpy", "torch", "cxr_faith"}
        own = [module for module in modules if module.startswith("cxr_faith.")]
        assert all(module.startswith("cxr_faith.metrics.functional.") for module in own), file


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/module.py", "from cxr_faith.vlm.base import VLM"),
        ("data/module.py", "from cxr_faith import vlm"),
        ("data/module.py", "from cxr_faith import Explainer"),
        ("data/sources/phantom.py", "from ...run import evaluate"),
        ("perturb/engine.py", "import cxr_faith.attribution.base"),
        ("metrics/curves.py", "from cxr_faith.data.sample import Sample"),
        ("report/html.py", "def draw():\n    from cxr_faith.run.evaluate import evaluate"),
        ("records/reader.py", "from ..report import html"),
        ("scoring.py", "from cxr_faith.explainer import Explainer"),
    ],
)
def test_wrong_direction_is_found(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / "cxr_faith" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert len(violations(tmp_path / "cxr_faith")) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("run/evaluate.py", "from cxr_faith.data.module import CXRVQADataModule"),
        ("data/sources/phantom.py", "from ..images import load_image"),
        ("vlm/families/gemma3.py", "from cxr_faith.metrics.functional import auc"),
        ("explainer/explanation.py", "from cxr_faith.report import figures"),
        ("records/reader.py", "import numpy as np"),
    ],
)
def test_right_direction_passes(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / "cxr_faith" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert violations(tmp_path / "cxr_faith") == []
