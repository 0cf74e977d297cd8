"""`cxr-faith prepare`: from a data set in its published layout to a manifest, and looking after manifests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cxr_faith.data.check import check_manifest
from cxr_faith.data.folder import DROPS, new_folder, write_card, write_shards
from cxr_faith.data.intake import accept
from cxr_faith.data.joins import joins
from cxr_faith.data.sample import Sample
from cxr_faith.data.sources import SOURCES
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.report.terminal import show, wide_console


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
    """

    root: str
    out: str
    limit: int | None = None
    masks: str | None = None
    chexlocalize: str | None = None
    padchest_gr: str | None = None


def prepare(source: str, options: PrepareOptions, **source_options: Any) -> dict[str, Any]:
    """Write a manifest and print what was taken and what was left.

    Args:
        source: A name in `SOURCES`.
        options: What every source takes.
        source_options: The source's own options.

    Returns:
        What the manifest's `card.json` holds.

    Raises:
        ValueError: The input cannot be used, or nothing of it can; no manifest is written then.
    """
    root, out, tally = Path(options.root), Path(options.out), Tally()
    if options.limit is not None and options.limit < 1:
        raise PrepareError(f"--limit must be at least 1, got {options.limit}")
    if root.resolve().is_relative_to(out.resolve()):
        raise PrepareError(f"--out {out} is or holds --root {root}: the manifest would take its place; choose another")
    if source in ("phantom", "hub"):
        root.mkdir(parents=True, exist_ok=True)
    if not root.is_dir():
        raise PrepareError(f"{root}: no such folder; --root is the folder of the data set")
    console = wide_console()
    with new_folder(out) as folder:
        joined = joins(root, folder, tally, options.masks, options.chexlocalize, options.padchest_gr)
        samples = accept(SOURCES[source](root, tally, **source_options), root, tally, joined)
        with _progress(console) as progress:
            shown = _shown(islice(samples, options.limit), tally, progress, f"prepare {source}", options.limit)
            written = write_shards(shown, folder)
        if not written:
            reasons = "; ".join(islice(_counted(dict(tally.reasons.most_common())), 3))
            raise PrepareError(f"{root}: no question could be taken: {reasons or 'the source has none'}")
        common = {name: value for name, value in vars(options).items() if name not in ("root", "out")}
        about = {
            "source": source,
            "data_root": str(root.resolve()),
            "options": {name: value for name, value in {**common, **source_options}.items() if value is not None},
        }
        card = write_card(folder, tally, about)
    _print(card, out, console)
    return card


def check(manifest: str, root: str | None = None, images: int | None = 200) -> int:
    """Open pictures and masks of a manifest, list the faults; returns how many there are.

    Raises:
        ValueError: The manifest cannot be opened, or nothing is to be looked at.
    """
    if images is not None and images < 1:
        raise PrepareError(f"--images must be at least 1 or all, got {images}")
    console = wide_console()
    state, faults = check_manifest(Path(manifest), None if root is None else Path(root), images)
    with _progress(console) as progress:
        task = progress.add_task("check", total=state.chosen)
        for fault in faults:
            progress.update(task, completed=state.done)
            if fault is not None:
                line = f"{fault.sample_id}  {fault.error}"
                progress.console.print(line, soft_wrap=True, highlight=False, markup=False)
    sizes = sorted(state.sizes)
    console.print(f"samples  {state.done} of {state.total} opened, {state.faults} with a fault", highlight=False)
    if sizes:
        several = f" to {_by(sizes[-1])} px, {len(sizes)} different" if len(sizes) > 1 else " px"
        console.print(f"sizes    {_by(sizes[0])}{several}", highlight=False)
    return state.faults


def _progress(console: Console) -> Progress:
    """A progress bar on a terminal; nothing in a file or a pipe."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _shown(
    samples: Iterable[Sample], tally: Tally, progress: Progress, title: str, limit: int | None
) -> Iterator[Sample]:
    """Pass samples on and move the bar by the rows that were judged, or with a limit by the questions taken.

    Sources leave rows out before they are judged, so the bar is filled at the end.
    """
    task = progress.add_task(title, total=None)
    for sample in samples:
        if tally.questions % 50 == 1:
            progress.update(task, completed=tally.questions if limit else tally.seen, total=limit or tally.expected)
        yield sample
    total = (tally.questions if limit else tally.expected) or tally.seen
    progress.update(task, completed=total, total=total)


def _print(card: Mapping[str, Any], out: Path, console: Console) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("images", str(card["images"]))
    table.add_row("patients", str(card["patients"]) if card["patients"] else "not stated: clusters are images")
    table.add_row("questions", f"{card['questions']}   {_listed(card['kinds'])}")
    table.add_row("answers", _listed(card["answers"]))
    table.add_row("boxes", str(card["boxes"]))
    table.add_row("masks", str(card["masks"]))
    for title, counts in (("dropped", card["drops"]), ("changed", card["notes"])):
        for number, line in enumerate(_counted(counts)):
            table.add_row("" if number else title, line)
    show(console, table)
    console.print(f"manifest  {out}   fingerprint {card['fingerprint']}", soft_wrap=True, highlight=False)
    if card["drops"]:
        console.print(f"drops     {out / DROPS}", soft_wrap=True, highlight=False)


def _counted(counts: Mapping[str, int]) -> Iterator[str]:
    """Number and reason, one line each; the questions that a bad picture takes along stand in the picture's line."""
    for reason, count in counts.items():
        what, _, why = reason.partition(": ")
        if what == "question" and why.startswith("image ") and f"image: {why.removeprefix('image ')}" in counts:
            continue
        questions = counts.get(f"question: image {why}") if what == "image" else None
        yield f"{count}  {reason}" + (f" (with {questions} question{'s' * (questions > 1)})" if questions else "")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
