"""The commands: ``titok-`` and ``compress``, ``decompress``, ``info``, ``truncate``, ``convert`` or ``generate``.

What they have in common: ``-`` is standard input or output, and standard output then holds the stream and nothing
else; all messages go to standard error, a line for each file that fails; a file is written whole or not at all, and
never replaces another one unless asked (a link stays, and its destination is replaced; devices, pipes and names such as
/dev/stdout are written into); the exit code is 0 if all went well, 1 if something failed, 2 for a command line that
makes no sense, and 130 when interrupted.

A command is imported when it is asked for. That needs click and no more: Pillow, numpy and torch are imported by the
work that needs them. Console scripts begin in :mod:`titokcodec.cli.start`.
"""

from titokcodec.lazy import importer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from titokcodec.cli.commands.compress import compress
    from titokcodec.cli.commands.convert import convert
    from titokcodec.cli.commands.decompress import decompress
    from titokcodec.cli.commands.generate import generate
    from titokcodec.cli.commands.info import info
    from titokcodec.cli.commands.truncate import truncate

__all__ = ["compress", "convert", "decompress", "generate", "info", "truncate"]

__getattr__ = importer(__name__, {name: f"commands.{name}" for name in __all__}, globals())
