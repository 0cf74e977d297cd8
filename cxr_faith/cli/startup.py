"""How a command loads the heavy libraries: after its arguments are checked, quickly and without their chatter."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import with the garbage collector off: it would scan all loaded modules again and again, a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def quiet_lightning() -> None:
    """Silence what Lightning says about itself: tips, hardware, and which process has which rank."""
    import lightning.pytorch  # noqa: F401 - its first import sets the levels that are changed below

    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # between lightning and torch
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # srun may exist without being wanted
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
