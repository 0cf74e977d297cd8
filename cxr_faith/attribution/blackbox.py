"""Black-box methods: maps from the scores of perturbed pictures, which the perturbation engine runs."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxr_faith.attribution.base import Attribution, AttributionBatch, Method, by_token
from cxr_faith.perturb.engine import Engine, Plan
from cxr_faith.perturb.schedule import BoolArray, stream
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.vlm.base import VLM, PictureScores, Target
from cxr_faith.vlm.micro_batch import MicroBatch

FloatArray = npt.NDArray[np.float64]


class Masker:
    """Scores pictures with cells removed, in the micro-batches of the run, or else in its own.

    Args:
        substrate: what replaces removed cells.
    """

    def __init__(self, substrate: Substrate) -> None:
        self.substrate = substrate
        self._engine: Engine | None = None

    def scores(
        self,
        vlm: VLM,
        batch: AttributionBatch,
        targets: Sequence[Target],
        index: int,
        masks: BoolArray,
        removed: Tensor | None = None,
    ) -> list[PictureScores]:
        """Score one picture of a batch under masks.

        Args:
            vlm: the model.
            batch: pictures.
            targets: what is scored; the perturbed pictures are encoded once for all of them.
            index: which picture.
            masks: bool [M, N], True = the cell stays original; equal masks are run once.
            removed: what stands in removed cells [3, H, W]; None: the substrate.

        Returns:
            for each target: scores [M] on the CPU.
        """
        engine = self._engine_of(vlm, batch.micro_batch)
        pixels = batch.pixels[index]
        ids, fill = [batch.image_ids[index]], None
        if removed is None:
            removed = self.substrate.apply(pixels[None], ids, batch.seed, vlm.pictures)[0]
            fill = self.substrate.fill(pixels, ids[0], batch.seed, vlm.picture_grid, vlm.pictures)
        plan = Plan(vlm.n_cells)
        places = [plan.add(question, masks) for question in range(len(targets))]
        prompts = [batch.prompts[index]] * len(targets)
        scores = engine.run(pixels, removed, plan, prompts, targets, fill)
        return [of_target.at(where) for of_target, where in zip(scores, places, strict=True)]

    def _engine_of(self, vlm: VLM, micro_batch: MicroBatch | None) -> Engine:
        if micro_batch is not None:
            return Engine(vlm, micro_batch=micro_batch)
        if self._engine is None or self._engine.vlm is not vlm:
            self._engine = Engine(vlm)
        return self._engine


class _BlackBox(Method):
    """Methods that score a set of masks for each picture.

    Args:
        substrate: what replaces removed cells, for example `blur:0.1` or `mean`.
    """

    can_ablate = True
    substrate: Substrate

    def __init__(self, substrate: str = DEFAULT_SUBSTRATE) -> None:
        self.substrate = Substrate.parse(substrate)
        self._masker = Masker(self.substrate)

    def attribute(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> Attribution:
        """Maps from masked pictures; see `Method.attribute`."""
        return self._explain(vlm, batch, [target])[0]

    def attribute_tokens(self, vlm: VLM, batch: AttributionBatch, target: Sequence[Target]) -> list[Attribution]:
        """The same masked pictures for all tokens, encoded once; see `Method.attribute_tokens`."""
        return self._explain(vlm, batch, by_token(target))

    def _explain(self, vlm: VLM, batch: AttributionBatch, targets: Sequence[Sequence[Target]]) -> list[Attribution]:
        """Maps for each of several lists of targets [batch]."""
        maps = []
        for index, own in enumerate(zip(*targets, strict=True)):
            masks = self.masks(vlm.picture_grid, batch.image_ids[index], batch.seed, vlm.pictures)
            kept = torch.from_numpy(masks)
            scores = [
                self.core(one.s[None], [batch.image_ids[index]], batch.seed)[0]
                for one in self._scores(vlm, batch, own, index, masks)
            ]
            values = [self.combine(one, kept) for one in scores]
            maps.append(torch.stack(values).float().unflatten(1, vlm.grid))
        return [Attribution(one) for one in torch.stack(maps, dim=1).to(vlm.device)]

    def _scores(
        self, vlm: VLM, batch: AttributionBatch, targets: Sequence[Target], index: int, masks: BoolArray
    ) -> list[PictureScores]:
        """Scores of one picture under the masks; a method and its ablation share them."""

        def compute() -> list[PictureScores]:
            return self._masker.scores(vlm, batch, targets, index, masks)

        return batch.share(("masked", self.substrate.spec, index, masks.tobytes(), *targets), compute)

    @abstractmethod
    def masks(self, grid: tuple[int, int], image_id: str, seed: int, pictures: int = 1) -> BoolArray:
        """Masks [M, N] of one picture, or of a sheet of pictures with this grid each; True = original."""

    @abstractmethod
    def combine(self, scores: Tensor, masks: Tensor) -> Tensor:
        """Value of each cell [N] from the scores float64 [M] of the masks [M, N]."""


class Occlusion(_BlackBox):
    """Occlusion (Zeiler & Fergus 2014): mean drop of the score over the windows that remove a cell.

    Args:
        window: side in cells of the square that is removed; it moves by one cell. Windows extend over the border, so
            every cell is removed window² times. With 1, a cell whose neighbors hold the same evidence gets no credit.
        substrate: what replaces removed cells.
    """

    def __init__(self, window: int = 3, substrate: str = DEFAULT_SUBSTRATE) -> None:
        super().__init__(substrate)
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.window = window

    def masks(self, grid: tuple[int, int], image_id: str, seed: int, pictures: int = 1) -> BoolArray:
        """The intact picture, then every window that contains a cell; no window lies on two pictures of a sheet."""
        first = [np.arange(1 - self.window, side) for side in grid]
        # [positions, side] along each axis: whether the window that starts at a position covers a row or column.
        rows, columns = (
            (np.arange(side) >= start[:, None]) & (np.arange(side) < start[:, None] + self.window)
            for start, side in zip(first, grid, strict=True)
        )
        n_cells = grid[0] * grid[1]
        covered = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, n_cells)
        windows = np.kron(np.eye(pictures, dtype=bool), covered)
        return np.concatenate([np.ones((1, pictures * n_cells), bool), ~windows])

    def combine(self, scores: Tensor, masks: Tensor) -> Tensor:
        """Mean of s(intact) - s(window removed) over the windows that contain the cell."""
        removed = (~masks[1:]).double()
        return ((scores[0] - scores[1:])[:, None] * removed).sum(0) / removed.sum(0)


class Rise(_BlackBox):
    """RISE (Petsiuk et al. 2018): mean score with a cell kept minus mean score with it removed.

    Masks are hard. Uniform noise on a coarse grid that is one coarse cell larger than the picture is interpolated
    bilinearly and shifted along each axis by a uniform share of a coarse cell; the N/2 highest cells are kept. Each
    mask is followed by its complement, so every cell is kept in exactly half of the masks. The paper averages s over
    the masks that keep a cell, which gives the same order in expectation (E[s] is half the sum of both means) but adds
    the variance of s.

    Args:
        masks: number of masks, even: they come in pairs of complements.
        coarse: coarse cells along a side of the picture (the paper's 7), at most the cells of the map.
        substrate: what replaces removed cells.
    """

    def __init__(self, masks: int = 500, coarse: int = 7, substrate: str = DEFAULT_SUBSTRATE) -> None:
        super().__init__(substrate)
        if masks < 2 or masks % 2:
            raise ValueError(f"masks must be even (pairs of complements) and at least 2, got {masks}")
        if coarse < 1:
            raise ValueError(f"coarse must be at least 1, got {coarse}")
        self.n_masks, self.coarse = masks, coarse

    def masks(self, grid: tuple[int, int], image_id: str, seed: int, pictures: int = 1) -> BoolArray:
        """Pairs of complements, drawn from the picture's own stream; pictures of a sheet have noise of their own."""
        random = stream(seed, image_id, "masks", "rise")
        kept = []
        for _ in range(self.n_masks // 2):
            noise = np.concatenate([self._noise(grid, random).ravel() for _ in range(pictures)])
            order = np.argsort(-noise, kind="stable")
            mask = np.zeros(noise.size, bool)
            mask[order[: noise.size // 2]] = True
            kept += [mask, ~mask]
        return np.stack(kept)

    def _noise(self, grid: tuple[int, int], random: np.random.Generator) -> FloatArray:
        """Shifted noise on a coarse grid, interpolated to the cells of a picture [grid_h, grid_w]."""
        noise: FloatArray = random.random([min(self.coarse, side) + 2 for side in grid])
        for axis, side in enumerate(grid):
            at = np.arange(side) * ((noise.shape[axis] - 2) / side) + random.random()
            low = at.astype(int)
            share = (at - low)[:, None] if axis == 0 else at - low
            noise = noise.take(low, axis) * (1 - share) + noise.take(low + 1, axis) * share
        return noise

    def combine(self, scores: Tensor, masks: Tensor) -> Tensor:
        """Mean over the masks that keep a cell minus mean over the other half."""
        kept = masks.double()
        return (scores[:, None] * (2 * kept - 1)).sum(0) / (len(masks) / 2)
