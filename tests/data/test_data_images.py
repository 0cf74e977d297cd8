"""Reading JPEG, PNG and masks, and every way in which a file can be faulty."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr_faith.data.images import ImageError, load_image, load_mask

RNG = np.random.default_rng(1)
COLOR = RNG.integers(0, 256, (7, 11, 3), dtype=np.uint8)
GRAY = COLOR[..., 0]


def save(array: np.ndarray, path: Path, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_png_is_exact_and_height_comes_first(tmp_path: Path) -> None:
    image = load_image(save(COLOR, tmp_path / "a.png"))
    assert image.shape == (7, 11, 3) and image.dtype == np.uint8
    assert (image == COLOR).all()


def test_gray_becomes_three_equal_channels(tmp_path: Path) -> None:
    assert (load_image(save(GRAY, tmp_path / "a.png")) == GRAY[..., None]).all()


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(64, dtype=np.uint8)[:, None] * 4, (1, 48))
    image = load_image(save(smooth, tmp_path / "a.jpg", quality=95))
    assert image.shape == (64, 48, 3)
    assert np.abs(image[..., 0].astype(int) - smooth).max() <= 3


def test_sixteen_bit_png_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    values = np.array([[1000, 2000, 3000], [4000, 5000, 6100]], dtype=np.uint16)
    expected = np.rint((values - 1000.0) / 5100 * 255)
    assert (load_image(save(values, tmp_path / "a.png"))[..., 0] == expected).all()


@pytest.mark.parametrize("value", [np.uint16(40_000), np.uint8(255), np.zeros(3, np.uint8)])
def test_constant_pictures_are_refused(tmp_path: Path, value: np.generic) -> None:
    flat = np.broadcast_to(value, (2, 3, *np.shape(value)))
    assert "the picture is constant: every pixel is" in fault_of(save(flat.copy(), tmp_path / "flat.png"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "RGB"])
def test_every_png_mode(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(COLOR).convert(mode)
    picture.save(tmp_path / "a.png")
    assert (load_image(tmp_path / "a.png") == np.asarray(picture.convert("RGB"))).all()


def test_rotation_tag_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to look at it
    path = save(COLOR, tmp_path / "a.png", exif=exif)
    assert (load_image(path) == np.rot90(COLOR, -1)).all()


def test_path_is_relative_to_the_root(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    save(COLOR, tmp_path / "files" / "a.png")
    assert (load_image("files/a.png", tmp_path) == COLOR).all()
    assert (load_image("files/../files/a.png", tmp_path) == COLOR).all()


def fault_of(path: str | Path, root: Path | None = None, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(path, root, **options)
    message = str(caught.value)
    assert Path(path).name in message and "\n" not in message
    return message


def test_paths_outside_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    outside = save(COLOR, tmp_path / "outside.png")
    (root / "link.png").symlink_to(outside)
    (root / "linked").symlink_to(tmp_path)
    (tmp_path / "root2").mkdir()
    save(COLOR, tmp_path / "root2" / "b.png")
    for path in (
        "../outside.png",
        "sub/../../outside.png",
        str(outside),
        "link.png",
        "linked/outside.png",
        "../root2/b.png",
    ):
        assert "outside the data root" in fault_of(path, root)


def test_links_within_the_root_and_a_linked_root_are_fine(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    save(COLOR, root / "a.png")
    (root / "b.png").symlink_to("a.png")
    (tmp_path / "alias").symlink_to(root)
    assert (load_image("b.png", tmp_path / "alias") == COLOR).all()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "file not found" in fault_of("nowhere.png", tmp_path)
    assert "is not a file" in fault_of(tmp_path)


def test_unusable_paths(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in ("a" * 300 + ".png", "loop"):
        fault_of(path, tmp_path)
    with pytest.raises(ImageError):
        load_image("a\0.png", tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_truncated_file(tmp_path: Path, ending: str) -> None:
    noise = RNG.integers(0, 256, (200, 300), dtype=np.uint8)
    path = save(noise, tmp_path / f"cut.{ending}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in fault_of(path)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert "JPEG or PNG" in fault_of(path)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    assert "not an image (JPEG or PNG expected)" in fault_of(save(COLOR, tmp_path / "a.gif"))


def test_too_many_pixels_are_not_decoded(tmp_path: Path) -> None:
    path = save(GRAY, tmp_path / "a.png")
    assert "77 pixels are more than the 76 allowed" in fault_of(path, max_pixels=76)
    assert load_image(path, max_pixels=77).shape == (7, 11, 3)


@pytest.mark.parametrize("value", [1, 255])
def test_mask_is_everything_but_zero(tmp_path: Path, value: int) -> None:
    inside = GRAY > 128
    path = save(inside.astype(np.uint8) * value, tmp_path / "m.png")
    mask = load_mask("m.png", tmp_path)
    assert mask.dtype == bool and (mask == inside).all()
    Image.open(path).convert("RGBA").save(tmp_path / "rgba.png")  # opaque everywhere
    assert (load_mask(tmp_path / "rgba.png") == inside).all()


def test_mask_modes(tmp_path: Path) -> None:
    inside = GRAY > 128
    Image.fromarray(inside).save(tmp_path / "one_bit.png")
    palette = Image.fromarray(inside.astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 0, 0, 0])  # both entries black: the index counts, not the color
    palette.save(tmp_path / "palette.png")
    save(inside.astype(np.uint16) * 700, tmp_path / "sixteen.png")
    save(np.stack([0 * GRAY, 0 * GRAY, inside.astype(np.uint8)], axis=2), tmp_path / "blue.png")
    for name in ("one_bit", "palette", "sixteen", "blue"):
        assert (load_mask(tmp_path / f"{name}.png") == inside).all(), name


def test_mask_faults(tmp_path: Path) -> None:
    save(GRAY, tmp_path / "m.jpg")
    for path, fault in (("m.jpg", "PNG expected"), ("gone.png", "not found"), ("../m.png", "outside the data root")):
        with pytest.raises(ImageError, match=fault):
            load_mask(path, tmp_path)
