"""The commands: ``titok-`` and ``compress``, ``decompress``, ``info``, ``truncate``, ``convert`` or ``generate``.

What they have in common: ``-`` is standard input or output, and standard output then holds the stream and nothing
else; everything else that they say goes to standard error, a line for each failing file; a file is written whole or
not at all, and never over another one unasked; the exit code is 0 if all went well, 1 if something failed, 2 for a
command line that makes no sense, and 130 when interrupted.

Importing this needs click and no more. Pillow, numpy and torch come when a command gets to the work that needs them.
"""

from titokcodec.cli.commands import compress, decompress, info, truncate
from titokcodec.cli.conversion import convert
from titokcodec.cli.generation import generate

__all__ = ["compress", "convert", "decompress", "generate", "info", "truncate"]
