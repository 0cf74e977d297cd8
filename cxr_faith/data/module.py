"""The Lightning data module: a manifest on disk → batches of decoded samples, each on exactly one rank."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Set
from functools import cached_property
from pathlib import Path
from typing import cast

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cxr_faith.data.cache import ImageCache
from cxr_faith.data.decoder import DECODE_SECONDS
from cxr_faith.data.folder import noted_root
from cxr_faith.data.items import ManifestDataset, SampleItem
from cxr_faith.data.loader import PackedBatch, SampleLoader
from cxr_faith.data.manifest import MappedManifest, bundled_manifest, manifest_fingerprint, open_manifest
from cxr_faith.data.paraphrases import ParaphrasedDataset
from cxr_faith.data.shard import Shard
from cxr_faith.data.sharding import ImageBatches, Rows, shard_by_image
from cxr_faith.data.swaps import SwappedDataset, SwapStream

__all__ = ["CXRVQADataModule", "ManifestDataset", "SampleItem", "Shard"]


class CXRVQADataModule(L.LightningDataModule):
    """Chest X-ray questions from a manifest; all questions about an image go to the same rank.

    The data module deals samples to ranks itself, so the Trainer needs `use_distributed_sampler=False`. A batch is a
    list of `SampleItem`.

    Attributes:
        image_size: (height, width) of the model's input; None: taken from the module that the Trainer runs.
        skip: ids of samples that are done and left out.
        limit: use only this many rows from the start of the manifest (before `shard` and `skip`); None: all.
        pairs, paraphrases, swap_stream: set in `setup` from what the Trainer's module needs; see `_with_more`.
        shard: use only this part of those rows. Parts do not depend on `skip`, so each can be resumed by itself.
        cache_dir: folder of the Arrow file if the manifest's own is read-only; None: `cache` in the Trainer's root.
    """

    def __init__(
        self,
        manifest: str,
        data_root: str | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        border_crop: float = 0.0,
        keep_anatomy: list[str] | None = None,
        cache: str | None = None,
        decode_seconds: float = DECODE_SECONDS,
    ) -> None:
        """Describe the data; nothing is read yet.

        Args:
            manifest: Parquet file or folder of Parquet shards; `bundled`: the phantoms that ship with the package.
            data_root: folder that image and mask paths are relative to; None: the one that `prepare` noted, else the
                folder that the manifest is in.
            batch_size: samples per batch at most; batches end between images where they can.
            num_workers: processes that decode pictures; 0: this one.
            border_crop: share of each side that is cut off; before resizing, 0 to 0.5.
            keep_anatomy: organs, e.g. [left lung, right lung, heart]: everything outside of their masks is black in
                the model's input. A sample without these masks cannot be used. Default: pictures stay as they are.
            cache: folder for the pictures as the model gets them; decoded and resized once, then read memory-mapped,
                for runs that read them often or from a slow file system. Holds pictures of the data set.
            decode_seconds: CPU time for decoding a file; a sample whose file takes longer cannot be used.
        """
        super().__init__()
        # More ranks than images left is a normal end of a resumed run, not an error.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        _check(batch_size, border_crop, decode_seconds)
        self.manifest = bundled_manifest() if manifest == "bundled" else Path(manifest)
        root = noted_root(self.manifest) if data_root is None else Path(data_root)
        self.data_root = root or self.manifest.absolute().parent
        self.batch_size, self.num_workers = batch_size, num_workers
        self.border_crop, self.decode_seconds = border_crop, decode_seconds
        self.keep_anatomy, self.pairs = tuple(keep_anatomy or ()), False
        self.cache = None if cache is None else Path(cache)
        self.image_size: tuple[int, int] | None = None
        self.swap_stream, self.paraphrases = cast(SwapStream | None, None), False
        self.skip: Set[str] = frozenset()
        self.limit: int | None = None
        self.shard = Shard()
        self.cache_dir: Path | None = None

    @cached_property
    def table(self) -> MappedManifest:
        """The manifest, opened memory-mapped on first use."""
        cache_dir = self.cache_dir
        if cache_dir is None and self.trainer is not None:
            cache_dir = Path(self.trainer.default_root_dir) / "cache"
        return open_manifest(self.manifest, cache_dir)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what decides the samples' content: the manifest's bytes, the border crop and the organs kept."""
        identity = f"{manifest_fingerprint(self.manifest)} border_crop={self.border_crop!r}"
        if self.keep_anatomy:
            identity += f" keep_anatomy={self.keep_anatomy!r}"
        return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()

    @property
    def samples_total(self) -> int:
        """Number of samples in the manifest, whatever `limit` and `skip` say."""
        return len(self.table)

    def remaining_rows(self) -> Rows:
        """Manifest rows within `limit` and `shard` and not in `skip`, over all ranks, in the manifest's order."""
        total = self.samples_total if self.limit is None else min(self.limit, self.samples_total)
        rows: Rows = np.arange(total, dtype=np.int64)
        if self.shard.count > 1:
            rows = np.sort(shard_by_image(_image_codes(self.table)[:total], self.shard.index, self.shard.count))
        if not self.skip:
            return rows
        ids = self.table.data.column("sample_id").slice(0, total)
        done = pc.is_in(ids, value_set=pa.array(sorted(self.skip), type=pa.string()))
        left: Rows = rows[~done.to_numpy(zero_copy_only=False)[rows]]
        return left

    def setup(self, stage: str) -> None:
        """Open the manifest, and learn the model's input size and whether pairs are needed."""
        module = None if self.trainer is None else self.trainer.lightning_module
        if self.image_size is None and module is not None:
            self.image_size = cast(tuple[int, int], module.image_size)
        self.pairs = self.pairs or getattr(module, "needs_pairs", False)
        self.swap_stream = self.swap_stream or getattr(module, "swap_stream", None)
        self.paraphrases = self.paraphrases or getattr(module, "needs_paraphrases", False)
        _ = self.table

    def predict_dataloader(self) -> SampleLoader:
        """This rank's remaining samples; without batches where more ranks run than images are left."""
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return self.loader(rank, world_size)

    def loader(self, rank: int = 0, world_size: int = 1) -> SampleLoader:
        """The remaining samples of one rank of a world of that size."""
        if self.image_size is None:
            raise ValueError("image_size is not set: give the (height, width) of the model's input")
        remaining = self.remaining_rows()
        images = _image_codes(self.table)[remaining]
        mine = shard_by_image(images, rank, world_size)
        dataset = ManifestDataset(
            self.table,
            remaining[mine],
            self.data_root,
            self.image_size,
            self.border_crop,
            own_root=self.manifest if self.manifest.is_dir() else self.manifest.absolute().parent,
            keep_anatomy=self.keep_anatomy,
            cache=self._image_cache(),
            decode_seconds=self.decode_seconds,
            pairs=self.pairs,
        )
        # Lightning asks whether such a sampler keeps incomplete batches; this one does.
        warnings.filterwarnings("ignore", message="You are using a custom batch sampler `ImageBatches`")
        self.table.release()  # of the columns of ids
        return SampleLoader(
            _with_more(dataset, self.swap_stream, self.paraphrases),
            batch_sampler=ImageBatches(images[mine], self.batch_size),
            num_workers=self.num_workers,
            collate_fn=PackedBatch,
            pin_memory=self.trainer is not None and _has_gpu(self.trainer),
        )

    def _image_cache(self) -> ImageCache | None:
        """The pictures of the rows within `limit`, fitted; made by the first process that asks."""
        if self.cache is None or self.image_size is None:
            return None
        paths, size = _picture_paths(self.table, self.limit, self.pairs), self.image_size
        return ImageCache.open(self.cache, paths, self.data_root, size, self.border_crop, self.decode_seconds)

    def transfer_batch_to_device(
        self, batch: list[SampleItem], device: torch.device, dataloader_idx: int
    ) -> list[SampleItem]:
        """Move pictures and masks; the rest of an item stays as it is."""
        return [item.map_tensors(lambda tensor: tensor.to(device, non_blocking=True)) for item in batch]


