"""What a run takes from its Trainer's device: the number format in its identity, and pinned memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.run.evaluate import RunOptions, check
from cxr_faith.run.identity import Identity, RunDirectoryError, check_run_dir
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.run.provenance import write_provenance


def test_a_run_of_a_cpu_is_not_resumed_on_a_gpu_in_another_number_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer's device counts: a run on the CPU of a machine with a GPU is a run in float32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    module, data = FaithfulnessModule({"chefer": {}}), CXRVQADataModule("bundled")
    trainer = L.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    on_cpu = check(module, data, trainer, RunOptions(tmp_path))
    on_gpu = Identity.of(module, data, torch.device("cuda", 1))
    assert (on_cpu.model["dtype"], on_gpu.model["dtype"]) == ("float32", "bfloat16")
    monkeypatch.undo()
    write_provenance(tmp_path, module, data, on_cpu, 1)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "part.parquet").touch()
    with pytest.raises(RunDirectoryError, match="belongs to a run with other model"):
        check_run_dir(tmp_path, on_gpu)


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_memory_is_pinned_for_a_trainer_on_a_gpu_alone(
    device: str, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data, options = CXRVQADataModule("bundled"), dict[str, Any]()
    data.image_size = (216, 216)
    monkeypatch.setattr("cxr_faith.data.module.SampleLoader", lambda *args, **kwargs: options.update(kwargs))
    data.loader()
    assert options["pin_memory"] is False
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), default_root_dir=".")
    data.trainer = trainer
    data.loader()
    assert options["pin_memory"] is pinned
