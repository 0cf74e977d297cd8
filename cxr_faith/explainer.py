"""The library's front door: explain and evaluate one answer about one picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cxr_faith.attribution import build_methods
from cxr_faith.data.images import Geometry, fit, load_image
from cxr_faith.perturb.engine import Engine
from cxr_faith.perturb.substrate import DEFAULT_SUBSTRATE, Substrate
from cxr_faith.report.figures import overlay
from cxr_faith.scoring import Case, Protocol, compute_maps, read_answers, score_image
from cxr_faith.vlm import Gemma3VLM, Target
from cxr_faith.vlm.answers import predicted_answer
from cxr_faith.vlm.base import VLM

Picture = str | Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why the model gave its answer.

    Attributes:
        map: float32 [gH, gW]; larger = more important for the answer.
        answer: `yes` or `no` for yes/no questions, else the generated text.
        tokens: the generated answer, token by token.
        target: the score that is explained.
        text_relevancy: relevance of each token around the image, (token, value) in order; None for methods that give
            none.
        metadata: question, method, kind, generated text, margin in logits, p_yes, yes_no_mass, image_id, grid, and what
            the method itself reports.
        picture: uint8 [H, W, 3], as given.
    """

    map: NDArray[np.float32]
    answer: str
    tokens: tuple[str, ...]
    target: Target
    text_relevancy: tuple[tuple[str, float], ...] | None
    metadata: Mapping[str, Any]
    picture: NDArray[np.uint8] = field(repr=False)
    geometry: Geometry = field(repr=False)
    _case: Case = field(repr=False)
    _pixels: Tensor = field(repr=False)

    def plot(self) -> Figure:
        """The map on its picture, in the picture's own proportions, with patient sides marked."""
        title = f"{self.metadata['question']} {self.answer} ({self.metadata['method']})"
        top, left, height, width = self.geometry.crop
        return overlay(self.picture, self.map, title, region=(top, left, height, width))

    def overlay(self, size: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """The map on the pixel grid of the picture, nearest neighbor.

        Args:
            size: (height, width) of the result; default: the picture's own.

        Returns:
            float32 [height, width].
        """
        height, width = size or self.picture.shape[:2]
        rows = np.arange(height) * self.map.shape[0] // height
        columns = np.arange(width) * self.map.shape[1] // width
        return np.ascontiguousarray(self.map[rows][:, columns])


class Explainer:
    """Explains a vision-language model's answers and scores the explanations.

    Example:
        >>> import cxr_faith
        >>> explainer = cxr_faith.Explainer.from_pretrained(cxr_faith.bundled_model(), device="cpu")
        >>> picture = np.full((288, 256, 3), 90, np.uint8)
        >>> explanation = explainer.explain(picture, "Is there a nodule?", method="chefer")
        >>> explanation.map.shape
        (12, 12)
    """

    def __init__(self, vlm: VLM, seed: int = 0, max_new_tokens: int = 32) -> None:
        """Use a loaded model.

        Args:
            vlm: the model.
            seed: of every random stream, together with the picture's id.
            max_new_tokens: longest answer that is generated.
        """
        self.vlm, self.seed, self.max_new_tokens = vlm, seed, max_new_tokens
        self._engine = Engine(vlm)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> "Explainer":
        """Load a Gemma-3 or MedGemma from a local folder or a hub id.

        Args:
            path_or_id: folder or hub id; `cxr_faith.bundled_model()` is the small one that ships.
            device: default: cuda if there is one, else cpu.
            dtype: default: bfloat16 on cuda, float32 on cpu.
        """
        return cls(Gemma3VLM.from_pretrained(path_or_id, device, dtype))

    def explain(
        self,
        image: Picture,
        question: str,
        method: str | Mapping[str, Any] = "chefer",
        target: str | int = "answer",
        kind: str | None = None,
        image_id: str | None = None,
    ) -> Explanation:
        """Ask a question and explain the model's own answer.

        Args:
            image: path of a JPEG, PNG or DICOM file, a PIL image, or uint8 [H, W] or [H, W, 3].
            question: as it would be asked.
            method: a name of `cxr_faith.attribution.METHODS`, or `{"class": name, options…}`.
            target: `answer` (yes/no: the margin; else the mean log-probability of all answer tokens), `first`, or the
                0-based index of an answer token.
            kind: `yes_no`, `choice` or `open`; default: decided from the first generated token.
            image_id: seeds everything random; default: the file's name, or `image`.

        Raises:
            ValueError: the picture cannot be read, no such method or option, or the answer has no such token.
        """
        settings = {"class": method} if isinstance(method, str) else dict(method)
        name = str(settings.get("class", ""))
        methods = build_methods({name: settings})
        if methods[name].needs_mask:
            raise ValueError(f"{name} needs a finding mask, which a single picture does not have")
        picture = _picture(image)
        image_id = image_id or (Path(image).name if isinstance(image, str | Path) else "image")
        fitted, geometry = fit(picture, self.vlm.image_size)
        pixels = self.vlm.normalize(fitted[None])[0]
        protocol = Protocol(target=target, max_new_tokens=self.max_new_tokens, seed=self.seed)
        case = read_answers(self.vlm, pixels, image_id, [question], [kind], protocol)[0]
        if case.target is None:
            raise ValueError(case.reason)
        compute_maps(self.vlm, methods, [pixels], [case], self.seed, only_in_format=False)
        return self._explanation(case, name, picture, geometry, pixels)

    def evaluate(
        self,
        explanation: Explanation,
        substrate: str = DEFAULT_SUBSTRATE,
        steps: int = 50,
        random_orders: int = 20,
    ) -> SimpleNamespace:
        """Score an explanation: deletion and insertion curves, and gaps to random orders and to the center.

        Args:
            explanation: of this explainer's model.
            substrate: what stands for removed cells, such as `blur:0.1`, `mean`, `zero`, `noise`.
            steps: points of a curve after the first.
            random_orders: orders of the random baseline; even.

        Returns:
            An object whose attributes carry the names of the record columns (`deletion_auc`, `insertion_auc`, `srg`,
            `drop_50`, `gap_srg_random`, `status`, …); missing values are NaN or None.

        Raises:
            ValueError: unknown substrate, or a schedule that does not fit the grid.
        """
        protocol = Protocol((substrate,), steps, random_orders, seed=self.seed)
        protocol.check_grid(self.vlm.grid)
        case, method = explanation._case, explanation.metadata["method"]
        if case.off_format:
            reason = f"p(yes) + p(no) is {case.reply.yes_no_mass:.3f} at the first step"
            return SimpleNamespace(method=method, substrate=substrate, status="off_format", reason=reason)
        pixels, chosen = explanation._pixels, Substrate.parse(substrate)
        rows = score_image(self._engine, pixels, case.image_id, [case], chosen, protocol)[0]
        return SimpleNamespace(method=method, substrate=chosen.spec, **rows[method])

    def _explanation(
        self, case: Case, method: str, picture: NDArray[np.uint8], geometry: Geometry, pixels: Tensor
    ) -> Explanation:
        assert case.target is not None
        reply, yes_no = case.reply, case.kind == "yes_no"
        metadata = {
            "question": case.prompt.question,
            "method": method,
            "kind": case.kind,
            "generated": reply.text,
            "margin": reply.margin if yes_no else None,
            "p_yes": float(torch.tensor(reply.margin).double().sigmoid()) if yes_no else None,
            "yes_no_mass": reply.yes_no_mass,
            "image_id": case.image_id,
            "grid": self.vlm.grid,
        }
        return Explanation(
            map=case.maps[method],
            answer=predicted_answer(reply, case.kind),
            tokens=tuple(self.vlm.decode(reply.token_ids)),
            target=case.target,
            text_relevancy=_text_relevancy(self.vlm, case, method),
            metadata=metadata | case.extras[method],
            picture=picture,
            geometry=geometry,
            _case=case,
            _pixels=pixels,
        )


def _text_relevancy(vlm: VLM, case: Case, method: str) -> tuple[tuple[str, float], ...] | None:
    """(token, relevance) of the text tokens around the image, where the method gives a value to each position."""
    sequence = case.sequences.get(method)
    if sequence is None or case.target is None:
        return None
    prompt = case.prompt
    ids = prompt.prefix_ids + prompt.suffix_ids + case.target.forced_ids
    text = [i for i in range(len(ids)) if not prompt.image_start <= i < prompt.image_start + vlm.n_cells]
    return tuple(zip(vlm.decode([ids[i] for i in text]), sequence[text].tolist(), strict=True))


def _picture(image: Picture) -> NDArray[np.uint8]:
    """Any accepted picture as uint8 [H, W, 3].

    Raises:
        ValueError: not a picture.
    """
    if isinstance(image, str | Path):
        return load_image(image)
    array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture must be uint8 [H, W] or [H, W, 3], got {array.dtype} {list(array.shape)}")
    return np.ascontiguousarray(np.broadcast_to(array[..., None], (*array.shape, 3)) if array.ndim == 2 else array)
