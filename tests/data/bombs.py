"""Writes files that are small on disk and huge when they are read, and measures what preparing one costs."""

import gzip
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxr_faith.data.manifest import ManifestError
from cxr_faith.data.tally import PrepareError
from tests.runs import ROOT

Case = tuple[str, str, dict[str, Any]]
"""Source, root and options of a preparation."""

MEMBER = 2**24


class Cost(NamedTuple):
    """What a child process said and took."""

    message: str
    """The project's own error; empty if there was none."""
    crash: str
    """Any other end of the process."""
    seconds: float
    peak: int
    """Bytes of resident memory at most."""


def write_gz(path: Path, head: bytes, unit: bytes, megabytes: int) -> Path:
    """A gzipped file that grows to so many megabytes of a repeated unit: members of 16 MB, all the same."""
    member = gzip.compress(unit * (MEMBER // len(unit)), 9)
    path.write_bytes(gzip.compress(head) + member * (megabytes * 2**20 // MEMBER))
    return path


def write_sparse(path: Path, head: bytes, gigabytes: int) -> Path:
    """A file of zeros after its head that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(gigabytes * 2**30)
    return path


def costs_of(cases: Sequence[Case], limit: int = 300) -> list[Cost]:
    """Prepare data sets, each in a process of its own, forked from one that has the libraries."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.bombs"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=limit,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [Cost(*line) for line in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    from cxr_faith.data.prepare import PrepareOptions, prepare

    costs = []
    for source, root, options in json.loads(sys.stdin.read()):
        start, (reading, writing) = time.monotonic(), os.pipe()
        child = os.fork()
        if not child:
            status, message = 1, ""
            try:
                common = {name: options.pop(name) for name in ("chexlocalize", "padchest_gr", "masks") & options.keys()}
                out = f"{root}-manifest-{len(costs)}"
                prepare(source, PrepareOptions(root, out, **common), **options)
                status, message = 0, ""
            except (PrepareError, ManifestError) as error:
                status, message = 0, str(error)
            except BaseException:
                message = traceback.format_exc()
            os.write(writing, message.encode("utf-8", "replace")[:4000])
            os._exit(status)
        os.close(writing)
        with os.fdopen(reading, encoding="utf-8", errors="replace") as file:
            message = file.read()
        _, status, used = os.wait4(child, 0)
        crash = f"status {status}: {message}" if status else ""
        costs.append(Cost(message, crash, time.monotonic() - start, used.ru_maxrss * 1024))
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
