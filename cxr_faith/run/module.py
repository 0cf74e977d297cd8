"""The LightningModule: one `predict_step` takes questions about pictures and gives records."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from cxr_faith.attribution import Method, build_methods
from cxr_faith.attribution.baselines import CONTROLS
from cxr_faith.cases import NO_REPLY, Case, compute_maps, read_answers
from cxr_faith.data.module import SampleItem
from cxr_faith.data.sample import Sample
from cxr_faith.metrics.curves import method_metrics
from cxr_faith.metrics.functional import normalize_curve
from cxr_faith.metrics.localization import LOCALIZATION_COLUMNS, localization_metrics
from cxr_faith.perturb.condition import NONE, Condition
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.protocol import Protocol
from cxr_faith.records import RECORD_SCHEMA, sample_columns
from cxr_faith.records.controls import BLURRED, CENTER, RANDOM
from cxr_faith.run.anatomy import Organs, anatomy_column
from cxr_faith.scoring import localize, score_image
from cxr_faith.vlm import Gemma3VLM
from cxr_faith.vlm.answers import YES_NO, is_correct, is_mismatch, predicted_answer
from cxr_faith.vlm.config import ModelConfig
from cxr_faith.vlm.families.gemma3 import peek

Row = dict[str, Any]
BASIC = ("random_map", "edges", "oracle")
"""Controls that every run has, whatever methods it lists; the oracle where there are masks."""

SECOND_SUBSTRATE = "mean"
"""Maps that were made with the only substrate of a run are scored under this one too."""

_METRIC_COLUMNS = (
    *("deletion_auc", "insertion_auc", "srg", "drop_10", "drop_20", "drop_50"),
    *("gap_deletion_random", "gap_insertion_random", "gap_srg_random"),
    *("gap_deletion_center", "gap_insertion_center", "gap_srg_center"),
    *LOCALIZATION_COLUMNS,
)


class FaithfulnessModule(L.LightningModule):
    """Explains a model's answers and scores the explanations.

    The model is no submodule: it keeps its own dtype, and Lightning must neither cast nor wrap it.
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
            methods: name -> `{class: …, options…}`; the name is what records and tables show, and the class defaults
                to it. The baselines `center` and `random` are always scored, and so are the controls that
                `protocol.controls` asks for.
            vlm: the model.
            protocol: how explanations are scored.
            micro_batch: perturbed pictures in one forward pass; halved when memory runs out. Default: see `Engine`.
        """
        super().__init__()
        if RANDOM in methods:
            raise ValueError("methods.random: the random orders are a baseline that is always scored, not a map")
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1, got {micro_batch}")
        self.method_config = {CENTER: {"class": CENTER}} | {n: {"class": n} | (c or {}) for n, c in methods.items()}
        for name in () if protocol.controls == "none" else BASIC:
            self.method_config.setdefault(name, {"class": name})
        if self.method_config[CENTER] != {"class": CENTER}:
            raise ValueError("methods.center: this name is the center baseline's")
        self.methods: dict[str, Method] = build_methods(self.method_config)
        self.model_config, self.protocol = vlm, protocol
        self.scored = self._scored()
        self.micro_batch = micro_batch
        self.metrics: dict[tuple[str, str], MetricCollection] = {}
        self._engine: Engine | None = None
        self._organs: Organs | None = None
        self._image_size: tuple[int, int] | None = None

    def check_model(self) -> None:
        """Read the model's config alone, and check that the schedule fits its grid."""
        grid, self._image_size = peek(self.model_config.source, self.model_config.revision)
        self.protocol.check_grid(grid)

    @property
    def blurred(self) -> list[str]:
        """Names of the methods of whose maps a blurred copy is scored too."""
        if self.protocol.controls == "all":
            return [name for name in self.methods if name != CENTER]
        if self.protocol.controls == "none":
            return []
        own = [name for name, method in self.methods.items() if not isinstance(method, CONTROLS)]
        return list(dict.fromkeys([*own[:1], *self._on_their_own()[:1]]))  # one for each board

    @property
    def names(self) -> list[str]:
        """Names of all maps that are scored: those of the methods and the blurred copies."""
        return [*self.methods, *(name + BLURRED for name in self.blurred)]

    def _on_their_own(self) -> list[str]:
        """Methods that were made with the only substrate of the run."""
        substrates = {name: method.substrate for name, method in self.methods.items()}
        return [name for name, own in substrates.items() if own is not None and self.protocol.substrates == (own.spec,)]

    def _scored(self) -> dict[str, list[str]]:
        """Substrate → names of the maps that are scored under it, the protocol's substrates first.

        Maps that were made with the only substrate that there is are scored under one more, beside the controls.
        """
        specs, own = self.protocol.substrates, self._on_their_own()
        second = [name for name in self.names if name.removesuffix(BLURRED) in own]
        first = self.names
        if self.protocol.controls == "basic":
            first = [name for name in first if not name.endswith(BLURRED) or name == self.blurred[0] + BLURRED]
        scored = {spec: first for spec in specs}
        if second:
            controls = [name for name, method in self.methods.items() if isinstance(method, CONTROLS)]
            scored[DEFAULT_SUBSTRATE if specs == (SECOND_SUBSTRATE,) else SECOND_SUBSTRATE] = [*controls, *second]
        return scored

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the model's input."""
        if self._image_size is None:
            self.check_model()
        assert self._image_size is not None
        return self._image_size

    @property
    def engine(self) -> Engine:
        """The engine and, as `engine.vlm`, the model; there after `setup`."""
        if self._engine is None:
            raise RuntimeError("the model is loaded in setup(): run this module through a Trainer")
        return self._engine

    @property
    def steps(self) -> int:
        """T of the curves; there after `setup`."""
        return self.protocol.finest(self.engine.vlm.n_cells)

    def setup(self, stage: str) -> None:
        """Load the model to this rank's device."""
        if self._engine is None:
            device = self.trainer.strategy.root_device
            config = self.model_config
            vlm = Gemma3VLM.from_pretrained(
                config.source, device, config.dtype, config.prompt_template, config.revision
            )
            for method in self.methods.values():
                method.check(vlm)
            self._engine = Engine(vlm, self.protocol.softness, self.micro_batch)
        data: Any = getattr(self.trainer, "datamodule", None)
        self._organs = Organs(data.data_root, self.engine.vlm.grid) if data else None
        for substrate, names in self.scored.items():
            for name in (*names, RANDOM):
                self.metrics[substrate, name] = method_metrics(self.steps)
                self.metrics[substrate, name].add_metrics(localization_metrics())

    def predict_step(self, batch: list[SampleItem], batch_idx: int) -> list[Row]:
        """Records of a batch: one for each sample, method, substrate and condition.

        Args:
            batch: samples; those of one image follow each other and share its pictures.
            batch_idx: not used; results depend on the samples alone.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("attributions need gradients: use Trainer(inference_mode=False)")
        rows: list[Row] = []
        for condition in (NONE, *self.protocol.conditions):
            rows += self._under(condition, batch)
        self._update_metrics([row for row in rows if row["condition"] == NONE])
        return rows

    def _under(self, condition: str, batch: Sequence[SampleItem]) -> list[Row]:
        """Records of a batch under one condition."""
        protocol = self.protocol.under(condition)
        readings = self._read([item for item in batch if item.error is None], condition, protocol)
        pixels = [picture for picture, _, cases in readings for _ in cases]
        cases = [case for _, _, cases in readings for case in cases]
        compute_maps(self.engine.vlm, self.methods, pixels, cases, protocol.seed, blurred=self.blurred, forgive=True)
        rows = [row for item in batch if item.error is not None for row in self._failed(item.sample, item.error)]
        for picture, items, cases in readings:
            # Masks stay where they were: places are measured on the picture as it is.
            rows += self._score(picture, items, cases, protocol, placed=condition == NONE)
        return [row | {"condition": condition} for row in rows]

    def _read(
        self, items: Sequence[SampleItem], condition: str, protocol: Protocol
    ) -> list[tuple[Tensor, list[SampleItem], list[Case]]]:
        """(pixels, samples, cases) of each image of the batch."""
        by_image: dict[str, list[SampleItem]] = {}
        for item in items:
            by_image.setdefault(item.sample.image_id, []).append(item)
        readings, vlm = [], self.engine.vlm
        for image_id, members in by_image.items():
            assert members[0].image is not None
            pixels = vlm.normalize(members[0].image[None].to(vlm.device))[0]
            if condition != NONE:
                pixels = Condition.parse(condition).apply(pixels, image_id, protocol.seed)
            cells = [vlm_cells(item, vlm.grid) for item in members]
            questions = [item.sample.question for item in members]
            kinds = [item.sample.kind for item in members]
            cases = read_answers(vlm, pixels, image_id, questions, kinds, protocol, cells)
            readings.append((pixels, members, cases))
        return readings

    def _score(
        self, pixels: Tensor, items: Sequence[SampleItem], cases: Sequence[Case], protocol: Protocol, placed: bool
    ) -> list[Row]:
        rows: list[Row] = []
        able = [(i, c) for i, c in zip(items, cases, strict=True) if c.target is not None and not c.off_format]
        for item, case in zip(items, cases, strict=True):
            if case.target is None:
                rows += self._failed(item.sample, case.reason or "nothing to explain", case)
            elif case.off_format:
                share = f"p(yes) + p(no) is {case.reply.yes_no_mass:.3f} at the first step"
                rows += self._failed(item.sample, share, case, "off_format")
        if not able:
            return rows
        places = [localize(case, item.finding_mask if placed else None, protocol.seed) for item, case in able]
        organs = [self._organs.cells(item) if placed and self._organs else {} for item, _ in able]
        for spec, names in self.scored.items():
            asked = [replace(case, maps={n: case.maps[n] for n in names if n in case.maps}) for _, case in able]
            scored = score_image(self.engine, pixels, cases[0].image_id, asked, Substrate.parse(spec), protocol)
            for (item, case), columns, place, cells in zip(able, scored, places, organs, strict=True):
                common = self._common(item.sample, case) | {"substrate": spec}
                columns |= {n: {"status": "invalid", "reason": why} for n, why in case.failed.items() if n in names}
                rows += [
                    common | self._own(name, case, spec, cells) | place.get(name, {}) | columns[name]
                    for name in self._names(case, columns)
                ]
        return rows

    def _names(self, case: Case, columns: Mapping[str, Any]) -> list[str]:
        return [name for name in (*self.names, RANDOM) if name in columns]

    def _common(self, sample: Sample, case: Case | None) -> Row:
        """Columns that all records of a sample share."""
        row = sample_columns(sample) | {"present": is_present(sample)}
        row |= {"space": self.protocol.space, "target": str(self.protocol.target)}
        if case is None or case.reply is NO_REPLY:
            return row
        predicted = predicted_answer(case.reply, case.kind)
        row |= {
            "kind": case.kind,
            "predicted": predicted,
            "generated": case.reply.text,
            "answer_mismatch": is_mismatch(case.reply, case.kind),
            "correct": is_correct(predicted, sample.answer),
        }
        if case.kind == YES_NO:
            margin = case.reply.margin
            p_yes = float(torch.tensor(margin, dtype=torch.float64).sigmoid())
            row |= {"yes_no_mass": case.reply.yes_no_mass, "margin": margin, "p_yes": p_yes}
        return row

    def _own(self, name: str, case: Case, substrate: str, organs: Mapping[str, Tensor]) -> Row:
        """Columns of one method's map of one sample."""
        method, grid = self.methods.get(name.removesuffix(BLURRED)), self.engine.vlm.grid
        own = method is not None and method.substrate is not None and method.substrate.spec == substrate
        row: Row = {"method": name, "own_substrate": own}
        if name in case.maps:
            row |= {"map": case.maps[name].ravel(), "grid_h": grid[0], "grid_w": grid[1]}
            row |= {"anatomy": anatomy_column(case.maps[name], organs)}
            told = {key: value for key, value in case.extras.get(name, {}).items() if key in RECORD_SCHEMA.names}
            row |= case.costs.get(name, {}) | told
        return row

    def _failed(self, sample: Sample, reason: str, case: Case | None = None, status: str = "invalid") -> list[Row]:
        """Records of a sample that cannot be scored: one for each method and substrate, all with the reason."""
        common = self._common(sample, case) | {"status": status, "reason": reason}
        return [
            common | {"method": name, "substrate": substrate, "own_substrate": False}
            for substrate, names in self.scored.items()
            for name in (*names, RANDOM)
            if name == RANDOM or not self.methods[name.removesuffix(BLURRED)].needs_mask
        ]

    def _update_metrics(self, rows: Sequence[Row]) -> None:
        missing = [float("nan")] * (self.steps + 1)
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            groups.setdefault((row["substrate"], row["method"]), []).append(row)
        for key, members in groups.items():
            ok = torch.tensor([row["status"] == "ok" for row in members])
            columns = {name: _column(members, name) for name in _METRIC_COLUMNS}
            ends = [_column(members, name) for name in ("s_original", "s_substrate")]
            for side in ("deletion", "insertion"):
                scores = torch.tensor([row.get(f"{side}_scores", missing) for row in members], dtype=torch.float64)
                columns[f"{side}_curve"] = torch.where(ok[:, None], normalize_curve(scores, *ends), torch.nan)
            self.metrics[key].update(ok=ok, **columns)


def is_present(sample: Sample) -> bool | None:
    """Whether the reference says that the asked finding is there; None where it does not say."""
    if not sample.finding:
        return None
    if sample.kind == YES_NO and sample.answer:
        return sample.answer[0].casefold() == "yes"
    return True if sample.finding_mask_path or sample.boxes else None


def vlm_cells(item: SampleItem, grid: tuple[int, int]) -> Tensor | None:
    """Share of each cell under the finding, [gH, gW]; None without a mask."""
    if item.finding_mask is None or item.geometry is None:
        return None
    return item.geometry.to_cells(item.finding_mask, grid)


def _column(rows: Sequence[Row], name: str) -> Tensor:
    values = [row.get(name) for row in rows]
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)
