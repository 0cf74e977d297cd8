"""A prepared manifest: a folder of Parquet shards with a data card, a list of drops, and masks that were made for it.

It appears under its name when it is complete, or not at all.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from cxr_faith.data.manifest import manifest_fingerprint, write_manifest
from cxr_faith.data.sample import Sample
from cxr_faith.data.tally import PrepareError, Tally

CARD = "card.json"
DROPS = "drops.csv"
MASKS = "masks"
SHARD_ROWS = 100_000


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, beside `out`; it takes the place of `out` when the block ends without an error.

    Raises:
        PrepareError: `out` is there and was not made by this function.
    """
    if out.exists() and not (out / CARD).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise PrepareError(f"{out}: is there and is no prepared manifest; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield partial
        partial.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.")) / "old"
            out.rename(old)
            partial.rename(out)
            shutil.rmtree(old.parent)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_shards(samples: Iterable[Sample], folder: Path, rows: int = SHARD_ROWS) -> int:
    """Write samples as ``part-00000.parquet`` and so on, streamed; returns how many there were."""
    rest, total = iter(samples), 0
    for shard, first in enumerate(rest):
        part = _Counted(chain((first,), islice(rest, rows - 1)))
        write_manifest(part, folder / f"part-{shard:05d}.parquet")
        total += part.count
    return total


def write_card(folder: Path, tally: Tally, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the manifest is and what it left out: ``card.json``, ``README.md`` and ``drops.csv``.

    Args:
        folder: Folder with the shards.
        tally: The counts.
        about: Source, options and data root.

    Returns:
        What ``card.json`` holds.
    """
    card = {**about, "fingerprint": manifest_fingerprint(folder), **tally.summary()}
    (folder / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(card), encoding="utf-8")
    with (folder / DROPS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("what", "id", "reason", "detail"))
        writer.writerows(tally.drops)
    return card


def noted_root(manifest: Path) -> Path | None:
    """The data root that a prepared manifest was made for; None for another manifest."""
    try:
        root = json.loads((manifest / CARD).read_text(encoding="utf-8")).get("data_root")
    except (OSError, ValueError, AttributeError):
        return None
    return Path(root) if isinstance(root, str) else None


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
    """The data card for people."""
    lines = [
        f"# Manifest of {card['source']}",
        "",
        f"{card['questions']} questions about {card['images']} images of {card['patients']} patients; "
        f"{card['boxes']} boxes, {card['masks']} masks. Fingerprint `{card['fingerprint']}`.",
        "",
        f"Paths are relative to `{card['data_root']}`. The rows hold no pictures, but questions and answers "
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
            lines += [f"| {what} | {count} |" for what, count in counts.items()]
    if card["options"]:
        lines += ["", "## Options", "", *(f"- {name}: {value}" for name, value in card["options"].items())]
    return "\n".join(lines) + "\n"
