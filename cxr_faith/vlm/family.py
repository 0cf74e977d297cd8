"""What a family of models says of itself; everything else is the same for all of them.

A family (`cxr_faith.vlm.families`) is a class with its transformers class, its layout of image tokens, how pictures
become them, and how a filled chat template becomes tokens.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from cxr_faith.vlm.decoder import Decoder
from cxr_faith.vlm.folder import ModelFolder
from cxr_faith.vlm.layout import Layout
from cxr_faith.vlm.processor_parts import ProcessorParts

Size = tuple[int, int]


class Family(ABC):
    """What is particular to a family, before any weights are read."""

    model_class: ClassVar[Any]
    """The transformers class, whose `config_class.model_type` names the family."""
    decoder_class: ClassVar[type[Decoder]] = Decoder
    stops: ClassVar[tuple[str, ...]] = ()
    """Tokens that end an answer, besides the end of the sequence."""
    writes_bos: ClassVar[bool] = True
    """Whether a prompt starts with a BOS token."""
    computes: ClassVar[tuple[str, ...]] = ()
    """Settings that change logits or attention and that the family's decoder takes into account."""
    several: ClassVar[bool] = True
    """Whether a question may show several pictures, each read as it would be alone."""
    nullable: ClassVar[tuple[str, ...]] = ("sliding_window", "head_dim")
    """Sizes and sections that `config.json` may leave null."""

    @classmethod
    @abstractmethod
    def layout_of(cls, config: Any, image_size: Size | None = None) -> tuple[Layout, Size]:
        """Cells and token boxes, and the (H, W) of the pictures that the model gets.

        Args:
            config: the model's config.
            image_size: (H, W) at which pictures should be read; None: the family's own.

        Raises:
            ModelError: the family does not take pictures of this size.
        """

    @abstractmethod
    def encode_each(self, pixels: Tensor) -> Tensor:
        """Pixel values of single pictures [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""

    @classmethod
    def image_text(cls, processor: Any, config: Any, n_tokens: int) -> tuple[str, str]:
        """What the chat template writes in place of the picture, and the text of the image tokens instead of it."""
        mark: str = processor.tokenizer.convert_ids_to_tokens(config.image_token_id)
        return mark, mark * n_tokens

    @classmethod
    def check_config(cls, config: Any, source: object) -> None:
        """Refuse a config that this family does not read.

        Raises:
            ModelError: what is wrong with it.
        """
        return None

    @classmethod
    def layer_counts(cls, config: Any) -> dict[str, int]:
        """Name of a part of the weights → number of layers that it has by the config."""
        return {"vision_tower": config.vision_config.num_hidden_layers}

    @classmethod
    def load_processor(cls, folder: ModelFolder, config: Any) -> Any:
        """Tokenizer, chat template and image settings; see `ProcessorParts`.

        Raises:
            ModelError: a file is missing or damaged.
        """
        return ProcessorParts.load(folder)

    @classmethod
    def check_processor(cls, processor: Any, config: Any) -> None:
        """Refuse a processor that makes other pictures than the model takes.

        Raises:
            ModelError: what differs.
        """
        return None
