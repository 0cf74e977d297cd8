"""20,000 samples through the real pipeline with a model that costs nothing: memory, files and work stay in bounds."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightning.pytorch.callbacks import Callback
from PIL import Image

from cxr_faith.cli.lightning_cli import EvaluateCLI
from cxr_faith.data.sample import MANIFEST_SCHEMA
from cxr_faith.records import done_samples
from cxr_faith.run import evaluate as run
from cxr_faith.run import module as pipeline_module
from cxr_faith.run import provenance
from tests.analytic import LinearVLM
from tests.runs import parts

pytestmark = pytest.mark.cluster

SAMPLES, PER_IMAGE, FILES = 20_000, 10, 40
QUESTIONS = [f"Is there finding {number}?" for number in range(PER_IMAGE)]
BATCH = 50


class Gauge(Callback):
    """Memory, files and work after every batch."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.memory: list[int] = []
        self.files: list[int] = []
        self.forwards: list[int] = []

    def on_predict_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
        self.files.append(len(list((self.run_dir / "records").iterdir())))
        self.forwards.append(pl_module.engine.vlm.counts.score)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A manifest of 2,000 images with ten questions each, over a few small pictures."""
    generator = np.random.default_rng(0)
    for number in range(FILES):
        pixels = generator.integers(0, 256, (16, 24), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    rows = []
    for number in range(SAMPLES):
        image = number // PER_IMAGE
        row = dict.fromkeys(MANIFEST_SCHEMA.names)
        row |= {"sample_id": f"s{number:05d}", "image_id": f"i{image:05d}", "patient_id": f"p{image // 4:04d}"}
        row |= {"image_path": f"{image % FILES}.png", "question": QUESTIONS[number % PER_IMAGE], "kind": "yes_no"}
        rows.append(row | {"answer": ["yes"], "finding": "finding"})
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), tmp_path / "manifest.parquet")
    file = tmp_path / "config.yaml"
    file.write_text(
        "trainer: {accelerator: cpu, devices: 1}\n"
        "model: {methods: {random_map: {}},\n"
        "        protocol: {steps: 2, random_orders: 2, substrates: [mean], controls: none}}\n"
        f"data: {{manifest: {tmp_path / 'manifest.parquet'}, batch_size: {BATCH}}}\n"
    )
    return file


def test_long_run(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    vlm = LinearVLM({question: 9 * generator.random((4, 4)) for question in QUESTIONS})
    monkeypatch.setattr(pipeline_module, "peek", lambda *_: (vlm.grid, vlm.image_size))
    monkeypatch.setattr(pipeline_module, "load_configured", lambda *_: vlm)
    monkeypatch.setattr(provenance, "git_revision", lambda: None)
    run_dir = tmp_path / "run"
    cli = EvaluateCLI(["--config", str(config), "--run_dir", str(run_dir)])
    gauge = Gauge(run_dir)
    cli.trainer.callbacks.append(gauge)
    identity = run.check(cli.model, cli.datamodule, cli.trainer, cli.options)
    run.evaluate(cli.model, cli.datamodule, cli.trainer, cli.options, cli.resolved_config(), identity)

    assert len(gauge.memory) == SAMPLES // BATCH
    assert len(done_samples(run_dir)) == SAMPLES and len(parts(run_dir)) == 1
    # Work: the same number of forwards for each batch of five images.
    steps = np.diff([0, *gauge.forwards])
    assert steps.max() <= 1.02 * steps.min(), "work per sample grows"
    # Files: 64 single writes and 64 merges of them at most, and a few that are hidden.
    assert max(gauge.files) <= 2 * 64 + 4
    # Memory: after a warm-up of a quarter, the median of the last quarter is that of the second within 20 MB.
    quarter = len(gauge.memory) // 4
    early, late = np.median(gauge.memory[quarter : 2 * quarter]), np.median(gauge.memory[-quarter:])
    assert late - early < 20e6, f"{(late - early) / 1e6:.1f} MB more after {SAMPLES // 2} samples"
