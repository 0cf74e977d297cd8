"""On a resume, samples are run again whose files could not be read for a fault of the machine that has passed.

A disk that was not mounted or a file server that was away makes samples `invalid`, as a damaged file does. Once the
files can be read, these records are taken back before anything else starts. So the run ends with the records of a run
that never met the fault.
"""

import logging
import os
from errno import EACCES, EHOSTDOWN, EIO, ENOTCONN, ESTALE, ETIMEDOUT
from pathlib import Path

from cxr_faith.data.module import CXRVQADataModule
from cxr_faith.records import forget, scan_records
from cxr_faith.storage.atomic import check_regular

logger = logging.getLogger(__name__)

PASSING = (
    "file not found",
    "the decoder ends without an answer (status -9)",  # killed, most often because memory was short
    "decoding gives no answer within",  # it waited for a disk
    *map(os.strerror, (EIO, ESTALE, ETIMEDOUT, ENOTCONN, EHOSTDOWN, EACCES)),
)
"""What a reason says where the fault may be the machine's."""


def retry_unread(run_dir: Path, data: CXRVQADataModule) -> list[str]:
    """Take back the records of this run's samples that failed on a file which can be read now.

    Returns:
        their ids.
    """
    failed: dict[str, str] = {}
    for piece in scan_records(run_dir, ("status", "reason", "image_path")):
        rows = piece[piece["status"].eq("invalid") & piece["reason"].notna()]
        for sample, reason, path in zip(rows["sample_id"], rows["reason"], rows["image_path"], strict=True):
            if any(text in reason for text in PASSING):
                named = reason.partition(": ")[0]
                failed[sample] = named if os.path.isabs(named) else str(data.data_root / str(path))
    readable = {sample for sample, file in failed.items() if _can_be_read(Path(file))}
    if not readable:
        return []
    data.skip = frozenset()
    ids = data.table.data.column("sample_id")
    within = ids.take(data.remaining_rows()).to_pylist()  # a sample beyond `limit` would not be run again
    again = sorted(readable.intersection(within))
    try:
        forget(run_dir, again)
    except OSError as error:
        logger.warning("samples whose files can be read again are not run again: %s", error)
        return []
    logger.warning("%d samples are run again: their files can be read now, and could not before", len(again))
    return again


def _can_be_read(file: Path) -> bool:
    try:
        check_regular(file)
        with file.open("rb") as content:
            return bool(content.read(1))
    except (OSError, ValueError):
        return False
