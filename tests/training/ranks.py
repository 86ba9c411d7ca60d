"""Two processes that train together, without the cost of a third that starts them."""

import os
import socket
import subprocess
import sys

from tests.conftest import ROOT


def two_ranks(line):
    """Run a Python script with its words as both ranks of two, as ``torchrun`` would; returns their standard error.

    Raises:
        AssertionError: one of them ends with another exit code than 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, line)],
            cwd=ROOT,
            env=os.environ | common | {"PYTHONPATH": str(ROOT), "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    return "".join(said)
