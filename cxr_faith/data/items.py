"""From manifest rows to decoded samples: picture and masks at model size, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxr_faith.data.cache import ImageCache
from cxr_faith.data.decoder import DECODE_SECONDS, DecoderStartError
from cxr_faith.data.geometry import Geometry, differs_outside, fit, fit_mask, is_constant
from cxr_faith.data.images import ImageError, load_image, load_mask, picture_hash
from cxr_faith.data.manifest import MappedManifest
from cxr_faith.data.sample import FAULT, Sample, SampleError
from cxr_faith.data.sharding import Rows
from cxr_faith.data.shown import boxes_mask, on_sheet, with_others
from cxr_faith.data.swaps import Swap
from cxr_faith.printable import printable


@dataclass(frozen=True)
class SampleItem:
    """A sample with its decoded picture, or with the reason why it cannot be used.

    Attributes:
        sample: the manifest's row.
        image: uint8 [3, H, W] at model size; None for a bad sample. Questions of one image may share the tensor.
        geometry: how the picture came to model size; None for a bad sample.
        finding_mask: bool [pictures * H, W], model pixels: the finding's mask file, else the union of the boxes labeled
            as the finding; None where there is neither.
        anatomy: organ masks by label, bool [H, W], model pixels; empty where the manifest has none.
        pair: the same picture without the finding, like `image`; None where there is none, or nobody asked for it.
        no_pair: one line that says why there is no pair that was asked for.
        picture_hash: of the decoded picture before it was resized; None for a bad sample.
        error: one line that says what is wrong with the sample; None: nothing is.
        pictures: number of pictures that the question shows; `image` and `pair` then are sheets, with the pictures one
            below the other: [3, pictures * H, W].
        place: which of them `anatomy` and `geometry` belong to.
        swap: another patient's picture that stands in for it; None where there is none, or nobody asked for it.
        paraphrases: other wordings of the question in the manifest; empty where nobody asked for them.
    """

    sample: Sample
    image: Tensor | None = None
    geometry: Geometry | None = None
    finding_mask: Tensor | None = None
    anatomy: Mapping[str, Tensor] = field(default_factory=dict)
    pair: Tensor | None = None
    no_pair: str | None = None
    picture_hash: str | None = None
    error: str | None = None
    pictures: int = 1
    place: int = 0
    swap: Swap | None = None
    paraphrases: tuple[str, ...] = ()

    def finding_cells(self, grid: tuple[int, int]) -> Tensor | None:
        """Share of each cell under the finding, float32 [pictures * grid_h, grid_w]; None without a mask.

        Args:
            grid: (grid_h, grid_w) of a picture.
        """
        if self.finding_mask is None or self.geometry is None:
            return None
        parts = self.finding_mask.chunk(self.pictures)
        return torch.cat([self.geometry.to_cells(part, grid) for part in parts])

    def organ_cells(self, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Share of each cell that each organ covers, float32 [pictures * grid_h, grid_w] by label.

        Args:
            grid: (grid_h, grid_w) of a picture.
        """
        if self.geometry is None:
            return {}
        cells = {label: self.geometry.to_cells(mask, grid) for label, mask in self.anatomy.items()}
        return {label: on_sheet({self.place: share}, self.pictures) for label, share in cells.items()}

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> SampleItem:
        """The same item with a function applied to its pictures and masks."""
        return replace(
            self,
            image=None if self.image is None else function(self.image),
            pair=None if self.pair is None else function(self.pair),
            swap=None if self.swap is None else replace(self.swap, image=function(self.swap.image)),
            finding_mask=None if self.finding_mask is None else function(self.finding_mask),
            anatomy={label: function(mask) for label, mask in self.anatomy.items()},
        )

    def pin_memory(self) -> SampleItem:
        """Pin the tensors for a `DataLoader`, so that copies to a GPU overlap with the work on the last batch."""
        return self.map_tensors(Tensor.pin_memory)


