"""Memory runs out with a single picture: that costs the map, the substrate or the sample, and the run goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cxr_faith.cases import NO_MEMORY
from cxr_faith.data.items import SampleItem
from cxr_faith.data.sample import Sample
from cxr_faith.perturb.engine import Engine
from cxr_faith.protocol import Protocol
from cxr_faith.run.batch_sizes import FILE, BatchSizes, check_size
from cxr_faith.run.module import FaithfulnessModule
from cxr_faith.vlm.micro_batch import MicroBatch
from tests.analytic import LinearVLM

PROTOCOL = Protocol(steps=4, random_orders=2, substrates=("mean", "zero"), controls="none")
METHODS: dict[str, Any] = {"gradient": {}, "occlusion": {"window": 1, "substrate": "mean"}, "random_map": {}}


@pytest.fixture
def module() -> FaithfulnessModule:
    module = FaithfulnessModule(METHODS, protocol=PROTOCOL)
    module._engine = Engine(LinearVLM({"q": np.random.default_rng(0).random((4, 4))}), micro_batch=8)
    module._board = module.empty_board()
    return module


def rows_of(module: FaithfulnessModule) -> dict[tuple[str, str], tuple[str, str | None]]:
    """(substrate, method) → (status, reason)."""
    picture = torch.randint(0, 256, (3, *module.engine.vlm.image_size), generator=torch.Generator().manual_seed(0))
    sample = Sample("s", image_id="i", image_path="i.png", question="q", kind="yes_no")
    rows = module.predict_step([SampleItem(sample, picture.to(torch.uint8))], 0)
    return {(row["substrate"], row["method"]): (row["status"], row.get("reason")) for row in rows}


def fails(module: FaithfulnessModule, monkeypatch: pytest.MonkeyPatch, stage: str, when: Any = lambda *_: True) -> None:
    original = getattr(module.engine.vlm, stage)

    def run(*arguments: Any) -> Any:
        if when(*arguments):
            raise RuntimeError("CUDA error: out of memory")
        return original(*arguments)

    monkeypatch.setattr(module.engine.vlm, stage, run)


def test_a_map_is_lost_and_the_others_are_kept(module: FaithfulnessModule, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rows_of(module)
    assert {status for status, _ in whole.values()} == {"ok"}
    fails(module, monkeypatch, "trace")
    lost = {key: ("invalid", f"gradient: {NO_MEMORY}") for key in whole if key[1] == "gradient"}
    assert len(lost) == 2 and rows_of(module) == whole | lost


def test_a_sample_whose_picture_does_not_fit_is_lost(
    module: FaithfulnessModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(module, monkeypatch, "prefill")
    assert set(rows_of(module).values()) == {("invalid", NO_MEMORY)}


def test_a_substrate_that_does_not_fit_is_lost(module: FaithfulnessModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the other substrate are scored; a micro-batch of one was tried twice before."""
    whole = rows_of(module)
    fails(module, monkeypatch, "encode", lambda pixels: bool((pixels[:, :, :4, :6] == 0).all((1, 2, 3)).any()))
    assert rows_of(module) == {
        key: ("invalid", NO_MEMORY) if key[0] == "zero" else value for key, value in whole.items()
    }
    assert module.engine.micro_batch == 1


def test_other_errors_end_the_run(module: FaithfulnessModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    for stage in ("trace", "prefill"):
        monkeypatch.setattr(module.engine.vlm, stage, broken)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            rows_of(module)


def test_a_smaller_size_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the other ranks at their next batch, and by a restart; a size is never raised again."""
    trainer: Any = None

    def rank() -> tuple[FaithfulnessModule, BatchSizes]:
        module = FaithfulnessModule({"integrated_gradients": {}, "gradient": {}})
        module._engine = Engine(LinearVLM({"q": np.ones((4, 4))}), micro_batch=64)
        return module, BatchSizes(tmp_path)

    def sizes(module: FaithfulnessModule) -> dict[str, int]:
        return {name: batch.size for name, batch in module.micro_batches.items()}

    (first, of_first), (second, of_second) = rank(), rank()
    for module, callback in ((first, of_first), (second, of_second)):
        callback.on_predict_batch_start(trainer, module, None, 0)
        callback.on_predict_batch_end(trainer, module, None, None, 0)
    assert not (tmp_path / FILE).exists()
    for module, callback, name, size in (
        (first, of_first, "pictures", 16),
        (second, of_second, "integrated_gradients", 2),
    ):
        callback.on_predict_batch_start(trainer, module, None, 1)
        module.micro_batches[name].size = size
        callback.on_predict_batch_end(trainer, module, None, None, 1)
    assert json.loads((tmp_path / FILE).read_text()) == {"pictures": 16, "integrated_gradients": 2}
    assert "out of memory: pictures are computed 16 at a time from here on" in caplog.text
    restarted, callback = rank()
    second.engine.batches.size = 8
    for module, own in ((first, of_first), (second, of_second), (restarted, callback)):
        own.on_predict_batch_start(trainer, module, None, 2)
    assert sizes(first) == sizes(restarted) == {"pictures": 16, "integrated_gradients": 2}
    assert sizes(second) == {"pictures": 8, "integrated_gradients": 2}


def test_on_a_gpu_the_size_of_a_pass_stays_that_of_the_run(tmp_path: Path) -> None:
    """Passes of another size round differently there: a smaller size is refused, a larger one is not taken."""
    gpu, trainer = torch.device("cuda"), Any

    def first_batch(size: int) -> dict[str, int]:
        module = FaithfulnessModule({"integrated_gradients": {}, "gradient": {}})
        module._engine = Engine(LinearVLM({"q": np.ones((4, 4))}), micro_batch=MicroBatch(size, padded=True))
        BatchSizes(tmp_path).on_predict_batch_start(trainer, module, None, 0)  # type: ignore[arg-type]
        return {name: batch.size for name, batch in module.micro_batches.items()}

    check_size(tmp_path, gpu, None)
    assert first_batch(64) == json.loads((tmp_path / FILE).read_text())
    for asked in (None, 64, 100):
        check_size(tmp_path, gpu, asked)
    assert first_batch(100)["pictures"] == 64
    check_size(tmp_path, torch.device("cpu"), 8)
    with pytest.raises(ValueError, match=r"^model.micro_batch is 32, and .* was computed with 64, .*: set it to 64$"):
        check_size(tmp_path, gpu, 32)


def test_a_damaged_note_is_not_used(tmp_path: Path, module: FaithfulnessModule) -> None:
    for text in ("{", "[]", '{"pictures": "x"}', '{"pictures": 0}'):
        (tmp_path / FILE).write_text(text)
        BatchSizes(tmp_path).on_predict_batch_start(None, module, None, 0)  # type: ignore[arg-type]
        assert module.engine.micro_batch == 8
