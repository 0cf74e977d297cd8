"""The device decides the number format and how exact arithmetic is; MPS is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxr_faith.bench import random_model
from cxr_faith.vlm import Gemma3VLM, bundled_model
from cxr_faith.vlm.devices import check_device, choose_accelerator, default_dtype
from cxr_faith.vlm.prefix_cache import cache_argument
from tests.random_model import random_gemma, random_processor
from tests.runs import ROOT, environment


@pytest.mark.parametrize("gpu", [True, False])
def test_auto_is_a_gpu_of_nvidia_or_the_cpu(monkeypatch, gpu):
    """Never MPS, which Lightning's own `auto` and `gpu` take on a Mac."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_accelerator() == ("cuda" if gpu else "cpu")
    assert [choose_accelerator(name) for name in ("cpu", "gpu", "cuda")] == ["cpu", "cuda", "cuda"]


def test_other_accelerators_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^trainer.accelerator: mps cannot compute in float64, .*: use cpu$"):
        choose_accelerator("mps")
    with pytest.raises(ValueError, match="must be auto, cpu, gpu or cuda, got 'tpu'"):
        choose_accelerator("tpu")
    with pytest.raises(ValueError, match="^device: mps cannot compute in float64"):
        Gemma3VLM.from_pretrained(bundled_model(), "mps")


def test_the_number_format_follows_the_device():
    assert {kind: default_dtype(torch.device(kind)) for kind in ("cpu", "cuda")} == {
        "cpu": "float32",
        "cuda": "bfloat16",
    }


def test_the_model_of_the_benchmark_computes_exactly_too(monkeypatch):
    devices = []
    monkeypatch.setattr(random_model, "exact_arithmetic", devices.append)
    random_model.random_vlm("small")
    assert devices == [torch.device("cpu")]


def test_the_cache_has_the_name_of_the_installed_transformers():
    """`past_key_values` is deprecated from 5.24 on, and `cache` unknown before."""

    class Newer(torch.nn.Module):
        def forward(self, inputs_embeds, cache=None): ...

    class Older(torch.nn.Module):
        def forward(self, inputs_embeds, past_key_values=None): ...

    assert cache_argument(Newer(), None) == {"cache": None} and cache_argument(Older(), None) == {
        "past_key_values": None
    }


def test_processes_of_tests_keep_the_path_that_chooses_a_version(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/versions/transformers")
    assert environment()["PYTHONPATH"].split(os.pathsep) == [str(ROOT), "/versions/transformers"]


SETTINGS = """
import torch
from cxr_faith.vlm.devices import exact_arithmetic

def settings():
    return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
            torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()]

torch.backends.cuda.matmul.allow_tf32 = True
exact_arithmetic(torch.device("cpu"))
print(*settings())
exact_arithmetic(torch.device("cuda"))
print(*settings())
"""


def test_on_a_gpu_float32_is_not_rounded_to_tf32_and_algorithms_are_deterministic():
    """In a process of its own: the settings are the process's."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", SETTINGS], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["True True False False", "False False True True"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_weights_stay_in_their_file(tmp_path):
    """In the checkpoint's own number format nothing is copied: the weights are pages of the file, which ranks share."""
    model, processor = random_gemma().model.to(torch.bfloat16), random_processor()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = Gemma3VLM.from_pretrained(tmp_path, "cpu", "bfloat16").model
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [line[0].split("-") for line in lines if line[-1].endswith("model.safetensors")]
    mapped = [range(*(int(end, 16) for end in ends)) for ends in ranges]
    assert all(any(weight.data_ptr() in addresses for addresses in mapped) for weight in loaded.parameters())


@pytest.mark.parametrize(
    ("named", "line"), [("gpu", "'gpu' names no device, such as cpu"), ("cuda:99", "no cuda:99: this computer has")]
)
def test_a_device_that_is_not_there_is_named(named: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        check_device(named)
    assert check_device("cpu") == torch.device("cpu")
