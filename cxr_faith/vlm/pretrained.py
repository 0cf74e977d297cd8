"""A model of any family, loaded from a folder or a hub id."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cxr_faith.data.sheets import apart
from cxr_faith.vlm.checkpoint import load_model
from cxr_faith.vlm.config import ModelConfig, PromptOptions, check_faster, default_template
from cxr_faith.vlm.decoder import check_head
from cxr_faith.vlm.devices import check_device, choose_accelerator, default_dtype, exact_arithmetic
from cxr_faith.vlm.errors import ModelError
from cxr_faith.vlm.family import Family, Size
from cxr_faith.vlm.hub import resolved_revision
from cxr_faith.vlm.kernels import use_kernels
from cxr_faith.vlm.model_files import checked_processor, make_prompter, open_model
from cxr_faith.vlm.transformers_vlm import TransformersVLM


class FamilyVLM(Family, TransformersVLM):
    """A model of one family, and its processor.

    Args:
        model: the transformers model.
        processor: what `load_processor` gives.
        prompts: how questions are put to the model.
        source: the folder or hub id that the model came from, for the run's provenance.
        image_size: (H, W) at which pictures are read, for a family that takes several sizes; default: its own.
        faster: faster kernels, of `config.FASTER`; they change the model that is given.

    Raises:
        ModelError: model and processor do not fit together, or yes and no are not single tokens.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        prompts: PromptOptions = PromptOptions(),  # noqa: B008 - frozen
        source: str = "",
        image_size: Size | None = None,
        faster: Collection[str] = (),
    ) -> None:
        self.faster = check_faster(faster)
        layout, size = self.layout_of(model.config, image_size)
        prompter = make_prompter(type(self), processor, model.config, prompts, image_size)
        super().__init__(processor, self.decoder_class(model, layout), layout, size, self.stops, prompter, source)
        use_kernels(model, self.faster, self.decoder.norm_offset)
        check_head(self.decoder)
        mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
        self._mean, self._std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        prompts: PromptOptions | None = None,
        revision: str | None = None,
        image_size: Size | None = None,
        faster: Collection[str] = (),
    ) -> Self:
        """Load from a local folder or a hub id; safetensors only, no remote code.

        On a GPU this also settles how the process computes, see `exact_arithmetic`.

        Args:
            path: folder with `config.json`, or a hub id such as `google/medgemma-4b-it`.
            device: default: cuda if there is one, else cpu.
            dtype: default: bfloat16 on cuda, float32 on cpu. float16 overflows in many models and is refused.
            prompts: how questions are put to the model; default: with `default_template`.
            revision: branch, tag or commit of a hub id; default: main.
            image_size: (H, W) at which pictures are read, for a family that takes several sizes.
            faster: faster kernels, of `config.FASTER`.

        Raises:
            ModelError: a file of the model is missing or damaged, the files do not fit each other, or it is another
                kind of model.
            ValueError: the device cannot compute the scores.
        """
        device = check_device(device or choose_accelerator())
        exact_arithmetic(device)
        dtype = dtype or default_dtype(device)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        if dtype == torch.float16:
            raise ModelError("float16 overflows to NaN in Gemma 3 and other models: use bfloat16 or float32")
        folder, config = open_model(cls, path, revision)
        prompts = prompts or PromptOptions(default_template(path))
        processor = checked_processor(cls, folder, config, str(path), prompts, image_size)
        config._commit_hash = resolved_revision(path, folder.path) or None
        model = load_model(cls.model_class, config, folder, dtype)
        return cls(model.to(device), processor, prompts, str(path), image_size, faster)

    @classmethod
    def of(cls, config: ModelConfig, device: torch.device | str | None = None) -> Self:
        """Load the model of a run's config; see `from_pretrained`."""
        options = (config.prompts, config.revision, config.image_size, config.faster)
        return cls.from_pretrained(config.source, device, config.dtype, *options)

    def identity(self) -> dict[str, str]:
        """What numbers depend on, with the faster kernels where there are some; see `TransformersVLM.identity`."""
        return super().identity() | ({"faster": "+".join(self.faster)} if self.faster else {})

    def showing(self, pictures: int) -> TransformersVLM:
        """The same model, shown this many pictures a question; see `VLM.showing`."""
        if pictures != 1 and not self.several:
            raise ModelError(f"a {self.model.config.model_type} model is shown one picture a question, not {pictures}")
        return super().showing(pictures)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]; see `VLM.encode`."""
        tokens = self.encode_each(apart(pixels, self.pictures))
        return tokens if self.pictures == 1 else tokens.unflatten(0, (-1, self.pictures)).flatten(1, 2)

    def normalize(self, images: Tensor) -> Tensor:
        """Pictures uint8 [batch, 3, H, W] to the float32 pixel values that the model gets."""
        return (images.to(self.device).float() / 255 - self._mean.to(self.device)) / self._std.to(self.device)

    def denormalize(self, pixels: Tensor) -> Tensor:
        """The inverse of `normalize`, rounded to uint8."""
        values = pixels * self._std.to(pixels.device) + self._mean.to(pixels.device)
        return (values * 255).round().clamp(0, 255).to(torch.uint8)

    def resized(self, pixels: Tensor, size: Size) -> Tensor:
        """Pixel values [batch, 3, H, W] at another (H, W), by the clipped bicubic filter of image processors."""
        low, high = ((level - self._mean) / self._std for level in (0.0, 1.0))
        filtered = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True)
        return filtered.clamp(low.to(pixels.device), high.to(pixels.device))
