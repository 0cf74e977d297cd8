"""A prepared manifest: a folder of Parquet shards with a data card, a list of drops, and the masks made for it.

The folder gets its name only once it is complete.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import uuid
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
README = "README.md"
SHARD_ROWS = 100_000
_WRITTEN = re.compile(r"card\.json|drops\.csv|README\.md|part-\d{5}\.parquet|masks/[^/]+/[^/]+\.png")
"""Every file that `prepare` writes."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, which replaces `out` when the block ends without an error.

    Raises:
        PrepareError: `out` exists and is not a prepared manifest, or holds a file that `prepare` did not write.
    """
    _check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (out.with_name(f".{out.name}.{uuid.uuid4().hex}") for _ in range(2))
    partial.mkdir()
    try:
        yield partial
        _check_replaceable(out)  # again: a source may have written its pictures there
        if out.exists():
            out.rename(old)
            partial.rename(out)
            shutil.rmtree(old)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_replaceable(out: Path) -> None:
    """Refuse to replace anything that `prepare` cannot write again."""
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
    (folder / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / README).write_text(_readme(card), encoding="utf-8")
    with (folder / DROPS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("what", "id", "reason", "detail"))
        writer.writerows(tally.drops)
    return card


def noted_root(manifest: Path) -> Path | None:
    """Data root in a prepared manifest's data card; None for a manifest without one."""
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
    """The data card as Markdown."""
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
