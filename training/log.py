"""The log of a run."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from . import progress

LOG, BOARD = "log.jsonl", "tensorboard"  # in the folder of a run


class Log:
    """Metrics as JSON lines, to TensorBoard where it is installed, and in short to the terminal; nowhere if ``quiet``,
    as all ranks but the first are. A run from step 0 begins a new log; one that goes on from later adds to its own."""

    def __init__(self, folder: Path, step: int = 0, quiet: bool = False) -> None:
        self.file = self.board = None
        if quiet:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.file = (folder / LOG).open("a" if step else "w", buffering=1)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / BOARD), purge_step=step)
        except ImportError:
            pass

    def write(self, step: int, **values: float | Tensor) -> None:
        """Record one row of named numbers."""
        if not self.file:
            return
        row = {name: float(value.detach() if isinstance(value, Tensor) else value) for name, value in values.items()}
        self.file.write(json.dumps({"step": step, **{name: round(value, 5) for name, value in row.items()}}) + "\n")
        self.print(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if self.board:
            for name, value in row.items():
                self.board.add_scalar(name, value, step)

    def print(self, line: str) -> None:
        """Print a line."""
        if self.file:
            progress.clear()
            print(line, flush=True)

    def picture(self, name: str, pixels: Tensor, step: int) -> None:
        """Show a (3, H, W) picture in [0, 1] on TensorBoard."""
        if self.board:
            self.board.add_image(name, pixels, step)

    def close(self) -> None:
        """Write out what is still held back."""
        if self.file:
            self.file.close()
        if self.board:
            self.board.close()
