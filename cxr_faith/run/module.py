"""The LightningModule: one `predict_step` takes questions about pictures and gives records."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from cxr_faith.data.items import SampleItem
from cxr_faith.metrics.board import MetricBoard
from cxr_faith.perturb.condition import NONE
from cxr_faith.perturb.copies import PARAPHRASE
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.schedule import stream
from cxr_faith.perturb.substrate import PAIR
from cxr_faith.protocol import Protocol
from cxr_faith.records.controls import RANDOM
from cxr_faith.records.known import NOTHING, KnownRecords, KnownSample
from cxr_faith.records.rows import Row
from cxr_faith.run.image_use import measure_use
from cxr_faith.run.method_set import MethodSet
from cxr_faith.run.predict import answer, explain, failed, score
from cxr_faith.run.spreads import measure_spreads
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.loading import load_configured, peek
from cxr_faith.vlm.micro_batch import MicroBatch
from cxr_faith.vlm.text_only import takes_text_only

PICTURES = "pictures"
"""Name of the micro-batch of answers and curves; methods may have their own."""


class FaithfulnessModule(L.LightningModule):
    """Explains a model's answers and scores the explanations.

    The model is not a submodule: it keeps its own dtype, and Lightning must neither cast nor wrap it.
    """

    def __init__(
        self,
        methods: dict[str, dict[str, Any] | None],
        vlm: ModelConfig = ModelConfig(),  # noqa: B008 - frozen
        protocol: Protocol = Protocol(),  # noqa: B008 - frozen
        micro_batch: int | None = None,
    ) -> None:
        """Check the whole configuration; the model is loaded in `setup`.

        Args:
            methods: the methods by name, each with its class and options. The name is what records and tables show;
                the class, the key `class`, defaults to it. The baselines `center` and `random` are always scored, and
                so are the controls that `protocol.controls` asks for.
            vlm: the model.
            protocol: how explanations are scored.
            micro_batch: perturbed pictures in one forward pass; halved when memory runs out. Default: see `Engine`.
        """
        super().__init__()
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")
        self.method_set = MethodSet(methods, protocol)
        self._keys = {(spec, name) for spec, names in self.method_set.shown.scored.items() for name in names}
        self.model_config, self.protocol, self.micro_batch = vlm, protocol, micro_batch
        self.known: KnownRecords | None = None
        """Records of samples that lack some, where a run grew; set when prediction starts."""
        self._engine: Engine | None = None
        self._board: MetricBoard | None = None
        self._image_size: tuple[int, int] | None = None

    def check_model(self) -> None:
        """Read the model's config alone, and check that the schedule fits its grid."""
        config = self.model_config
        grid, self._image_size = peek(config.source, config.revision, config.image_size)
        self.protocol.check_grid(grid)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the model's input."""
        if self._image_size is None:
            self.check_model()
        assert self._image_size is not None
        return self._image_size

    @property
    def needs_pairs(self) -> bool:
        """Whether samples are scored under `pair`, or a method uses it, which takes a second picture for each."""
        return PAIR in self.protocol.substrates or any(one.uses_pair for one in self.method_set.methods.values())

    @property
    def needs_paraphrases(self) -> bool:
        """Whether the spread of maps is measured over the paraphrases that the manifest has."""
        copies = self.protocol.uncertainty
        return copies is not None and copies.source == PARAPHRASE and not copies.wordings

    @property
    def swap_stream(self) -> Callable[[str], np.random.Generator] | None:
        """Image id → what draws the picture that stands in for it; None: image use is not measured."""
        return partial(stream, self.protocol.seed, purpose="swap") if self.protocol.image_use else None

    @property
    def engine(self) -> Engine:
        """The engine and, as `engine.vlm`, the model; exists after `setup`."""
        if self._engine is None:
            raise RuntimeError("the model is loaded in setup(): run this module through a Trainer")
        return self._engine

    @property
    def micro_batches(self) -> dict[str, MicroBatch]:
        """What this run computes at once by name: `pictures`, and each method that has micro-batches of its own."""
        own = {name: method.together for name, method in self.method_set.methods.items() if method.together is not None}
        return {PICTURES: self.engine.batches} | own

    @property
    def board(self) -> MetricBoard:
        """The torchmetrics of this start; exists after `setup`."""
        if self._board is None:
            raise RuntimeError("the metrics are made in setup(): run this module through a Trainer")
        return self._board

    def setup(self, stage: str) -> None:
        """Load the model to this rank's device."""
        if self._engine is None:
            device = self.trainer.strategy.root_device
            config = self.model_config
            vlm = load_configured(config, device)
            self.method_set.check(vlm)
            if self.protocol.image_use:
                takes_text_only(vlm)  # a template that cannot be rendered stops the run here, not at some sample
            self._engine = Engine(vlm, self.protocol.softness, self.micro_batch)
        self._board = self.empty_board()

    def empty_board(self) -> MetricBoard:
        """A board without samples, for the rows of this run."""
        scored = self.method_set.scored
        keys = [(spec, name) for spec in scored for name in (*scored[spec], RANDOM)]
        return MetricBoard(keys, self.protocol.finest(self.engine.vlm.n_cells))

    def predict_step(self, batch: list[SampleItem], batch_idx: int) -> list[Row]:
        """Records of a batch: one for each sample, method, substrate and condition.

        Args:
            batch: samples; those of one image follow each other and share its pictures.
            batch_idx: unused; results depend on the samples only.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("attributions need gradients: use Trainer(inference_mode=False)")
        rows = [row for condition in (NONE, *self.protocol.conditions) for row in self._rows(batch, condition)]
        self.board.update([row for row in rows if row["condition"] == NONE])
        return rows

    def metric_values(self) -> dict[tuple[str, str], dict[str, Tensor]]:
        """The torchmetrics over all ranks, (substrate, method) → name → tensor; every rank must call this."""
        # Lightning has moved the module to the CPU after prediction, where NCCL cannot reduce.
        return self.board.compute(self.trainer.strategy.root_device)

    def _rows(self, batch: list[SampleItem], condition: str) -> list[Row]:
        """Records of a batch under one condition: answer → explain → score → rows."""
        protocol, known = self.protocol.under(condition), dict[str, KnownSample]()
        if self.known is not None:
            known = {item.sample.sample_id: self.known.of(item.sample.sample_id, condition) for item in batch}
            batch = [item for item in batch if not self._keys <= known[item.sample.sample_id].keys]
        readings = answer(self.engine, [item for item in batch if item.error is None], condition, protocol, known)
        if protocol.image_use and condition == NONE:
            measure_use(self.engine, readings, protocol.seed)
        explain(self.engine, self.method_set, readings, protocol.seed)
        if protocol.uncertainty is not None and condition == NONE:
            measure_spreads(self.engine, self.method_set, readings, protocol.seed, protocol.uncertainty)
        bad = [(item.sample, item.error) for item in batch if item.error is not None]
        rows = [row for sample, error in bad for row in failed(self.method_set, sample, protocol, error)]
        rows += [row for reading in readings for row in score(self.engine, self.method_set, reading, protocol)]
        return [
            row | {"condition": condition}
            for row in rows
            if (row["substrate"], row["method"]) not in known.get(row["sample_id"], NOTHING).keys
        ]
