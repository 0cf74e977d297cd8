"""The training scripts are no package: they import each other from their own folder."""

import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[2] / "training"
sys.path.insert(0, str(TRAINING))


@pytest.fixture(scope="session")
def chunks() -> tuple[list, list]:
    """A small pool: 12 chest pictures and 8 color pictures."""
    import pool

    size, pool.CHUNK = pool.CHUNK, 12
    try:
        return [pool.chest_chunk(0)], [pool.shape_chunk(0)]
    finally:
        pool.CHUNK = size
