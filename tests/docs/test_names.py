"""Pages name what is there: files and what is in them, methods, the order of the rooms."""

import re

from cxr_faith.attribution import METHODS
from cxr_faith.vlm.families import FAMILIES
from tests.docs.documents import ROOT, document, section

PAGE = document("docs/extending.md")


def test_names_are_in_the_files_that_are_named() -> None:
    named = re.findall(r"`(\w+)`,?\s+in\s+`(cxr_faith/[\w/]+\.py)`", PAGE)
    assert len(named) >= 12
    for name, file in named:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8")), f"{name} in {file}"


def test_every_method_is_in_the_table_and_in_the_api() -> None:
    table, api = document("docs/methods.md"), document("docs/api.md")
    for name, method in METHODS.items():
        assert re.search(rf"(?m)^\| .*`{name}`.* \|", table), name
        assert f"::: {method.__module__}.{method.__name__}\n    options:\n      heading: {name}\n" in api, name


def test_every_family_is_in_the_table() -> None:
    table = section(document("docs/checkpoints.md"), "Families")
    for name in FAMILIES:
        assert re.search(rf"(?m)^\| .*`{name}`.* \|", table), name


def test_the_order_of_the_rooms_is_the_same_everywhere() -> None:
    orders = [
        " ".join(document(name).split()).partition("Data goes one way: ")[2].partition(". ")[0]
        for name in ("README.md", "CONTRIBUTING.md", "docs/extending.md")
    ]
    assert len(set(orders)) == 1
    rooms = re.findall(r"[a-z]+", orders[0].replace("→", " "))
    checked = re.search(
        r"(?s)\nROOMS = \((.*?)\)", (ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8")
    )
    assert checked is not None and re.findall(r'"(\w+)"', checked[1]) == rooms
