"""The commands: ``titok-`` and ``compress``, ``decompress``, ``info``, ``truncate``, ``convert`` or ``generate``.

What they have in common: ``-`` is standard input or output, and standard output then holds the stream and nothing
else; everything else that they say goes to standard error, a line for each failing file; a file is written whole or
not at all, and never over another one unasked (a link stays, and what it leads to is replaced; devices, pipes and
names such as /dev/stdout are written into); the exit code is 0 if all went well, 1 if something failed, 2 for a
command line that makes no sense, and 130 when interrupted.

A command is imported when it is asked for. That needs click and no more: Pillow, numpy and torch come when it gets to
the work that needs them. Console scripts begin in :mod:`titokcodec.cli.start`.
"""

from titokcodec.lazy import importer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from titokcodec.cli.commands import compress, decompress, info, truncate
    from titokcodec.cli.conversion import convert
    from titokcodec.cli.generation import generate

_HOMES = {
    "compress": "commands",
    "decompress": "commands",
    "info": "commands",
    "truncate": "commands",
    "convert": "conversion",
    "generate": "generation",
}

__all__ = ["compress", "convert", "decompress", "generate", "info", "truncate"]

__getattr__ = importer(__name__, _HOMES, globals())
