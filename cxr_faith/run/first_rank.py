"""Which of a run's processes speaks for it. This module imports nothing that takes time."""

import os


def is_first_rank() -> bool:
    """Whether this process is the rank that speaks for a run, or the only one."""
    return not any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
