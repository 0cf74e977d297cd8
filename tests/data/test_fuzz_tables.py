"""Damaged copies of every published layout's tables, through `prepare` and the data set of `evaluate`.

Seeded and bounded. Whatever is damaged, the only errors are the project's own, on one line, and no sample raises.
`python -m tests.data.test_fuzz_tables` is the process whose memory is measured.
"""

import gzip
import json
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.data.layouts import save, write_json
from tests.runs import ROOT

DAMAGES = 9  # of each table
SECONDS = 20
PEAK = 1.5 * 2**30

HOSTILE_TEXTS = (
    *(
        "",
        "nan",
        "None",
        "inf",
        "-1",
        "1e999",
        "9" * 5000,
        "0",
        "true",
        "yes",
        "['yes']",
        "['a' 'b']",
        "[" * 300,
        "{'a'",
    ),
    *(
        "../../secret",
        "/etc/passwd",
        "~",
        "a\0b",
        "\x1b[31m",
        "line\nbreak",
        '"',
        "'",
        ";",
        "x" * 70_000,
        "é\u202e",
        "C:\\a",
    ),
)
HOSTILE_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**40, 10**400, 1e308, float("nan"), float("inf"), [], {}, [[]], [None], {"": None}, "\ud800"),
    *([1, 2], ["a", 1, None], {"a": {"b": [1]}}, [[[[[[1]]]]]], "", "x" * 70_000, "[[1, 2", "../..", "a\0b"),
)


def damaged_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, doubled, overwritten or in another encoding."""
    place = int(rng.integers(0, max(len(content), 1)))
    match rng.integers(0, 8):
        case 0:
            return content[:place]
        case 1:
            flipped = bytearray(content)
            for position in rng.integers(0, max(len(content), 1), 5) if content else ():
                flipped[position] = int(rng.integers(0, 256))
            return bytes(flipped)
        case 2:
            return content[:place] + content[place // 2 :]
        case 3:
            return content[:place] + b"\0" * 1000 + content[place:]
        case 4:
            return content.decode("utf-8", "replace").encode("utf-16")
        case 5:
            return b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")
        case 6:
            return content + b'"'
        case _:
            return b"[" * 100_000 if rng.random() < 0.5 else b""


def damaged_csv(content: bytes, rng: np.random.Generator) -> bytes:
    """A field, a row or a column that is wrong."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    if len(rows) < 2 or rng.random() < 0.4:
        return damaged_bytes(content, rng)
    for _ in range(int(rng.integers(1, 4))):
        row = int(rng.integers(0, len(rows)))
        match rng.integers(0, 5):
            case 0:
                rows.insert(row, rows[row])
            case 1:
                rows[row] = rows[row][:-1] or [""]
            case _:
                text = HOSTILE_TEXTS[rng.integers(0, len(HOSTILE_TEXTS))].replace('"', '""')
                rows[row][int(rng.integers(0, len(rows[row])))] = f'"{text}"'
    return "\n".join(",".join(row) for row in rows).encode()


def damaged_json(content: bytes, rng: np.random.Generator) -> bytes:
    """A value anywhere in the tree that is missing or of another type."""
    if rng.random() < 0.2:
        return damaged_bytes(content, rng)
    lines = content.count(b"\n") > 0 and not content.startswith(b"[")
    tree: Any = [json.loads(line) for line in content.splitlines()] if lines else json.loads(content)
    for _ in range(int(rng.integers(2, 9))):
        node = tree
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key = keys[int(rng.integers(0, len(keys)))]
            if not isinstance(node[key], dict | list) or rng.random() < 0.3:
                if rng.random() < 0.2:
                    del node[key]
                else:
                    node[key] = HOSTILE_VALUES[rng.integers(0, len(HOSTILE_VALUES))]
                break
            node = node[key]
    return ("\n".join(map(json.dumps, tree)) if lines else json.dumps(tree)).encode()


def damage(path: Path, rng: np.random.Generator) -> None:
    """Replace a table by a damaged copy."""
    if rng.random() < 0.05:
        path.unlink()
        [path.mkdir, lambda: path.symlink_to(path), lambda: path.symlink_to("/dev/null")][rng.integers(0, 3)]()
        return
    content, zipped = path.read_bytes(), path.suffix == ".gz" and rng.random() < 0.7
    content = gzip.decompress(content) if zipped else content
    kinds: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {".csv": damaged_csv, ".json": damaged_json}
    kinds[".jsonl"] = damaged_json
    suffix = path.suffixes[-2] if zipped else path.suffix
    content = kinds.get(suffix, damaged_bytes)(content, rng)
    path.write_bytes(gzip.compress(content) if zipped else content)


