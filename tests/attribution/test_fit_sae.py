"""Training a sparse autoencoder: on vectors with known features, on a tower, and as a command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cxr_faith.__main__ import main
from cxr_faith.attribution.sae import SAE
from cxr_faith.attribution.sae_model import SAEConfig, SAEError, explained_variance, load_sae
from cxr_faith.attribution.sae_trainer import train_sae
from cxr_faith.attribution.sae_training import FitSaeOptions, collect, picture_source
from cxr_faith.vlm import Gemma3VLM

ROOT = Path(__file__).parents[2]


def options(folder: Path, images: str = "phantom:4") -> FitSaeOptions:
    return FitSaeOptions(images, 0, str(folder / "sae"), epochs=30, batch_size=128, log_dir=str(folder / "log"))


def test_known_features_are_found(tmp_path: Path) -> None:
    """Vectors made of two of 24 directions each, in 12 dimensions, and a mean that is not zero."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(24, 12, generator=generator), dim=1)
    chosen = torch.rand(4000, 24, generator=generator).topk(2, dim=1).indices
    strengths = torch.zeros(4000, 24).scatter(1, chosen, 1 + torch.rand(4000, 2, generator=generator))
    vectors = 5 * strengths @ directions + torch.arange(12.0)
    config = SAEConfig("tower", 0, 12, 48, 3)
    sae, measured = train_sae(vectors[:3600], vectors[3600:], config, options(tmp_path))
    made = sae.decode(sae.activations(vectors[3600:])).detach()
    assert measured["explained_variance"] == pytest.approx(explained_variance(vectors[3600:], made), abs=1e-3)
    assert measured["explained_variance"] > 0.85 and measured["l0"] <= 3 and 0 <= measured["dead_share"] < 0.5
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(48))
    nearest = (directions @ sae.decoder.T).amax(1)
    assert nearest.median() > 0.8  # random directions in 12 dimensions reach about 0.7
    assert list((tmp_path / "log").rglob("events*"))
    short = replace(options(tmp_path), epochs=2)
    first, again = (train_sae(vectors[:400], vectors[400:600], config, short)[0] for _ in range(2))
    assert torch.equal(again.encoder, first.encoder)


def test_a_bad_picture_is_left_out(random_vlm: Gemma3VLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(generator.integers(0, 255, (40, 40), np.uint8)).save(tmp_path / f"{index}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG")
    asked = replace(options(tmp_path, str(tmp_path)), patches_per_image=5)
    source = picture_source(asked)
    train, held_out = collect(random_vlm, source, asked)
    assert train.shape == held_out.shape == (5, 32)
    assert capsys.readouterr().out == f"left out    {tmp_path}/1.png: not an image (JPEG or PNG expected)\n"
    (tmp_path / "2.png").write_bytes(b"\x89PNG")
    with pytest.raises(SAEError, match="fewer than two of the pictures can be used"):
        collect(random_vlm, source, asked)


def test_vectors_are_the_towers(random_vlm: Gemma3VLM, tmp_path: Path) -> None:
    """Eleven pictures: the first and the eleventh are held out; patches are rows of the stream."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(11):
        Image.fromarray(generator.integers(0, 255, (40, 40), np.uint8)).save(folder / f"{index:02d}.png")
    (folder / "notes.txt").write_text("no picture")
    asked = replace(options(tmp_path, str(folder)), patches_per_image=5)
    source = picture_source(asked)
    assert isinstance(source, list) and [file.stem for file in source] == [f"{i:02d}" for i in range(11)]
    train, held_out = collect(random_vlm, source, asked)
    assert train.shape == (9 * 5, 32) and held_out.shape == (2 * 5, 32)
    everything = collect(random_vlm, source, replace(asked, patches_per_image=256))
    whole = {tuple(row) for row in everything[1].tolist()}
    assert len(whole) == 2 * 256 and {tuple(row) for row in held_out.tolist()} <= whole


def test_sources(tmp_path: Path) -> None:
    assert picture_source(options(tmp_path, "phantom:7")) == 7
    assert picture_source(replace(options(tmp_path, "phantom:7"), max_images=3)) == 3
    for images, message in (("phantom:x", "phantom:N"), ("phantom:1", "phantom:N"), (str(tmp_path), "holds 0 JPEG")):
        with pytest.raises(SAEError, match=message):
            picture_source(options(tmp_path, images))
    with pytest.raises(ValueError, match="must be positive"):
        replace(options(tmp_path), epochs=0)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], bundled: Gemma3VLM) -> None:
    out = tmp_path / "sae"
    arguments = ["--images", "phantom:4", "--epochs", "1", "--out", str(out), "--log_dir", str(tmp_path / "log")]
    assert main(["fit-sae", "--config", str(ROOT / "configs" / "sae_bundled.yaml"), *arguments]) == 0
    assert "explained" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["tower"] == bundled.tower_identity() and config["features"] == 512
    assert load_sae(out).k == config["k"] == 16
    SAE(str(out)).check(bundled)
    assert main(["fit-sae", "--images", str(tmp_path / "none"), "--layer", "1", "--out", str(out)]) == 2
    assert "holds 0 JPEG" in capsys.readouterr().err
    wrong = ["fit-sae", "--images", "phantom:2", "--layer", "9", "--out", str(out)]
    assert main(wrong) == 2
    assert "no vision tower layer 9: the tower has 4" in capsys.readouterr().err


def test_config_that_ships_is_what_shipped() -> None:
    """The options of the config are those of the autoencoder in the package."""
    written = yaml.safe_load((ROOT / "configs" / "sae_bundled.yaml").read_text())
    made = SAE().config
    assert (ROOT / written["out"]).samefile(SAE().path)
    assert (made.layer, made.features, made.k) == (written["layer"], written["features"], written["k"])