class ManifestDataset(Dataset[SampleItem]):
    """Rows of an open manifest, decoded on access; a bad sample comes back with its reason and never raises."""

    def __init__(
        self,
        table: MappedManifest,
        rows: Rows,
        root: Path,
        image_size: tuple[int, int],
        border_crop: float,
        own_root: Path | None = None,
        keep_anatomy: Sequence[str] = (),
        cache: ImageCache | None = None,
        decode_seconds: float = DECODE_SECONDS,
        pairs: bool = False,
    ) -> None:
        """Serve some rows of a manifest.

        Args:
            table: the open manifest.
            rows: rows to serve, in order.
            root: data root.
            image_size: (height, width) of the model's input.
            border_crop: share of each side that is cut off before resizing.
            own_root: the folder of the manifest, for masks that were made for it; None: there are none.
            keep_anatomy: organs; everything outside of their masks is black. Empty: pictures stay as they are.
            cache: pictures that were decoded and fitted before; None: decode each on access.
            decode_seconds: CPU time that decoding one file may take.
            pairs: also decode each sample's picture without the finding.
        """
        self.table, self.rows, self.root = table, rows, root
        self.image_size, self.border_crop = image_size, border_crop
        self.own_root, self.keep_anatomy, self.pairs = own_root, keep_anatomy, pairs
        self.cache, self.decode_seconds = cache, decode_seconds
        # The last picture, or its fault: the questions about an image follow each other, so it is decoded once.
        self._last: tuple[str, tuple[Tensor, Geometry] | str] | None = None
        self._hashes: dict[str, str | None] = {}
        self._organs: dict[str, Tensor] = {}
        self._pairs: dict[str, Tensor | str] = {}
        self._others: dict[str, tuple[Tensor, Geometry] | str] = {}

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> SampleItem:
        """Decode one sample."""
        return self.at(int(self.rows[index]))

    def at(self, place: int, masks: bool = True) -> SampleItem:
        """Decode the sample of any row of the manifest; without masks, those that cut out organs are read alone."""
        row = self.table[place]
        self.table.release()
        sample = Sample(row["sample_id"])
        try:
            sample = Sample.from_row(row)
            if row.get(FAULT):
                raise SampleError(row[FAULT])
            sample.validate()
            asked = sample if masks else _unmarked(sample, organs=bool(self.keep_anatomy))
            image, geometry = self._picture(asked)
            anatomy = self._anatomy(asked, geometry)
            pair = self._pair(asked, geometry) if self.pairs else None
            if self.keep_anatomy:
                image, pair = _cut_out(asked, image, pair, anatomy, self.keep_anatomy)
            mask = self._finding_mask(asked, geometry)
            there, reason = _sound(pair, asked, image, mask, geometry)
            digest = self._hashes.get(asked.image_path)
            item = SampleItem(asked, image, geometry, mask, anatomy, there, reason, digest)
            return with_others(item, self._other) if asked.images else item
        except DecoderStartError:  # the machine's fault: every other sample would meet it too
            raise
        except (SampleError, ImageError) as error:
            return SampleItem(sample, error=str(error))
        except Exception as error:  # whatever a row or a file raises costs its sample
            return SampleItem(sample, error=printable(f"{type(error).__name__}: {error}"))

    def _other(self, path: str) -> tuple[Tensor, Geometry, str | None]:
        """Another picture of the same question, at model size, how it came there, and its hash."""
        fitted = self._others[path] = self._others.get(path) or self._fitted(path)
        if isinstance(fitted, str):
            raise ImageError(fitted)
        return *fitted, self._hashes.get(path)

    def _picture(self, sample: Sample) -> tuple[Tensor, Geometry]:
        if self._last is None or self._last[0] != sample.image_path:
            self._organs, self._pairs, self._hashes, self._others = {}, {}, {}, {}
            self._last = (sample.image_path, self._fitted(sample.image_path))
        fitted = self._last[1]
        if isinstance(fitted, str):
            raise ImageError(fitted)
        image, geometry = fitted
        height, width = geometry.original
        if sample.height not in (None, height) or sample.width not in (None, width):
            stated = f"{sample.height}×{sample.width}"
            raise SampleError(f"{sample.image_path}: picture is {height}×{width} px, the manifest says {stated}")
        return image, geometry

    def _pair(self, sample: Sample, geometry: Geometry) -> Tensor | str:
        """The picture without the finding, at model size, or why there is none."""
        path = sample.pair_path
        if not path:
            return "the manifest names no pair_path: the substrate pair needs the same picture without the finding"
        if path not in self._pairs:
            fitted = self._fitted(path)
            if not isinstance(fitted, str) and fitted[1] != geometry:
                sizes = ["×".join(map(str, each.original)) for each in (fitted[1], geometry)]
                fitted = f"{path}: the pair is {sizes[0]} px, its picture {sizes[1]}"
            self._pairs[path] = fitted if isinstance(fitted, str) else fitted[0]
        return self._pairs[path]

    def _fitted(self, path: str) -> tuple[Tensor, Geometry] | str:
        """A picture at model size and its geometry, or why it cannot be used."""
        fitted = None if self.cache is None else self.cache.get(path)
        if self.cache is not None and fitted is not None:
            self._hashes[path] = self.cache.hash_of(path)
        if fitted is None:
            try:
                pixels = load_image(path, self.root, seconds=self.decode_seconds)
            except ImageError as error:
                return str(error)
            self._hashes[path] = picture_hash(pixels)
            fitted = fit(pixels, self.image_size, self.border_crop)
        if is_constant(fitted[0]):
            return f"{path}: the picture is constant at model size, after cropping and resizing"
        return fitted

    def _finding_mask(self, sample: Sample, geometry: Geometry) -> Tensor | None:
        if sample.finding_mask_path:
            return self._mask(sample.finding_mask_path, geometry)
        return boxes_mask(sample, sample.image_id, geometry)

    def _anatomy(self, sample: Sample, geometry: Geometry) -> dict[str, Tensor]:
        """Organ masks by label; two files of one label are one organ."""
        organs: dict[str, Tensor] = {}
        for label, path in sample.anatomy_masks:
            if path not in self._organs:
                self._organs[path] = self._mask(path, geometry)
            organs[label] = organs[label] | self._organs[path] if label in organs else self._organs[path]
        return organs

    def _mask(self, path: str, geometry: Geometry) -> Tensor:
        # Masks that were made for a manifest lie in its folder, all others below the data root.
        own = self.own_root is not None and not (self.root / path).is_file() and (self.own_root / path).is_file()
        mask = load_mask(path, self.own_root if own else self.root, seconds=self.decode_seconds)
        try:
            return fit_mask(mask, geometry)
        except ValueError as error:
            raise SampleError(f"{path}: {error}") from error


