"""Ranks on a cluster: stop when a scheduler asks, wait for each other, and name a rank that does not come.

Each rank stops by itself after it has written its current batch. Ranks have different numbers of batches, so they agree
only once, after the last batch. Schedulers signal every rank; a process that started further ranks on its machine also
passes its signals on to them.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
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

    Lightning's requeue writes a checkpoint inside the signal handler and then goes on predicting; `slurm/eval.sh`
    requeues instead.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


class StopOnRequest(Callback):
    """Ends the loop of a rank after the batch in which the request to stop came; must be the last callback."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self.left_work = False
        """Whether this rank stopped before its last batch."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Pass requests on to the other ranks of this machine, which run by now."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            self._request.share_with(launcher.procs)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leave the loop as if the data had ended, so that Lightning closes everything in the usual order."""
        if self._request:
            self.left_work = batch_idx + 1 < trainer.num_predict_batches[dataloader_idx]
            raise StopIteration


def timeout_of(trainer: L.Trainer) -> timedelta:
    """How long ranks wait for each other: the `timeout` of the strategy."""
    timeout = getattr(trainer.strategy, "_timeout", None)
    return timeout if isinstance(timeout, timedelta) else DEFAULT_TIMEOUT


class LostRankError(RuntimeError):
    """A rank has ended or hangs, so the others cannot finish; the message is one line that says how to resume."""


class Ranks:
    """All ranks of a run: waits until every rank has arrived, names a rank that has not, and combines their flags."""

    def __init__(self, trainer: L.Trainer) -> None:
        """Make the group that waits; every rank calls this after the Trainer has made its own group."""
        self._trainer = trainer
        self._group: Any = None
        self._timeout = timeout_of(trainer)
        if dist.is_initialized() and trainer.world_size > 1:
            # Only gloo can say which rank is missing.
            self._group = dist.new_group(backend="gloo", timeout=self._timeout)

    def meet(self) -> None:
        """Wait for every rank.

        Raises:
            LostRankError: a rank has ended, or did not come within the strategy's timeout; the message names it.
        """
        if self._group is None:
            return
        try:
            dist.monitored_barrier(self._group, timeout=self._timeout, wait_all_ranks=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            line = f"a rank has ended or hangs ({reason}); what is written stays; to resume: {resume_command()}"
            raise LostRankError(line) from error

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; every rank must call this."""
        if self._group is None:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flags[0])


class MeetRanks(Callback):
    """Makes `Ranks` in `setup`, which every rank passes after the group exists, also a rank without samples."""

    def __init__(self) -> None:
        self.ranks: Ranks | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the group."""
        self.ranks = Ranks(trainer)


def end_children(trainer: L.Trainer, seconds: float = 0.0) -> None:
    """Kill the ranks that this process started: after an error here they would wait for it, maybe forever.

    Args:
        trainer: it knows the ranks.
        seconds: how long they may take to end by themselves after a Ctrl-C, once all of them are up.
    """
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        children = list(launcher.procs)
        # Lightning's observer reads the same list. If it sees a dead child there, it kills this process before this
        # process has printed its error.
        launcher.procs.clear()
        deadline = time.monotonic() + seconds
        # A rank that is not up yet would answer with a traceback.
        able = children if seconds and dist.is_initialized() else []
        for child in able:
            child.send_signal(signal.SIGINT)
        for child in able:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        for child in children:
            child.kill()
        for child in children:
            child.wait()


def resume_command() -> str:
    """The command that started this process, as a shell takes it."""
    program = "cxr-faith" if os.path.basename(sys.argv[0]) in ("cxr-faith", "__main__.py") else sys.argv[0]
    return shlex.join([program, *sys.argv[1:]])