def _with_more(
    dataset: ManifestDataset, swap_stream: SwapStream | None, paraphrases: bool
) -> ManifestDataset | SwappedDataset | ParaphrasedDataset:
    """The rows with other patients' pictures and other wordings of the questions, where they are needed.

    With `pairs`, the dataset itself decodes the picture without the finding.
    """
    served = dataset if swap_stream is None else SwappedDataset(dataset, swap_stream)
    return ParaphrasedDataset(served) if paraphrases else served


def _has_gpu(trainer: L.Trainer) -> bool:
    """Whether a Trainer computes on a GPU, which copies from pinned memory while it computes."""
    return trainer.strategy.root_device.type == "cuda"


def _check(batch_size: int, border_crop: float, decode_seconds: float) -> None:
    """Refuse numbers that cannot work."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0.0 <= border_crop < 0.5:
        raise ValueError(f"border_crop must be in [0, 0.5), got {border_crop}")
    if not 0.0 < decode_seconds <= 86_400.0:
        raise ValueError(f"decode_seconds must be more than 0 and at most a day (86400), got {decode_seconds}")


def _picture_paths(table: MappedManifest, limit: int | None, pairs: bool) -> list[str]:
    """Paths of all pictures of the first `limit` rows, and of those without the finding; each once."""
    columns = [table.data.column(name).slice(0, limit) for name in ["image_path", "pair_path"][: 1 + pairs]]
    shown = pc.list_flatten(table.data.column("images").slice(0, limit))
    columns.append(pc.struct_field(shown, "path"))
    together = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    paths: list[str] = pc.unique(together).drop_null().to_pylist()
    return paths


def _image_codes(table: MappedManifest) -> Rows:
    """A number for the image of each row; a row without image id is an image of its own."""
    ids = pc.dictionary_encode(table.data.column("image_id")).combine_chunks()
    codes = pc.fill_null(ids.indices, -1).to_numpy().astype(np.int64)
    del ids
    pa.default_memory_pool().release_unused()  # frees the table of all ids, which nothing needs again
    return np.where(codes < 0, -1 - np.arange(len(codes)), codes)
