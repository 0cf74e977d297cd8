"""Processes that start in a second: forked from a server that has the libraries loaded."""

import gc
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from cxr_faith.__main__ import main
from tests.held import obey_mark
from tests.runs import command, environment, ranks

GROUP_ALIVE = 99
"""Exit status of a rank whose `main` left the process group behind."""


def start_process(output: Path, function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a function in a new process, whose environment is that of `tests.runs.environment`.

    Args:
        output: a file for what it prints.
        function: what it does; defined in a module, since the process imports it.
        arguments: its arguments.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cxr_faith.cli.lightning_cli", "tests.forked"])
    process = context.Process(target=_start, args=(str(output), environment(), function, arguments))
    process.start()
    return process


def start_ranks(config: Path, run_dir: Path, count: int, output: Path, *options: str) -> list[BaseProcess]:
    """Start each rank of `evaluate` from outside, as Slurm or torchrun does; one rank is an ordinary process.

    Args:
        config: the config.
        run_dir: the run directory.
        count: number of ranks.
        output: a file for what they print.
        options: further options of `evaluate`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    arguments = command(config, run_dir, *(ranks(count) if count > 1 else []), *options)[3:]
    started = []
    for rank in range(count):
        place = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(start_process(output, _be_rank, arguments, place if count > 1 else {}))
    return started


def wait_for_ranks(
    started: list[BaseProcess], output: Path, statuses: list[int] | None = None, seconds: float = 300
) -> None:
    """Wait until all ranks have ended, and assert their exit statuses: 0 if none are given."""
    for process in started:
        process.join(seconds)
    assert [process.exitcode for process in started] == (statuses or [0] * len(started)), output.read_text()


def _start(
    output: str, variables: dict[str, str], function: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    gc.freeze()  # what the server has imported stays; the collector need not look at it again
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(1)
    obey_mark()
    function(*arguments)


def _be_rank(arguments: list[str], place: dict[str, str]) -> None:
    os.environ.update(place)
    sys.argv = ["cxr-faith", *arguments]
    status = main(arguments)
    sys.exit(GROUP_ALIVE if torch.distributed.is_initialized() else status)
