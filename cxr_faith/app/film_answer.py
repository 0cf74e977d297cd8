"""One film that a user dropped: ask the model, explain the answer with several methods, and draw all of it."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_faith.app.film_dicom import dicom_zip, is_dicom
from cxr_faith.attribution import METHODS
from cxr_faith.data.orientation import USUAL_SIDES, Sides
from cxr_faith.explainer import Explainer, Explanation
from cxr_faith.explainer.answer_explainer import methods_for
from cxr_faith.explainer.drawing import answer_panel, drawn_picture, figure_bytes, film_frames
from cxr_faith.explainer.pictures import Oriented, read_oriented
from cxr_faith.printable import json_text, printable
from cxr_faith.records.controls import is_control
from cxr_faith.report.film import MOVING_SHARES, Frame
from cxr_faith.report.grids import OWN_SCALE, token_strip
from cxr_faith.vlm.transformers_vlm import TransformersVLM

MOST_METHODS = 6
"""Rows of a panel that a screen and a reader can take."""

POINTS = 10
"""Points of a curve; `cxr-faith explain` has 50 by default, and takes five times as long."""

Told = Callable[[float, str], None]
"""Is told the share of the work that is done, and what comes next."""


class FilmError(ValueError):
    """The user asked for something that cannot be done; the message is one line that says what to do."""


@dataclass(frozen=True, eq=False)
class Film:
    """A picture that a user dropped; it is held in memory alone."""

    name: str
    """Of its file, without folders; seeds everything random, as for `cxr-faith explain`."""
    picture: NDArray[np.uint8]
    """[H, W, 3]."""
    dicom: bytes | None = None
    """The whole file, if it is a DICOM file."""
    sides: Sides = USUAL_SIDES
    """The patient's sides at the picture's left and right edges."""

    @property
    def shown(self) -> Oriented:
        """What the model is asked about."""
        return Oriented(self.picture, self.sides)


@dataclass(frozen=True)
class Question:
    """What the user asked and chose."""

    text: str
    """As written."""
    methods: tuple[str, ...]
    """One or more."""
    judge: bool = True
    """Compare the maps with 20 random orders, for their verdicts."""
    tokens: bool = False
    """Also map each word of the answer, by the first method."""


@dataclass(frozen=True, eq=False)
class FilmAnswer:
    """An explained answer as files and frames."""

    explanations: Sequence[Explanation]
    """One for each method, in the order in which they were chosen."""
    files: dict[str, bytes]
    """Ending → the content that can be downloaded: the panel as `png` and `pdf`, and the numbers as `json`."""
    films: dict[str, list[Frame]]
    """Method → the picture while its cells are removed, a frame for each of `MOVING_SHARES`."""
    token_maps: bytes | None
    """A map for each word of the answer, as a PNG file."""
    objects: Callable[[], bytes | None] | None = None
    """Makes the DICOM objects of a DICOM film as a ZIP file; None for another film, or without the extra."""


def read_film(content: bytes, name: str) -> Film:
    """The picture in a dropped file.

    Raises:
        FilmError: it is no picture that can be read.
    """
    name = printable(PureWindowsPath(Path(name).name).name) or "film"
    try:
        read = read_oriented(content)
        return Film(name, read.pixels, content if is_dicom(content) else None, read.sides)
    except ValueError as error:
        reason = str(error).removeprefix("the picture's bytes: ")
        raise FilmError(f"{name} cannot be read: {reason}. Drop a PNG, JPEG or DICOM file.") from error


class FilmRoom:
    """A loaded model that answers about dropped films, one at a time.

    Args:
        explainer: the model.

    Attributes:
        methods: those that explain an answer about one film with this model; controls come last.
    """

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self.methods = sorted(filter(self._fits, METHODS), key=lambda name: (is_control(name), name))

    def ask(self, film: Film | None, question: Question, told: Told = lambda done, what: None) -> FilmAnswer:
        """Ask, explain and draw.

        Args:
            film: what was dropped.
            question: what is asked of it.
            told: is told how far it is.

        Raises:
            FilmError: something is missing, or the model cannot answer or explain it.
        """
        if film is None:
            raise FilmError("There is no film yet. Drop a PNG, JPEG or DICOM file first.")
        if not question.text.strip():
            raise FilmError("There is no question yet. Write one, such as: Is there a nodule?")
        if not 0 < len(question.methods) <= MOST_METHODS:
            raise FilmError(f"Choose 1 to {MOST_METHODS} methods; {len(question.methods)} are chosen.")
        try:
            return self._answer(film, question, told)
        except ValueError as error:
            raise FilmError(f"{printable(str(error))}. Ask another question or choose other methods.") from error

    def _answer(self, film: Film, question: Question, told: Told) -> FilmAnswer:
        told(0.05, "asking the model")
        explained = self._explainer.compare(film.shown, question.text, question.methods, image_id=film.name)
        each = list(explained.values())
        told(0.25, "removing cells in the order of each map, and in random orders")
        if question.judge:
            self._explainer.evaluate_together(each, steps=min(POINTS, self._explainer.vlm.n_cells))
        told(0.8, "drawing")
        figure = answer_panel(each)
        files = {ending: figure_bytes(figure, ending) for ending in ("png", "pdf")}
        files["json"] = (json_text(self._numbers(each)) + "\n").encode()
        films = {one.method: film_frames(one, MOVING_SHARES) for one in each}
        token_maps = self._token_maps(film, question) if question.tokens else None
        return FilmAnswer(each, files, films, token_maps, self._objects(film, each))

    def _objects(self, film: Film, each: Sequence[Explanation]) -> Callable[[], bytes | None] | None:
        vlm = self._explainer.vlm
        if film.dicom is None or not isinstance(vlm, TransformersVLM) or find_spec("highdicom") is None:
            return None
        return partial(dicom_zip, film.dicom, each, vlm)

    def _numbers(self, each: Sequence[Explanation]) -> dict[str, object]:
        vlm = self._explainer.vlm
        assert isinstance(vlm, TransformersVLM)
        return {
            "methods": {one.method: one.to_dict() for one in each},
            "model": Path(vlm.source).name,
            **vlm.settings(),
        }

    def _token_maps(self, film: Film, question: Question) -> bytes:
        method = question.methods[0]
        each = self._explainer.explain_tokens(film.shown, question.text, method, image_id=film.name)
        first = each[0]
        texts = [first.tokens[index] for one in each for index in one.target.scored]
        maps, title = [one.map for one in each], f"{question.text} ({method})"
        picture, region, _ = drawn_picture(first)
        strip = token_strip(picture, texts, maps, region, title=title, footnote=OWN_SCALE, sides=film.sides)
        return figure_bytes(strip, "png")

    def _fits(self, name: str) -> bool:
        try:
            methods_for(self._explainer.vlm, {name: {"class": name}})
        except (ValueError, TypeError):  # it needs a mask, a file, or a model of another kind
            return False
        return True


def jpeg(picture: NDArray[np.uint8], longest: int = 512) -> bytes:
    """A picture as a JPEG file, at most so many pixels on a side."""
    shown, file = Image.fromarray(picture), io.BytesIO()
    shown.thumbnail((longest, longest))
    shown.save(file, "JPEG", quality=85)
    return file.getvalue()
