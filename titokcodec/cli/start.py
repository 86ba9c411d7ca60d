"""Where the console scripts begin: first of all the process is made to end quietly, then their command is imported."""

from collections.abc import Callable

from titokcodec import cli
from titokcodec.cli import process


def _starting(name: str) -> Callable[[], None]:
    def start() -> None:
        process.prepare()
        getattr(cli, name)()

    return start


compress, convert, decompress, generate, info, truncate = map(_starting, cli.__all__)
