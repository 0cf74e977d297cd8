"""Models and pictures that several rooms' tests share.

This file imports no torch: pytest-xdist's controller and `pytest --help` load it too, and need none.
"""

import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from cxr_faith.vlm import Gemma3VLM

# One thread in each of pytest's processes: a run on a CPU would take all cores, and two such runs wait for each other.
# Set before torch is loaded, which reads it then.
os.environ["OMP_NUM_THREADS"] = "1"

# The garbage collector would go through all modules again and again while the tests are collected.
gc.disable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes, files that hold slow tests go first, so that no process waits long for the last file."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Collect garbage from here on, without what was imported, which stays."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def bundled() -> "Gemma3VLM":
    """The model that ships."""
    from cxr_faith.vlm import Gemma3VLM, bundled_model

    return Gemma3VLM.from_pretrained(bundled_model(), device="cpu")


@pytest.fixture(scope="session")
def random_vlm() -> "Gemma3VLM":
    """Another Gemma 3: random weights, 8x8 image tokens pooled from 16x16 patches, sliding windows that never bind."""
    from tests.random_model import random_gemma

    return random_gemma()


@pytest.fixture(scope="session")
def windowed_vlm() -> "Gemma3VLM":
    """The same with a sliding window of 12 tokens, far shorter than the sequence and than the image block."""
    from tests.random_model import random_gemma

    return random_gemma(sliding_window=12)


@pytest.fixture(scope="session", params=["bundled", "random", "windowed"])
def any_vlm(request) -> "Gemma3VLM":
    """Each of the three in turn."""
    return request.getfixturevalue({"random": "random_vlm", "windowed": "windowed_vlm"}.get(request.param, "bundled"))


@pytest.fixture(scope="session")
def random_sae(random_vlm, tmp_path_factory) -> str:
    """Folder of an untrained sparse autoencoder for the random model's last but one tower layer."""
    import torch

    from cxr_faith.attribution.sae_model import SAEConfig, TopKSAE, save_sae

    folder = tmp_path_factory.mktemp("random_sae")
    torch.manual_seed(0)
    sae = TopKSAE(width=32, features=48, k=5)
    sae.mean.normal_(std=0.1)
    sae.scale.fill_(1.5)
    sae.encoder_bias.data.normal_(std=0.1)
    save_sae(sae, SAEConfig(random_vlm.tower_identity(), layer=0, width=32, features=48, k=5), folder)
    return str(folder)


@pytest.fixture(scope="session")
def pictures() -> "Callable[..., torch.Tensor]":
    """`pictures(vlm, count, seed)`: smooth blobs on noise, pixel values [count, 3, H, W]; left and right differ."""
    import torch

    def make(vlm, count: int, seed: int = 0) -> torch.Tensor:
        height, width = vlm.image_size
        generator = torch.Generator().manual_seed(seed)
        rows = torch.linspace(0, 1, height)[None, :, None]
        columns = torch.linspace(0, 1, width)[None, None, :]
        at = torch.rand(count, 2, generator=generator)[:, :, None, None] * 0.6 + 0.2
        blob = (-((rows - at[:, 0]) ** 2 + (columns - at[:, 1]) ** 2) / 0.02).exp()
        noise = 0.4 * torch.randn(count, 3, height, width, generator=generator)
        return (1.5 * blob + 0.5 * columns - 0.8)[:, None] + noise

    return make
