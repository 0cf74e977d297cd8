"""Pictures and patients that two manifests share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.data.images import load_image
from cxr_faith.data.manifest import bundled_manifest, write_manifest
from cxr_faith.data.overlap import SAME_BITS, matches, patients, pictures_of, signs
from cxr_faith.data.sample import Sample
from tests.data.layouts import pixels


def sample(name: str, patient: str | None, split: str | None, source: str = "nih", path: str = "") -> Sample:
    return Sample(
        f"{source}/{name}",
        patient,
        image_id=name,
        image_path=path or f"{name}.png",
        question="Is it?",
        split=split,
        source=source,
    )


@pytest.fixture
def manifests(tmp_path: Path) -> tuple[Path, Path]:
    """Of the first three pictures the other manifest has one as it is and one as a smaller, brighter JPEG."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
    films = [load_image(path) for path in sorted((bundled_manifest().parent / "images").iterdir())[:4]]
    for number, film in enumerate(films[:3]):
        Image.fromarray(film).save(a / f"x{number}.png")
    (b / "y0.png").write_bytes((a / "x0.png").read_bytes())
    bright = np.clip(films[1] * 1.1 + 5, 0, 255).astype(np.uint8)
    smaller = Image.fromarray(bright).convert("L").resize((150, 140))
    smaller.save(b / "y1.jpg", quality=70)
    Image.fromarray(films[3]).save(b / "y2.png")
    (b / "y3.png").write_text("no picture")
    write_manifest([sample("x0", "1", "train"), sample("x1", "2", "train"), sample("x2", None, None)], a / "m.parquet")
    other = [
        sample("y0", "1", "test", "rsna"),
        sample("y1", "2", "test", path="y1.jpg"),
        sample("y2", "9", "test"),
        sample("y3", None, "test"),
    ]
    write_manifest(other, b / "m.parquet")
    return a / "m.parquet", b / "m.parquet"


def test_pictures_and_patients_of_both(manifests: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = (list(pictures_of(manifest)[1]) for manifest in manifests)
    same = matches(ours, theirs)
    assert [(match.image_id, match.other_id, match.same_file) for match in same] == [
        ("x0", "y0", True),
        ("x1", "y1", False),
    ]
    assert 0 <= same[1].bits <= SAME_BITS
    shared = patients(*manifests)
    assert shared.shared == ["nih/2"], "rsna/1 is another patient than nih/1"
    assert shared.two_splits == {"nih/2": ["test", "train"]}
    assert main(["prepare", "check", str(manifests[0]), "--against", str(manifests[1])]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "x0 y0 same file x1 y1 looks the same" in printed
    assert "pictures 2 of 3 are in both, 1 as the same file faults 1 pictures cannot be read" in printed
    assert "patients 1 in both, first nih/2 splits 1 patient in two splits, first nih/2 (test, train)" in printed


def test_a_check_names_patients_of_two_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(pixels(5)).save(tmp_path / "z.png")
    samples = [
        sample("z", "7", "test"),
        sample("y", "7", "train", path="z.png"),
        sample("x", "8", "train", path="z.png"),
    ]
    write_manifest(samples, tmp_path / "m.parquet")
    assert main(["prepare", "check", str(tmp_path / "m.parquet")]) == 0
    assert "splits 1 patient in two splits, first nih/7 (test, train)" in " ".join(capsys.readouterr().out.split())
    write_manifest(samples[1:], tmp_path / "n.parquet")
    assert main(["prepare", "check", str(tmp_path / "n.parquet")]) == 0
    assert "splits" not in capsys.readouterr().out


def test_manifests_that_share_nothing(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    Image.fromarray(pixels(5)).save(tmp_path / "c/z.png")
    write_manifest([sample("z", "7", "test")], tmp_path / "c/m.parquet")
    assert main(["prepare", "check", str(tmp_path / "c/m.parquet"), "--against", str(manifests[0])]) == 0
    assert main(["prepare", "check", str(manifests[0]), "--against", str(tmp_path / "gone")]) == 2


def test_different_films_differ_in_many_signs() -> None:
    films = [load_image(path) for path in sorted((bundled_manifest().parent / "images").iterdir())[:40]]
    hashes = np.stack([signs(film) for film in films]).astype(int)
    differing = (255 - hashes @ hashes.T) // 2
    slow = [[sum(a != b for a, b in zip(one, two, strict=True)) for two in hashes[:5]] for one in hashes[:5]]
    assert differing[:5, :5].tolist() == slow
    assert differing[~np.eye(len(films), dtype=bool)].min() > 2 * SAME_BITS
