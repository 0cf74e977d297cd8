"""What a cluster does to a run: requests to stop, ranks that do not come, and Slurm's own ways.

Every rank stops on its own request, after the batch that it is working on is written. Ranks have different numbers of
batches, so they cannot agree batch by batch; they agree once, after the last one. Schedulers signal all ranks, and the
process that started ranks on this machine passes its signals on to them.
"""

import os
import shlex
import sys
from datetime import timedelta
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from cxr_faith.run.stop import StopRequest

DEFAULT_TIMEOUT = timedelta(minutes=30)


def cluster_plugins() -> list[SLURMEnvironment]:
    """Slurm's environment inside a job step, without Lightning's requeue.

    That one writes a checkpoint from inside the signal handler and goes on predicting; ours is in `slurm/eval.sh`.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


class StopOnRequest(Callback):
    """Ends a rank's loop after the batch during which a stop was asked for; comes after all callbacks that write."""

    def __init__(self, request: StopRequest) -> None:
        """Choose whom to ask."""
        self._request = request
        self.left_work = False
        """Whether this rank stopped before its last batch."""
        self._parent = os.getppid()
        self._orphan_matters = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """The other ranks of this machine are running by now: let them hear of requests too."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            self._request.share_with(launcher.procs)
            self._orphan_matters = trainer.local_rank > 0 and "TORCHELASTIC_RUN_ID" not in os.environ

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave the loop as if the data had ended, so that everything is closed in the usual order."""
        if self._request:
            self.left_work = batch_idx + 1 < trainer.num_predict_batches[dataloader_idx]
            raise StopIteration
        if self._orphan_matters and os.getppid() != self._parent:
            raise RuntimeError(f"rank {trainer.global_rank} stops: the process that started it is gone")


def timeout_of(trainer: L.Trainer) -> timedelta:
    """How long ranks wait for each other: the `timeout` of the strategy."""
    timeout = getattr(trainer.strategy, "_timeout", None)
    return timeout if isinstance(timeout, timedelta) else DEFAULT_TIMEOUT


class Ranks:
    """All ranks of a run: waits for them with a name for the one that does not come, and agrees."""

    def __init__(self, trainer: L.Trainer) -> None:
        """Set up the group for waiting; a call for every rank, once the Trainer's own group is there."""
        self._trainer = trainer
        self._group: Any = None
        self._timeout = timeout_of(trainer)
        if dist.is_initialized() and trainer.world_size > 1:
            # gloo alone can say which rank is missing.
            self._group = dist.new_group(backend="gloo", timeout=self._timeout)

    def meet(self) -> None:
        """Wait for every rank.

        Raises:
            RuntimeError: a rank did not come within the strategy's timeout; the message names it.
        """
        if self._group is not None:
            dist.monitored_barrier(self._group, timeout=self._timeout, wait_all_ranks=True)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; a call for every rank."""
        if self._group is None:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flags[0])


class MeetRanks(Callback):
    """Makes `Ranks` at the one point where every rank, also one without samples, passes after the group is there."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.ranks: Ranks | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the group."""
        self.ranks = Ranks(trainer)


def end_children(trainer: L.Trainer) -> None:
    """Kill the ranks that this process started: after an error here they would wait for it, or hang for good."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        children = list(launcher.procs)
        # Lightning's observer shares this list and kills this process too, before it can say what went wrong, when it
        # finds in it a child that died.
        launcher.procs.clear()
        for child in children:
            child.kill()
        for child in children:
            child.wait()


def resume_command() -> str:
    """The command that started this process, as a shell takes it."""
    program = "cxr-faith" if os.path.basename(sys.argv[0]) in ("cxr-faith", "__main__.py") else sys.argv[0]
    return shlex.join([program, *sys.argv[1:]])
