"""From a picture to image tokens: the stages of a VLM that see no question."""

from abc import ABC, abstractmethod

from torch import Tensor

from cxr_faith.vlm.errors import ModelError


class PictureStage(ABC):
    """The vision tower and its projector, whole and in parts. Parts that a model does not show are refused."""

    @abstractmethod
    def normalize(self, images: Tensor) -> Tensor:
        """Pictures uint8 [batch, 3, H, W] to the float32 pixel values that the model gets."""

    @abstractmethod
    def denormalize(self, pixels: Tensor) -> Tensor:
        """The inverse of `normalize`, rounded to uint8."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixel values [batch, 3, H, W] to projected image tokens [batch, tokens, hidden]."""

    def embed(self, pixels: Tensor) -> Tensor | None:
        """Patch embeddings [batch, rows, columns, channels], each computed from its own patch alone.

        A cell is a block of whole patches, so a picture whose cells come from two others can be composed from the
        embeddings of these two.

        Returns:
            None for a model without this stage.
        """
        return None

    def encode_embedded(self, embedded: Tensor) -> Tensor:
        """What `encode` gives, from what `embed` gives."""
        raise NotImplementedError(f"{type(self).__name__} has no patch embeddings")

    def tower_stream(self, pixels: Tensor, layer: int) -> Tensor:
        """The residual stream of the vision tower after a layer.

        Args:
            pixels: pixel values [batch, 3, H, W].
            layer: 0-based index of the tower's layer.

        Returns:
            [batch, patches, width], patches row by row over a square grid.

        Raises:
            ModelError: no such layer, or the tower cannot be observed.
        """
        raise self._tower_not_shown()

    def encode_stream(self, stream: Tensor, layer: int) -> Tensor:
        """What `encode` gives, from what `tower_stream` gives."""
        raise self._tower_not_shown()

    def tower_identity(self) -> str:
        """Hash of the vision tower's weights, the same in float32 and bfloat16.

        Raises:
            ModelError: the tower cannot be observed.
        """
        raise self._tower_not_shown()

    def _tower_not_shown(self) -> ModelError:
        return ModelError(f"{type(self).__name__} does not show its vision tower; of the families, gemma3 alone does")
