"""From a data set in its published layout to a manifest; `cxr-faith prepare` prints what this returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

from cxr_faith.data.folder import new_folder, write_card, write_shards
from cxr_faith.data.intake import accept
from cxr_faith.data.joins import joins
from cxr_faith.data.sample import Sample
from cxr_faith.data.sources import SOURCES
from cxr_faith.data.sources.phantom_files import SOURCE
from cxr_faith.data.tally import PrepareError, Tally

Progress = Callable[[int, int | None], None]
"""Told how many rows are done, and of how many; None: the number is not known."""

REASONS_SHOWN = 3


@dataclass(frozen=True)
class PrepareOptions:
    """What every source takes.

    Attributes:
        root: folder of the data set; image paths are relative to it (phantom and hub write their pictures there).
        out: folder of the manifest; a prepared one that is there is replaced.
        limit: take the first LIMIT questions only.
        masks: folder of organ masks, <label>/<image_id>.png, or <label>.json with COCO run lengths by image id.
        chexlocalize: JSON file of CheXlocalize: masks of findings.
        padchest_gr: JSON file of PadChest-GR: boxes of findings.
        dicom_headers: take patient, sex, age, view and orientation of DICOM pictures, where not stated.
    """

    root: str
    out: str
    limit: int | None = None
    masks: str | None = None
    chexlocalize: str | None = None
    padchest_gr: str | None = None
    dicom_headers: bool = False


@dataclass(frozen=True)
class Prepared:
    """A manifest that was written, and what was left out.

    Attributes:
        out: folder of the manifest.
        fingerprint: hash of the manifest's files.
        images: images that were taken.
        patients: patients that were taken; 0 where the data set does not name them.
        questions: questions that were taken.
        kinds: number of questions by kind.
        answers: number of questions by kind and reference answer.
        boxes: boxes of findings.
        masks: masks of findings and organs.
        dropped: number of things that were left out, by what they are and why.
        changed: number of things that were kept in another form than they came in.
        columns: the table's column of each of the manifest's columns, of sources that read any table.
        missing: one picture that was not found: which file was tried, and one that is there.
    """

    out: Path
    fingerprint: str
    images: int
    patients: int
    questions: int
    kinds: Mapping[str, int]
    answers: Mapping[str, int]
    boxes: int
    masks: int
    dropped: Mapping[str, int]
    changed: Mapping[str, int]
    columns: Mapping[str, str]
    missing: str | None

    @classmethod
    def from_card(cls, out: Path, card: Mapping[str, Any]) -> Prepared:
        """Read what a manifest's `card.json` holds."""
        counts = {name: card[name] for name in ("fingerprint", "images", "patients", "questions", "kinds", "answers")}
        more = {"boxes": card["boxes"], "masks": card["masks"], "dropped": card["drops"], "changed": card["notes"]}
        more |= {"columns": card["columns"], "missing": card["missing"]}
        return cls(out, **counts, **more)


def prepare(  # positional, since a source may have an option of the same name
    source: str, options: PrepareOptions, /, progress: Progress = lambda done, total: None, **source_options: Any
) -> Prepared:
    """Write a manifest.

    Args:
        source: a name in `SOURCES`.
        options: what every source takes.
        progress: called now and then while rows are read.
        source_options: the source's own options.

    Returns:
        what was taken and what was left out.

    Raises:
        ValueError: the input cannot be used, or nothing of it can; no manifest is written then.
    """
    root, out, tally = Path(options.root), Path(options.out), Tally()
    _check(source, options, root, out)
    with new_folder(out) as folder:
        others = (options.masks, options.chexlocalize, options.padchest_gr, options.dicom_headers)
        joined = joins(root, folder, tally, *others)
        make = SOURCES[source]
        writes = {"folder": folder} if "folder" in signature(make).parameters else {}
        given = _labeled(make(root, tally, **writes, **source_options), source)
        samples = accept(given, root, tally, joined, folder)
        written = write_shards(watched(islice(samples, options.limit), tally, progress, options.limit), folder)
        if not written:
            reasons = "; ".join(islice(counted(dict(tally.reasons.most_common())), REASONS_SHOWN))
            missing = f"; not found: {tally.missing}" if tally.missing else ""
            raise PrepareError(f"{root}: no question could be taken: {reasons or 'the source has none'}{missing}")
        common = {name: value for name, value in vars(options).items() if name not in ("root", "out")}
        about = {
            "source": source,
            "data_root": str(root.resolve()),
            "options": {
                name: value for name, value in {**common, **source_options}.items() if value not in (None, False)
            },
        }
        return Prepared.from_card(out, write_card(folder, tally, about))


def _check(source: str, options: PrepareOptions, root: Path, out: Path) -> None:
    """Refuse options that cannot work, before anything is read or written."""
    if options.limit is not None and options.limit < 1:
        raise PrepareError(f"--limit must be at least 1, got {options.limit}")
    if root.resolve().is_relative_to(out.resolve()):
        raise PrepareError(f"--out {out} is or holds --root {root}: the manifest would take its place; choose another")
    if source in ("phantom", "hub"):
        root.mkdir(parents=True, exist_ok=True)
    if not root.is_dir():
        raise PrepareError(f"{root}: no such folder; --root is the folder of the data set")


def _labeled(samples: Iterable[Sample], source: str) -> Iterator[Sample]:
    """The samples of a source; only the package's own phantoms may be called so, for which its model is meant."""
    for sample in samples:
        foreign = source != SOURCE and sample.source == SOURCE
        yield replace(sample, source=f"{source}:{SOURCE}") if foreign else sample


def watched(samples: Iterable[Sample], tally: Tally, progress: Progress, limit: int | None) -> Iterator[Sample]:
    """Pass samples on and report the rows that were judged, or with a limit the questions that were taken.

    Sources leave rows out before they are judged, so the last report says that all is done.
    """
    for sample in samples:
        if tally.questions % 50 == 1:
            progress(tally.questions if limit else tally.seen, limit or tally.expected)
        yield sample
    total = (tally.questions if limit else tally.expected) or tally.seen
    progress(total, total)


def counted(counts: Mapping[str, int]) -> Iterator[str]:
    """Number and reason, one line each; the questions that a bad picture takes along stand in the picture's line."""
    for reason, count in counts.items():
        what, _, why = reason.partition(": ")
        if what == "question" and why.startswith("image ") and f"image: {why.removeprefix('image ')}" in counts:
            continue
        questions = counts.get(f"question: image {why}") if what == "image" else None
        yield f"{count}  {reason}" + (f" (with {questions} question{'s' * (questions > 1)})" if questions else "")
