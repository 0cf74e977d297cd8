"""Writes a run of many records: `python -m tests.report.write_large_run FOLDER ROWS`."""

import sys

import numpy as np

from cxr_faith.records import RecordWriter
from tests.report.conftest import make_rows

METHODS, STEPS, CELLS = 10, 50, 256


def write(folder: str, n_rows: int) -> None:
    """Rows of ten methods, four questions a patient, with curves of 51 points and maps of 16 x 16 cells."""
    rng, writer = np.random.default_rng(0), RecordWriter(folder, 0, 0)
    row = next(row for row in make_rows(2) if row["method"] == "chefer" and row["status"] == "ok")
    k = np.round(np.arange(STEPS + 1) * CELLS / STEPS).astype(np.int32)
    for start in range(0, n_rows // METHODS, 500):
        rows = []
        for sample in range(start, min(start + 500, n_rows // METHODS)):
            ids = {"sample_id": f"s{sample:06d}", "image_id": f"i{sample // 2}", "patient_id": f"p{sample // 4}"}
            for method in range(METHODS):
                noise = rng.standard_normal(4)
                rows.append(
                    row
                    | ids
                    | {"method": f"m{method}" if method else "random", "k": k, "grid_h": 16, "grid_w": 16}
                    | {"srg": 0.1 * method + noise[0], "gap_srg_random": 0.1 * method + noise[0], "srg_logit": noise[1]}
                    | {side: np.linspace(5, -4, STEPS + 1) for side in ("deletion_scores", "insertion_scores")}
                    | {"map": rng.random(CELLS, np.float32) if method else None, "pointing_game": noise[2]}
                )
        writer.write(rows)
    writer.compact()


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
