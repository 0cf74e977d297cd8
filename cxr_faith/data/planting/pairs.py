"""From a manifest of films to a manifest of planted pairs; `cxr-faith prepare planted` prints what this returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxr_faith.data.boxes import box_of_mask
from cxr_faith.data.folder import new_folder, noted_root, write_card, write_shards
from cxr_faith.data.images import ImageError
from cxr_faith.data.intake import kind_of_fault
from cxr_faith.data.manifest import open_manifest
from cxr_faith.data.masks import file_name, write_mask
from cxr_faith.data.planting.blend import Planted, blend
from cxr_faith.data.planting.film import PlantError
from cxr_faith.data.planting.films import OpenFilm, Row, open_film, rows_of
from cxr_faith.data.planting.objects import KINDS, draw, generator, kinds_named, side_in
from cxr_faith.data.prepare import REASONS_SHOWN, Prepared, Progress
from cxr_faith.data.sample import Box, Sample
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.storage.atomic import replacing

SOURCE = "planted"
FILM = "film"
"""Last part of the sample id of a film without its object."""


@dataclass(frozen=True)
class PlantOptions:
    """How objects are planted.

    Attributes:
        out: folder of the new manifest, of the films and of their planted copies; a prepared one is replaced.
        findings: what is planted, with commas; the question and the reference are about it.
        per_image: number of objects that are planted in copies of each film, each by itself.
        contrast: how strong they are, with commas; 1 is plain to see. Each object is planted at every contrast.
        spacing: millimeters per pixel of all films; default: what the header of a DICOM film says, else the longer side
            of the film counts as 430 mm.
        normal: all films are normal: the reference of each film is no. Otherwise it is no only where a row says so.
        question: the question, with {a} for the object and its article. If it names a side of the patient, left or
            right, objects are planted on that side.
        own_questions: keep the yes/no questions and answers of the films in place of questions about the object: does
            an object that means nothing, such as a marker, change what the model says?
        with_yes: plant the object in this share of the films whose answer is yes, and in the rest of those whose answer
            is no: a training set with a shortcut. Each question has one picture then. Implies `own_questions`.
        seed: another seed draws other objects.
        root: data root of the manifest; default: the one noted by `prepare`.
        limit: take the first LIMIT films only.
    """

    out: str
    findings: str = "nodule,mass,consolidation,pleural_effusion,pneumothorax,line,device,marker"
    per_image: int = 2
    contrast: str = "0.5,1,2"
    spacing: float | None = None
    normal: bool = False
    question: str = "Is there {a}?"
    own_questions: bool = False
    with_yes: float | None = None
    seed: int = 0
    root: str | None = None
    limit: int | None = None

    def contrasts(self) -> list[float]:
        """The contrasts, weakest first.

        Raises:
            PrepareError: one is no positive number.
        """
        try:
            values = sorted({float(value) for value in self.contrast.split(",")})
        except ValueError:
            values = [0.0]
        if not 0 < values[0] <= values[-1] <= 10:
            raise PrepareError(f"--contrast must be numbers above 0 and up to 10, got {self.contrast!r}")
        return values


def plant_pairs(manifest: Path, options: PlantOptions, progress: Progress = lambda done, total: None) -> Prepared:
    """Plant objects in copies of a manifest's films and write the manifest of the pairs.

    Each object has a row for the film and one for each contrast of its planted copy, with the same question. Pictures
    are written without loss, so a copy differs from its film at the pixels of the object's mask and nowhere else.

    Args:
        manifest: Parquet file or folder.
        options: what to plant.
        progress: called after each film.

    Raises:
        ValueError: an option or the manifest cannot be used, or no film can be planted in; nothing is written then.
    """
    findings, contrasts = kinds_named(options.findings.split(",")), options.contrasts()
    _check(manifest, options)
    root = Path(options.root) if options.root else noted_root(manifest) or manifest.absolute().parent
    tally, out = Tally(), Path(options.out)
    rows = list(rows_of(open_manifest(manifest)))[: options.limit]
    with new_folder(out) as folder:
        maker = _Maker(root, manifest if manifest.is_dir() else manifest.parent, folder, options, contrasts, tally)

        def samples() -> Iterator[Sample]:
            for done, row in enumerate(rows, 1):
                yield from maker.of_film(row, findings)
                progress(done, len(rows))

        if not write_shards(samples(), folder):
            reasons = "; ".join(f"{count}  {why}" for why, count in tally.reasons.most_common(REASONS_SHOWN))
            raise PrepareError(f"{manifest}: nothing could be planted: {reasons or 'it names no film'}")
        given = {name: value for name, value in vars(options).items() if name not in ("out", "root")}
        about = {
            "source": SOURCE,
            "data_root": str(out.resolve()),
            "options": {name: value for name, value in given.items() if value not in (None, False)},
        }
        return Prepared.from_card(out, write_card(folder, tally, about))


def _check(manifest: Path, options: PlantOptions) -> None:
    """Refuse options that cannot work, before anything is read or written."""
    if options.per_image < 1:
        raise PrepareError(f"--per_image must be at least 1, got {options.per_image}")
    if options.limit is not None and options.limit < 1:
        raise PrepareError(f"--limit must be at least 1, got {options.limit}")
    if options.spacing is not None and not 0 < options.spacing < np.inf:
        raise PrepareError(f"--spacing must be more than 0 mm, got {options.spacing:g}")
    if "{a}" not in options.question:
        raise PrepareError("--question must hold {a}, which stands for the object")
    if options.with_yes is not None and not 0 <= options.with_yes <= 1:
        raise PrepareError(f"--with_yes is a share from 0 to 1, got {options.with_yes:g}")
    if manifest.resolve().is_relative_to(Path(options.out).resolve()):
        raise PrepareError(f"--out {options.out} is or holds the manifest: the new one would take its place")


class _Maker:
    """Makes the pairs of one film after the other."""

    def __init__(
        self, root: Path, own_root: Path, folder: Path, options: PlantOptions, contrasts: list[float], tally: Tally
    ) -> None:
        self.root, self.own_root, self.folder = root, own_root, folder
        self.options, self.contrasts, self.tally = options, contrasts, tally
        self.is_own = options.own_questions or options.with_yes is not None
        self.side = None if self.is_own else side_in(options.question)

    def of_film(self, row: Row, findings: list[str]) -> Iterator[Sample]:
        """The samples of a film; nothing, and counted, where it can't be used."""
        image_id = row.sample.image_id
        try:
            opened = open_film(row.sample, self.root, self.own_root, self.options.spacing)
        except ImageError as error:
            self.tally.drop("image", image_id, kind_of_fault(str(error)), error)
            return
        except PlantError as error:
            self.tally.drop("image", image_id, str(error))
            return
        if not opened.known_spacing:
            self.tally.note("films without pixel spacing: sizes are shares of the film")
        if opened.orientation is None:
            self.tally.note("films without stated orientation: the patient's right is taken to be on the left")
        if not any("lung" in label.casefold() for label in opened.masks):
            self.tally.note("films without lung masks: the lungs are looked for at stated shares of the film")
        base = self._film(row.sample, opened)
        taken = 0
        order = generator(self.options.seed, image_id, "", "findings").permutation(len(findings))
        for finding in (findings[index] for index in order):
            if taken == self.options.per_image:
                return
            pair = list(self._pair(row, base, opened, finding))
            taken += bool(pair)
            for sample in pair:
                self.tally.take(sample)
                yield sample

    def _pair(self, row: Row, base: Sample, opened: OpenFilm, finding: str) -> Iterator[Sample]:
        """The film's row and those of its planted copies, for each question; nothing where one cannot be made."""
        copies = self._copies(row, base, opened, finding)
        for asked in self._asked(row, base, finding) if copies else ():
            has_film, places = self._shown(asked)
            if has_film:
                _write_picture(opened.pixels, self.folder / base.image_path)
                yield replace(asked, sample_id=f"{asked.pair_id}/{FILM}")
            for place in places:
                yield self._copy(asked, copies[place], self.contrasts[place])

    def _copies(self, row: Row, base: Sample, opened: OpenFilm, finding: str) -> list[Planted]:
        """The film with the object at each contrast; none, and counted, where it cannot be planted."""
        kind, image_id = KINDS[finding], base.image_id
        if any(name in row.present for name in kind.same_as):
            self.tally.drop("object", f"{image_id}/{finding}", "the film has it, or may have it, already")
            return []
        stream = partial(generator, self.options.seed, image_id, finding)
        try:
            item, noise = draw(kind, opened.film, self.side, stream), stream("noise")
            return [blend(opened.film, item, contrast, noise) for contrast in self.contrasts]
        except PlantError as error:
            self.tally.drop("object", f"{image_id}/{finding}", str(error))
            return []

    def _asked(self, row: Row, base: Sample, finding: str) -> Iterator[Sample]:
        """The film's row of each question: the one about the object, or its own."""
        kind = KINDS[finding]
        if not self.is_own:
            pair_id = f"{base.image_id}/{finding}"
            absent = self.options.normal or any(name in row.absent for name in kind.same_as[:1])
            answer = ("no",) if absent else None
            question = self.options.question.format(a=kind.phrase)
            yield replace(_pair_of(base, pair_id, finding, question, answer), side=self.side)
            return
        if not row.answered:
            self.tally.drop("image", base.image_id, "it has no yes/no question with a known answer")
        for own in row.answered:
            pair = _pair_of(base, f"{own.sample_id}/{finding}", finding, own.question, own.answer)
            yield replace(pair, side=own.side)

    def _shown(self, asked: Sample) -> tuple[bool, list[int]]:
        """Whether a question is asked about the film, and the contrasts of the copies that it is asked about.

        A question of a training set has one picture, with the object or without it.
        """
        share, all_contrasts = self.options.with_yes, list(range(len(self.contrasts)))
        if share is None:
            return True, all_contrasts
        said_yes = [text.casefold() for text in asked.answer or ()] == ["yes"]
        rng = generator(self.options.seed, asked.pair_id or "", asked.finding or "", "with_yes")
        has_object = bool(rng.random() < (share if said_yes else 1 - share))
        return not has_object, [int(rng.choice(all_contrasts))] if has_object else []

    def _copy(self, asked: Sample, copy: Planted, contrast: float) -> Sample:
        name = f"{asked.image_id}/{asked.finding}/{contrast:g}"
        path = f"planted/{file_name(name)}.png"
        _write_picture(copy.pixels, self.folder / path)
        corners = box_of_mask(copy.mask)
        return replace(
            asked,
            sample_id=f"{asked.pair_id}/{contrast:g}",
            image_id=name,
            image_path=path,
            answer=asked.answer if self.is_own else ("yes",),
            boxes=() if corners is None else (Box(asked.finding or "", *corners),),
            finding_mask_path=write_mask(copy.mask, self.folder, SOURCE, name),
            pair_path=asked.image_path,
            planted=True,
            contrast=contrast,
        )

    def _film(self, sample: Sample, opened: OpenFilm) -> Sample:
        """What the rows of a film share; its organ masks are written."""
        masks = ((label, write_mask(mask, self.folder, label, sample.image_id)) for label, mask in opened.masks.items())
        return Sample(
            sample_id="",
            # Copies of a film have ids of their own, but are no independent evidence.
            patient_id=sample.patient_id or sample.image_id,
            study_id=sample.study_id,
            image_id=sample.image_id,
            image_path=f"films/{file_name(sample.image_id)}.png",
            kind="yes_no",
            split=sample.split,
            anatomy_masks=tuple(masks),
            height=opened.pixels.shape[0],
            width=opened.pixels.shape[1],
            source=SOURCE,
            sex=sample.sex,
            age=sample.age,
            view=sample.view,
            orientation=opened.orientation,
        )


def _pair_of(base: Sample, pair_id: str, finding: str, question: str, answer: tuple[str, ...] | None) -> Sample:
    """The row of the film in a pair."""
    pair = replace(base, pair_id=pair_id, question_group=pair_id, finding=finding, planted=False)
    return replace(pair, question=question, answer=answer)


def _write_picture(pixels: npt.NDArray[np.uint8], file: Path) -> None:
    """Write a gray picture without loss, once."""
    if file.exists():
        return
    with replacing(file, durable=False) as target:  # `new_folder` brings all of them to the disk in the end
        Image.fromarray(pixels).save(target, "PNG")