def _unmarked(sample: Sample, organs: bool) -> Sample:
    """The sample without what says where its finding is, and without masks of organs unless they are needed."""
    kept = sample.anatomy_masks if organs else ()
    return replace(sample, boxes=(), finding_mask_path=None, anatomy_masks=kept)


def _sound(
    pair: Tensor | str | None, sample: Sample, image: Tensor, mask: Tensor | None, geometry: Geometry
) -> tuple[Tensor | None, str | None]:
    """A pair that can be used, or the reason why there is none; what was planted must not reach beyond its mask."""
    if not isinstance(pair, Tensor):
        return None, pair
    if sample.planted and differs_outside(image, pair, mask, geometry):
        return None, f"{sample.pair_path}: the pair differs from its picture outside of the object's mask"
    return pair, None


def _union(organs: Mapping[str, Tensor], labels: Sequence[str]) -> Tensor:
    """Union of the masks with these labels, bool [H, W]."""
    missing = [label for label in labels if label not in organs]
    if missing:
        raise SampleError(f"keep_anatomy needs a mask of {', '.join(missing)}; there are {', '.join(organs) or 'none'}")
    return torch.stack([organs[label] for label in labels]).any(0)


def _cut_out(
    sample: Sample, image: Tensor, pair: Tensor | str | None, anatomy: Mapping[str, Tensor], labels: Sequence[str]
) -> tuple[Tensor, Tensor | str | None]:
    """A picture and its pair, black outside of these organs."""
    if sample.images:
        raise SampleError("keep_anatomy cannot be used with questions that show several pictures")
    kept = _union(anatomy, labels)
    image = image * kept
    if is_constant(image):
        raise SampleError(f"keep_anatomy ({', '.join(labels)}) leaves a constant picture")
    return image, pair * kept if isinstance(pair, Tensor) else pair