def layouts(mimic: SimpleNamespace, vindr: SimpleNamespace, slake: Path, vqa_rad: Path, base: Path) -> list[Any]:
    """(source, root, options, tables) of every source and of every file that can be joined."""
    save(base / "mine/a.png", 0)
    rows = [
        {"image_path": "a.png", "question": f"Is it {row}?", "answer": "yes", "height": 80, "width": 120}
        for row in range(6)
    ]
    frame = pd.DataFrame(rows).assign(
        boxes="[[1, 2, 30, 40]]", kind="yes_no", sample_id=[f"s{row}" for row in range(6)]
    )
    found: list[Any] = []
    for ending in ("csv", "csv.gz", "jsonl", "json", "parquet"):
        path = base / f"mine/t.{ending}"
        if ending.startswith("csv"):
            frame.to_csv(path, index=False)
        elif ending == "parquet":
            frame.to_parquet(path)
        else:
            frame.to_json(path, orient="records", lines=ending == "jsonl")
        found.append(("table", base / "mine", {"file": path}, [path]))
    hub = base / "hub/test.csv"
    hub.parent.mkdir()
    hub.write_text("image,question,answer\n" + "a.png,Is it?,yes\n" * 4)
    shutil.copy(base / "mine/a.png", hub.parent / "a.png")
    found.append(("hub", base / "hub-pictures", {"dataset": hub.parent}, [hub]))
    tables = sorted(mimic.root.glob("*.csv.gz"))
    joined = {"vqa": mimic.vqa, "ms_cxr": mimic.ms_cxr, "chest_imagenome": mimic.imagenome}
    more = [mimic.vqa / "test.json", mimic.ms_cxr, next(mimic.imagenome.rglob("*.csv"))]
    found.append(("mimic-cxr-vqa", mimic.root, {**joined, "splits": "test"}, [*tables, *more]))
    found.append(("mimic-cxr", mimic.root, {"splits": "train,validate,test"}, tables))
    found.append(("vindr-cxr", vindr.root, {"splits": "train,test"}, sorted(vindr.root.rglob("*.csv"))))
    found.append(("vindr-cxr-vqa", vindr.root, {"vqa": vindr.vqa}, [vindr.vqa]))
    marks = write_json(base / "marks.json", {"xmlab1": {"Heart": {"size": [80, 120], "counts": [0, 9600]}}, "b": {}})
    finding = {"labels": ["Heart"], "boxes": [[0.1, 0.1, 0.5, 0.5]], "extra_boxes": []}
    reports = write_json(base / "reports.json", [{"ImageID": "xmlab1.png", "findings": [finding, finding]}])
    organs = write_json(base / "organs/heart.json", {"xmlab1": {"size": [80, 120], "counts": "0o9"}})
    joins = {"chexlocalize": marks, "padchest_gr": reports, "masks": organs.parent}
    found.append(("slake", slake, joins, [*sorted(slake.rglob("*.json")), marks, reports, organs]))
    found.append(("vqa-rad", vqa_rad, {}, [vqa_rad / "VQA_RAD Dataset Public.json"]))
    return found


@pytest.mark.slow
def test_damaged_tables_of_every_layout(
    tmp_path: Path, mimic: SimpleNamespace, vindr: SimpleNamespace, slake: Path, vqa_rad: Path
) -> None:
    rng = np.random.default_rng(16)
    cases = []
    base = tmp_path / "base"
    base.mkdir()
    for source, root, options, tables in layouts(mimic, vindr, slake, vqa_rad, base):
        for number in range(max(DAMAGES, 2 * len(tables))):
            copy = tmp_path.with_name(f"{tmp_path.name}-copies") / f"{source}-{len(cases)}"
            shutil.copytree(tmp_path, copy)
            moved = lambda path, copy=copy: copy / path.relative_to(tmp_path)  # noqa: E731
            damage(moved(tables[number % len(tables)]), rng)
            given = {name: str(moved(value)) if isinstance(value, Path) else value for name, value in options.items()}
            cases.append((source, str(moved(root)), given, str(tables[number % len(tables)].name)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.test_fuzz_tables"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
    )
    assert done.returncode == 0, (done.stdout[-300:], done.stderr[-3000:])
    *lines, last = done.stdout.splitlines()
    outcomes = [json.loads(line) for line in lines]
    assert [outcome for outcome in outcomes if outcome["crash"]] == []
    assert len(outcomes) == len(cases) and max(outcome["seconds"] for outcome in outcomes) < SECONDS
    assert int(last) < PEAK
    messages = [outcome["message"] for outcome in outcomes]
    assert [message for message in messages if "\n" in message or len(message) > 5000] == []
    # The damage must be real and must not be the end of everything.
    assert len(cases) / 5 < sum(map(bool, messages)) < len(cases) * 4 / 5
    assert sum(outcome["samples"] for outcome in outcomes) > 200


def main() -> None:
    """Prepare each case of the standard input and go through its samples; one line of JSON for each."""
    from cxr_faith.data.manifest import ManifestError
    from cxr_faith.data.module import CXRVQADataModule
    from cxr_faith.data.prepare import PrepareOptions, prepare
    from cxr_faith.data.tally import PrepareError

    for source, root, options, table in json.loads(sys.stdin.read()):
        start, message, crash, samples = time.monotonic(), "", "", 0
        common = {name: options.pop(name) for name in ("chexlocalize", "padchest_gr", "masks") if name in options}
        try:
            prepare(source, PrepareOptions(root, f"{root}-manifest", **common), **options)
            data = CXRVQADataModule(f"{root}-manifest")
            data.image_size = (16, 16)
            samples = sum(len(batch) for batch in data.loader())
        except (PrepareError, ManifestError) as error:
            message = str(error)
        except Exception:
            crash = f"{source} {table}: {traceback.format_exc()}"
        seconds = time.monotonic() - start
        print(json.dumps({"message": message, "crash": crash, "samples": samples, "seconds": seconds}), flush=True)
    # Not ru_maxrss: a process inherits its value from the process that started it.
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024)


if __name__ == "__main__":
    main()
