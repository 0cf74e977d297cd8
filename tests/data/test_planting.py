"""Planted pairs: what a copy differs by is the object, exactly where its mask is, in the film's own noise and scale."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxr_faith.__main__ import main
from cxr_faith.data.check import check_manifest
from cxr_faith.data.images import load_image, load_mask
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.planting.blend import blend
from cxr_faith.data.planting.film import WHITE, Film, PlantError, attenuated, sharpness
from cxr_faith.data.planting.films import spacing_of
from cxr_faith.data.planting.lungs import aerated, lungs_of
from cxr_faith.data.planting.objects import KINDS
from cxr_faith.data.planting.opacities import PlantedObject
from tests.data.layouts import write_csv, write_dicom

SIZE = (300, 280)
GRAIN = 3.0


def film_pixels(seed: int = 0, blur: float = 1.5) -> np.ndarray:
    """Two dark lungs in a brighter body, with ribs, blurred, and white noise of `GRAIN` levels."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] / np.array([[[SIZE[0]]], [[SIZE[1]]]])
    lungs = np.minimum(((x - 0.28) / 0.16) ** 2, ((x - 0.72) / 0.16) ** 2) + ((y - 0.43) / 0.28) ** 2 < 1
    shown = 190.0 - 90 * lungs + 25 * (np.sin(y * 25 + 2 * np.abs(x - 0.5)) > 0.6)
    noise = np.random.default_rng(seed).normal(0, GRAIN, SIZE)
    return np.clip(gaussian_filter(shown, blur) + noise, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def film() -> Film:
    pixels = film_pixels()
    return Film.from_pixels(pixels, None, aerated(pixels.astype(np.float32) / 255, lungs_of({}, SIZE)))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four films, of which one has a nodule, one is said to have none and one is in color."""
    root = tmp_path_factory.mktemp("films")
    for number in range(3):
        Image.fromarray(film_pixels(number)).save(root / f"f{number}.png")
    Image.fromarray(np.stack([film_pixels(3)] * 2 + [film_pixels(4)], 2)).save(root / "color.png")
    table = write_csv(
        root / "rows.csv",
        "image_path,image_id,question,answer,finding",
        "f0.png,f0,Is there a nodule?,yes,Nodule/Mass",
        "f1.png,f1,Is there a nodule?,no,nodule",
        "f2.png,f2,Is it normal?,yes,",
        "color.png,color,Is it normal?,yes,",
    )
    assert main(["prepare", "table", "--file", str(table), "--root", str(root), "--out", str(root / "rows")]) == 0
    assert main(["prepare", "planted", str(root / "rows"), "--out", str(root / "pairs"), "--per_image", "8"]) == 0
    return root / "pairs"


def test_a_copy_differs_from_its_film_inside_the_mask_alone(planted: Path) -> None:
    rows = list(open_manifest(planted))
    films = {row["pair_id"]: row for row in rows if not row["planted"]}
    copies = [row for row in rows if row["planted"]]
    assert {row["finding"] for row in copies} == set(KINDS) and len(copies) == 3 * len(films)
    for copy in copies:
        film = films[copy["pair_id"]]
        assert copy["question"] == film["question"] and copy["pair_path"] == film["image_path"]
        shown, original = (load_image(row["image_path"], planted).astype(int)[..., 0] for row in (copy, film))
        mask = load_mask(copy["finding_mask_path"], planted)
        differs = shown != original
        assert not differs[~mask].any() and differs[mask].mean() > 0.3, copy["sample_id"]
        assert (copy["answer"], copy["image_id"] != film["image_id"]) == (["yes"], True)
        assert copy["patient_id"] == film["patient_id"] == film["image_id"]


def test_films_are_kept_as_they_were_and_a_stronger_object_changes_more(planted: Path) -> None:
    rows = list(open_manifest(planted))
    for row in rows:
        if not row["planted"]:
            assert (
                load_image(row["image_path"], planted) == load_image(planted.parent / f"{row['image_id']}.png")
            ).all()
    for pair_id in {row["pair_id"] for row in rows}:
        copies = sorted((r for r in rows if r["pair_id"] == pair_id and r["planted"]), key=lambda row: row["contrast"])
        original = load_image(copies[0]["pair_path"], planted).astype(int)
        changes = [np.abs(load_image(row["image_path"], planted) - original).sum() for row in copies]
        assert [row["contrast"] for row in copies] == [0.5, 1.0, 2.0] and changes == sorted(changes), pair_id


def test_what_cannot_be_planted_is_counted_with_its_reason(planted: Path) -> None:
    """A film that has the finding already, or is in color; the reference is "no" only where a row says so."""
    card = json.loads((planted / "card.json").read_text())
    assert card["drops"] == {"object: the film has it, or may have it, already": 2, "image: the film is in color": 1}
    assert card["data_root"] == str(planted)
    references = {row["pair_id"]: row["answer"] for row in open_manifest(planted) if not row["planted"]}
    assert references["f1/nodule"] == ["no"] and references["f2/nodule"] is None
    assert not {"f0/nodule", "f0/mass"} & references.keys()


def test_a_film_alone_decides_what_is_planted_in_it(planted: Path, tmp_path: Path) -> None:
    """Neither the other films nor the other findings play a part; another seed does."""
    for name, more in (("again", ["--seed", "0"]), ("other", ["--seed", "1"])):
        arguments = ["--findings", "mass,line", "--contrast", "1", "--limit", "2", "--out", str(tmp_path / name)]
        assert main(["prepare", "planted", str(planted.parent / "rows"), *arguments, *more]) == 0

    def shown(folder: Path) -> dict[str, bytes]:
        rows = [row for row in open_manifest(folder) if row["planted"]]
        return {row["sample_id"]: load_mask(row["finding_mask_path"], folder).tobytes() for row in rows}

    first, again, other = shown(planted), shown(tmp_path / "again"), shown(tmp_path / "other")
    assert set(again) == {"f0/line/1", "f1/line/1", "f1/mass/1"} == set(other)
    assert all(again[name] == first[name] != other[name] for name in again)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small films with a question each, every other one answered with yes; one more has no yes/no question."""
    root, lines = tmp_path_factory.mktemp("asked"), []
    for number in range(12):
        Image.fromarray(film_pixels(number)).save(root / f"f{number}.png")
        lines.append(f"f{number}.png,f{number},Is there a nodule?,{'yes' if number % 2 else 'no'}")
    Image.fromarray(film_pixels(12)).save(root / "open.png")
    lines.append("open.png,open,What is there?,a rib")
    table = write_csv(root / "rows.csv", "image_path,image_id,question,answer", *lines)
    assert main(["prepare", "table", "--file", str(table), "--root", str(root), "--out", str(root / "rows")]) == 0
    return root


def test_films_keep_their_own_questions_and_a_marker_changes_no_answer(films: Path) -> None:
    words = ["--out", str(films / "pairs"), "--findings", "marker", "--contrast", "1,2", "--own_questions", "true"]
    assert main(["prepare", "planted", str(films / "rows"), *words]) == 0
    rows = list(open_manifest(films / "pairs"))
    given = {row["image_id"]: row for row in open_manifest(films / "rows")}
    assert len(rows) == 12 * 3
    for row in rows:
        own = given[row["image_id"].split("/")[0]]
        assert (row["question"], row["answer"]) == (own["question"], own["answer"])
        assert (row["finding"], row["planted"]) == ("marker", row["sample_id"].split("/")[-1] != "film")
        if row["planted"]:
            film, copy = (load_image(row[name], films / "pairs") for name in ("pair_path", "image_path"))
            mask = load_mask(row["finding_mask_path"], films / "pairs")
            assert (film != copy).any() and not (film != copy).any(axis=2)[~mask].any()
    drops = json.loads((films / "pairs" / "card.json").read_text())["drops"]
    assert drops == {"image: it has no yes/no question with a known answer": 1}


def test_a_training_set_has_the_object_where_the_answer_is_yes(films: Path) -> None:
    """Each question has one picture; the object is in every film with a yes and in none with a no, or by chance."""
    for share, out in (("1", "train"), ("0.5", "chance")):
        words = ["--out", str(films / out), "--findings", "marker", "--with_yes", share]
        assert main(["prepare", "planted", str(films / "rows"), *words]) == 0
    rows = list(open_manifest(films / "train"))
    assert [row["image_id"].split("/")[0] for row in rows] == [f"f{number}" for number in range(12)]
    assert all(row["planted"] == (row["answer"] == ["yes"]) for row in rows)
    assert len({row["contrast"] for row in rows if row["planted"]}) > 1
    chance = list(open_manifest(films / "chance"))
    marked = {answer: [row["planted"] for row in chance if row["answer"] == [answer]] for answer in ("yes", "no")}
    assert all(0 < sum(some) < 6 == len(some) for some in marked.values())


def test_a_pair_that_differs_outside_the_mask_is_a_fault(planted: Path, tmp_path: Path) -> None:
    """A picture that was stored with loss after it was planted cannot serve as a pair."""
    row = next(row for row in open_manifest(planted) if row["planted"] and row["finding"] == "nodule")
    file = planted / row["image_path"]
    content = file.read_bytes()
    with Image.open(file) as image:
        shifted = Image.fromarray(np.roll(np.asarray(image), 3, axis=0))
    shifted.save(file)
    try:
        faults = {fault.sample_id: fault.error for fault in check_manifest(planted, images=None)[1] if fault}
    finally:
        file.write_bytes(content)
    assert set(faults) == {row["sample_id"]}
    assert faults[row["sample_id"]].endswith("the pair differs from its picture outside of the object's mask")


def test_the_noise_is_the_film_s_own(film: Film) -> None:
    """It keeps its strength under a dense object, and new noise has the strength and the spectrum of the film's."""
    noise = film.noise((200, 200), np.random.default_rng(0))
    assert noise.std() * 255 == pytest.approx(GRAIN, rel=0.25)
    flat = np.random.default_rng(1).normal(110, GRAIN, SIZE).round().astype(np.uint8)
    density = np.zeros(SIZE, np.float32)
    density[60:200, 40:240] = 0.6  # without new noise, that of the film would be weaker by exp(-0.36)
    shown = blend(
        Film.from_pixels(flat, None, film.lungs), PlantedObject(density), 1.0, np.random.default_rng(0)
    ).pixels
    assert shown[80:180, 60:220].mean() > 180
    assert shown[80:180, 60:220].std() == pytest.approx(flat.std(), rel=0.12)


def test_the_sharpness_of_a_film_is_measured() -> None:
    for blur in (1.0, 2.0, 3.5):
        assert sharpness(film_pixels(blur=blur).astype(np.float32) / 255) == pytest.approx(blur, rel=0.35)


def test_attenuation_adds_up() -> None:
    """Two layers, one after the other, show what one layer of both densities shows; against a slow sum of thin ones."""
    gray, rng = np.float32(0.3), np.random.default_rng(0)
    first, second = rng.uniform(0.1, 0.9, 2).astype(np.float32)
    both = attenuated(attenuated(gray, first), second)
    thin = float(gray)
    for _ in range(100_000):
        thin += float(first + second) / 100_000 * (1 - thin / WHITE)
    assert both == pytest.approx(float(attenuated(gray, first + second)), abs=1e-6) == pytest.approx(thin, abs=1e-4)


@pytest.mark.parametrize("finding", KINDS)
def test_objects_lie_where_their_finding_does(finding: str, film: Film) -> None:
    lungs = film.lungs[0] | film.lungs[1]
    masks = [
        blend(film, KINDS[finding].draw(film, np.random.default_rng(s)), 1.0, np.random.default_rng(0)).mask
        for s in range(3)
    ]
    assert len({mask.tobytes() for mask in masks}) == 3
    for mask in masks:
        inside = (mask & lungs).sum() / mask.sum()
        if finding in ("nodule", "mass", "consolidation", "pneumothorax"):
            assert inside > 0.6
        if finding == "pleural effusion":
            rows = np.nonzero(mask)[0]
            assert rows.mean() > np.nonzero(lungs)[0].mean() + 20
        if finding == "marker":
            assert inside == 0


@pytest.mark.parametrize(("stated", "expected"), [("0.2\\0.3", 0.25), ("0\\0", None), (None, None)])
def test_the_pixel_spacing_of_a_header_is_read_and_zero_is_unknown(stated, expected, tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", 0)
    with pydicom.dcmread(tmp_path / "a.dcm") as dataset:
        if stated is not None:
            dataset.PixelSpacing = stated
        dataset.save_as(tmp_path / "b.dcm")
    assert spacing_of("b.dcm", tmp_path) == expected


def test_a_film_that_is_too_small_gets_no_object() -> None:
    with pytest.raises(PlantError, match="the film is too small"):
        Film.from_pixels(film_pixels()[:30], None, lungs_of({}, (30, SIZE[1])))
    with pytest.raises(PlantError, match="its lung masks show no lungs"):
        lungs_of({"left lung": np.zeros(SIZE, bool)}, SIZE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--findings", "fracture"], "--findings: 'fracture' cannot be planted; choose from nodule, mass,"),
        (["--contrast", "0,1"], "--contrast must be numbers above 0 and up to 10, got '0,1'"),
        (["--per_image", "0"], "--per_image must be at least 1, got 0"),
        (["--with_yes", "95"], "--with_yes is a share from 0 to 1, got 95"),
        (["--question", "Any?"], "--question must hold {a}, which stands for the object"),
    ],
)
def test_a_wrong_option_is_one_line(planted: Path, arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main(["prepare", "planted", str(planted.parent / "rows"), "--out", str(tmp_path / "o"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "o").exists()
