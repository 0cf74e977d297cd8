"""A prepared manifest: a folder of Parquet shards with a data card, a list of drops, and the masks made for it.

The folder gets its name only once it is complete.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cxr_faith.data.manifest import manifest_fingerprint, write_manifest
from cxr_faith.data.manifest_columns import ManifestError
from cxr_faith.data.sample import Sample
from cxr_faith.data.tally import PrepareError, Tally
from cxr_faith.printable import csv_text, json_text, markdown_text, printable
from cxr_faith.storage.atomic import read_file, write_atomic
from cxr_faith.storage.folders import replacing_folder
from cxr_faith.storage.locks import HeldError

CARD = "card.json"
DROPS = "drops.csv"
MASKS = "masks"
README = "README.md"
SHARD_ROWS = 100_000
_WRITTEN = re.compile(r"card\.json|drops\.csv|README\.md|part-\d{5}\.parquet|(masks/[^/]+|films|planted)/[^/]+\.png")
"""Every file that `prepare` writes."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, which replaces `out` when the block ends without an error.

    Raises:
        PrepareError: `out` is a link, exists and is not a prepared manifest, or holds a file that `prepare` did not
            write; or another process is writing it.
    """
    try:
        # It is checked again at the end: a source may have written its pictures there.
        with replacing_folder(out, lambda: _check_replaceable(out)) as folder:
            yield folder
    except HeldError as error:
        raise PrepareError(f"{out}: another prepare is writing it; wait until it ends") from error


def _check_replaceable(out: Path) -> None:
    """Refuse to replace anything that `prepare` cannot write again."""
    if out.is_symlink():
        raise PrepareError(f"{out}: is a symbolic link; give the folder that it points to")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / CARD).is_file():
        raise PrepareError(f"{out}: exists and is not a prepared manifest; choose another --out")
    names = (file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_symlink() or not file.is_dir())
    foreign = next((name for name in names if not _WRITTEN.fullmatch(name)), None)
    if foreign is not None:
        raise PrepareError(f"{out}: holds {foreign}, which prepare did not write; move it or choose another --out")


def write_shards(samples: Iterable[Sample], folder: Path, rows: int = SHARD_ROWS) -> int:
    """Stream samples into `part-00000.parquet`, `part-00001.parquet`, …; returns the number of samples."""
    rest, total = iter(samples), 0
    for shard, first in enumerate(rest):
        part = _Counted(chain((first,), islice(rest, rows - 1)))
        write_manifest(part, folder / f"part-{shard:05d}.parquet")
        total += part.count
    return total


def write_card(folder: Path, tally: Tally, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the data card (`card.json`, and as text `README.md`) and the list of drops (`drops.csv`).

    Args:
        folder: folder with the shards.
        tally: the counts of the preparation.
        about: source, options and data root.

    Returns:
        the content of `card.json`.
    """
    card = {**about, "fingerprint": manifest_fingerprint(folder), **tally.summary()}
    write_atomic(folder / CARD, json_text(card) + "\n")
    write_atomic(folder / README, _readme(card))
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(("what", "id", "reason", "detail"))
    writer.writerows([csv_text(cell) for cell in drop] for drop in tally.drops)
    write_atomic(folder / DROPS, table.getvalue())
    return card


def noted_root(manifest: Path) -> Path | None:
    """Data root in a prepared manifest's data card; None for a manifest without one.

    Raises:
        ManifestError: the card is damaged or cannot be read.
    """
    file = manifest / CARD
    try:
        card = json.loads(read_file(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ManifestError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError):
        card = None
    root = card.get("data_root", "") if isinstance(card, dict) else None
    if not isinstance(root, str) or "\0" in root:
        raise ManifestError(f"{file}: is damaged: run `prepare` again, or delete it and give the data root")
    return Path(root) if root else None


class _Counted:
    """Passes samples on and counts them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.samples = samples
        self.count = 0

    def __iter__(self) -> Iterator[Sample]:
        for sample in self.samples:
            self.count += 1
            yield sample


def _readme(card: Mapping[str, Any]) -> str:
    """The data card as Markdown."""
    root = printable(str(card["data_root"])).replace("`", "'")
    lines = [
        f"# Manifest of {card['source']}",
        "",
        f"{card['questions']} questions about {card['images']} images of {card['patients']} patients; "
        f"{card['boxes']} boxes, {card['masks']} masks. Fingerprint `{card['fingerprint']}`.",
        "",
        f"Paths are relative to `{root}`. The rows hold no pictures, but questions and answers "
        "of the data set: its license holds for them too.",
    ]
    for title, counts in (
        ("Questions by kind", card["kinds"]),
        ("References", card["answers"]),
        (f"Left out (one by one in `{DROPS}`)", card["drops"]),
        ("Kept in another form", card["notes"]),
    ):
        if counts:
            lines += ["", f"## {title}", "", "| what | count |", "|---|---|"]
            lines += [f"| {markdown_text(what)} | {count} |" for what, count in counts.items()]
    if card["columns"]:
        lines += ["", "## Columns", "", "| manifest | data set |", "|---|---|"]
        lines += [f"| {column} | {markdown_text(own)} |" for column, own in card["columns"].items()]
    if card["options"]:
        lines += [
            "",
            "## Options",
            "",
            *(f"- {name}: {markdown_text(str(value))}" for name, value in card["options"].items()),
        ]
    return "\n".join(lines) + "\n"
