"""Files of explanations: each explanation keeps its own, and the same command writes the same ones."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cxr_faith.__main__ import main
from cxr_faith.data.manifest import bundled_manifest
from cxr_faith.explainer.naming import result_stem
from cxr_faith.explainer.options import ExplainOptions

PICTURES = sorted((bundled_manifest().parent / "images").iterdir())
ASKED = ExplainOptions("Is there a nodule?")
OTHERS = {
    "question": replace(ASKED, question="Is there a nodule"),
    "long question": replace(ASKED, question="Is there a nodule? " * 500),
    "slash": replace(ASKED, question="../../Is there a nodule/mass?"),
    "method": replace(ASKED, method="attention"),
    "methods": replace(ASKED, methods="chefer,attention"),
    "kind": replace(ASKED, kind="open"),
    "window": replace(ASKED, window="600,1200"),
    "format": replace(ASKED, format="pdf"),
    "film": replace(ASKED, film=True),
    "options": replace(ASKED, method_options={"layers": "deep"}),
    "model": replace(ASKED, model="google/medgemma-4b-it"),
    "target": replace(ASKED, target="tokens"),
    "keyword": replace(ASKED, keyword="nodule"),
    "scores": replace(ASKED, evaluate=True),
    "substrate": replace(ASKED, evaluate=True, substrate="mean"),
    "steps": replace(ASKED, evaluate=True, steps=9),
    "clinical": replace(ASKED, clinical=True),
    "study_date": replace(ASKED, clinical=True, study_date=True),
    "masks": replace(ASKED, clinical=True, masks="masks"),
    "paraphrases": replace(ASKED, clinical=True, paraphrases=("Can a nodule be seen?",)),
}


def stem(picture: Path, options: ExplainOptions) -> str:
    return result_stem(str(picture), options.method, asdict(options))


def test_whatever_differs_gives_another_name(tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("a/view1_frontal.jpg", "b/view1_frontal.jpg", "a/View1_Frontal.JPG")]
    for picture, original in zip(pictures, PICTURES, strict=False):
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(original.read_bytes())
    names = [stem(picture, ASKED) for picture in pictures]
    names += [stem(pictures[0], options) for options in OTHERS.values()]
    assert len({name.lower() for name in names}) == len(names)
    assert all(name.lower().startswith("view1_frontal-") for name in names)
    before = names[0]
    assert stem(pictures[0], ASKED) == before  # the same command, the same name
    pictures[0].write_bytes(PICTURES[5].read_bytes())
    assert stem(pictures[0], ASKED) != before


def test_the_hash_is_long_enough_for_a_large_archive() -> None:
    """64 bits: among a million explanations, two share a name with a chance of one in 10 million."""
    assert len(stem(PICTURES[0], ASKED).rsplit("-", 1)[1]) == 16


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("a[red].png", "a_red_-chefer-"),
        ("x" * 240 + ".png", "x" * 80 + "-chefer-"),
        ("胸" * 80 + ".png", "胸" * 26 + "-chefer-"),
        ("..\x1b[31m\n.png", "____31m_-chefer-"),
        (".hidden.png", "_hidden-chefer-"),
        (b"\xff.png".decode(errors="surrogateescape"), "_-chefer-"),
    ],
)
def test_any_file_name_gives_a_name_that_every_file_system_takes(name: str, begin: str, tmp_path: Path) -> None:
    picture = tmp_path / name
    picture.write_bytes(b"picture")
    made = stem(picture, ASKED)
    assert made.startswith(begin) and len(made.encode()) < 120


def test_two_pictures_of_one_name_are_both_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for patient, original in zip(("patient1", "patient2"), PICTURES, strict=False):
        picture = tmp_path / patient / "view1_frontal.jpg"
        picture.parent.mkdir()
        picture.write_bytes(original.read_bytes())
        words = [str(picture), "--question", "Is there a nodule?", "--method", "attention", "--out", str(out)]
        assert main(["explain", *words]) == 0
    files = {file.name: file.read_bytes() for file in out.iterdir()}
    assert len(files) == 4
    assert {Path(json.loads(file.read_text())["image"]).parent.name for file in out.glob("*.json")} == {
        "patient1",
        "patient2",
    }
    assert main(["explain", *words]) == 0  # again
    assert {file.name: file.read_bytes() for file in out.iterdir()} == files
    capfd.readouterr()
    assert main(["explain", *words[:-1], str(picture)]) == 2
    assert capfd.readouterr().err == f"cxr-faith: error: --out {picture}: it is a file, not a folder\n"
