"""Use explanations with other toolkits: Captum and Quantus interfaces, and records as a `datasets.Dataset`.

None of these libraries is imported before it is needed.

Examples:
    >>> from captum.metrics import sensitivity_max                              # doctest: +SKIP
    >>> classifier = YesNoClassifier(explainer, "Is there a nodule?")           # doctest: +SKIP
    >>> maps = MapAttribution(classifier, "chefer")                             # doctest: +SKIP
    >>> sensitivity_max(maps.attribute, pixels, target=1)                       # doctest: +SKIP
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from cxr_faith.attribution import AttributionBatch, build_methods
from cxr_faith.explainer import Explainer, Picture
from cxr_faith.explainer.answer_explainer import MethodSpec
from cxr_faith.records import RECORD_SCHEMA, read_records
from cxr_faith.vlm.base import Target

if TYPE_CHECKING:
    import datasets

Classes = int | Sequence[int] | Tensor
"""0 or 1 (`NO` or `YES`) for all pictures, or one for each."""

NO, YES = 0, 1
"""The two classes of a `YesNoClassifier`."""


def explain_function(
    explainer: Explainer, method: MethodSpec = "chefer"
) -> Callable[[Picture, str], NDArray[np.float32]]:
    """A plain function (picture, question) → map [grid_h, grid_w], for toolkits that take such functions.

    A robustness suite can call it with paraphrases of one question about one picture. Each map explains the model's
    own answer to that wording, and no random number depends on the wording.
    """

    def explain(image: Picture, question: str) -> NDArray[np.float32]:
        return explainer.explain(image, question, method).map

    return explain


class YesNoClassifier(nn.Module):
    """One yes/no question as a classifier of pictures: logits [batch, 2] whose difference is the margin.

    Class 1 (yes) has the margin as its logit and class 0 (no) has 0, so softmax gives p(yes) = sigmoid(margin).

    Args:
        explainer: holds the model.
        question: the yes/no question that is asked about every picture.

    Raises:
        ValueError: the model thinks first, so that each picture has a prompt of its own.
    """

    def __init__(self, explainer: Explainer, question: str) -> None:
        super().__init__()
        self.vlm, self.seed = explainer.vlm, explainer.seed
        self.question, self._prompt = question, explainer.vlm.prompt(question)
        if self._prompt.thought is not None:
            raise ValueError("a model that thinks first has a prompt for each picture: load it without reasoning")

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of no and yes, float32 [batch, 2].

        Args:
            pixels: pixel values as the model gets them (`vlm.normalize`), [batch, 3, H, W].
        """
        with torch.no_grad():
            prefix = self.vlm.prefill(self.vlm.encode(pixels.to(self.vlm.device).float()))
            margin = self.vlm.score(prefix, self._prompt, Target("margin")).s.float()
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


class MapAttribution:
    """Any attribution method of this package behind Captum's interface, `attribute(inputs, target)`.

    Each pixel gets the value of its cell, in every channel.

    Args:
        classifier: the question; Captum calls it `forward_func`.
        method: a name of `cxr_faith.attribution.METHODS`, or `{"class": name, options…}`.
        image_id: seeds what is random in a method, in the same way for all pictures, so that tests with noisy pictures
            compare nothing but the maps.

    Raises:
        ValueError: unknown method or option, or a method that needs a finding mask.
    """

    def __init__(self, classifier: YesNoClassifier, method: MethodSpec = "chefer", image_id: str = "image") -> None:
        settings = {"class": method} if isinstance(method, str) else dict(method)
        name = str(settings.get("class", ""))
        self.forward_func, self._method = classifier, build_methods({name: settings})[name]
        if self._method.needs_mask:
            raise ValueError(f"{name} needs a finding mask, which a picture alone does not have")
        self._image_id = image_id

    def attribute(
        self, inputs: Tensor | tuple[Tensor, ...], target: Classes | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Attributions in the shape of the inputs, float32 [batch, 3, H, W].

        Args:
            inputs: pixel values as the model gets them, [batch, 3, H, W]. Captum's metrics pass a tuple of one and get
                a tuple back.
            target: 1 explains "yes", 0 explains "no", for all pictures or one for each; default: the model's own
                answer.
        """
        if isinstance(inputs, tuple):
            (pictures,) = inputs
            return (self._spread(pictures, target),)
        return self._spread(inputs, target)

    def _spread(self, inputs: Tensor, target: Classes | None) -> Tensor:
        """The maps on the pixel grid."""
        maps = self.maps(inputs, target)
        height, width = inputs.shape[-2:]
        rows = torch.arange(height, device=maps.device) * maps.shape[1] // height
        columns = torch.arange(width, device=maps.device) * maps.shape[2] // width
        return maps[:, rows][:, :, columns][:, None].expand(-1, inputs.shape[1], -1, -1).to(inputs.device).contiguous()

    def maps(self, inputs: Tensor, target: Classes | None = None) -> Tensor:
        """The maps, float32 [batch, grid_h, grid_w]; arguments as for `attribute`."""
        classifier, vlm = self.forward_func, self.forward_func.vlm
        pixels = inputs.detach().to(vlm.device).float()
        chosen = classifier(pixels).argmax(1) if target is None else torch.as_tensor(target).reshape(-1)
        signs = [1 if int(one) == YES else -1 for one in chosen.expand(len(pixels)).tolist()]
        maps = []
        for picture, sign in zip(pixels, signs, strict=True):  # one at a time, see cases.compute_maps
            batch = AttributionBatch(picture[None], [classifier._prompt], [self._image_id], classifier.seed)
            maps.append(self._method.attribute(vlm, batch, [Target("margin", sign=sign)]).maps[0].float())
        return torch.stack(maps)


def quantus_explain(
    model: YesNoClassifier,
    inputs: ArrayLike,
    targets: ArrayLike,
    method: MethodSpec = "chefer",
    **_: object,
) -> NDArray[np.float32]:
    """An `explain_func` for Quantus.

    Args:
        model: the classifier that the metric was given.
        inputs: pixel values as the model gets them, [batch, 3, H, W].
        targets: classes, [batch].
        method: as for `MapAttribution`; set it in `explain_func_kwargs`.
        **_: other arguments of Quantus, such as the device, which are ignored.

    Returns:
        float32 [batch, 1, H, W].
    """
    pixels = torch.as_tensor(np.asarray(inputs, np.float32))
    chosen = torch.as_tensor(np.asarray(targets)).reshape(-1)
    return MapAttribution(model, method)._spread(pixels, chosen)[:, :1].cpu().numpy()


def records_dataset(run_dir: str | Path, columns: Sequence[str] | None = None) -> "datasets.Dataset":
    """A run's merged records as a `datasets.Dataset` in memory, with the types of the records' schema.

    Args:
        run_dir: the run directory.
        columns: only these columns and the key; default: all.

    Raises:
        ValueError: unknown column.
    """
    import datasets  # takes seconds to load, and nothing else here needs it

    frame = read_records(run_dir, columns)
    schema = pa.schema([RECORD_SCHEMA.field(name) for name in frame.columns])
    return datasets.Dataset(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
