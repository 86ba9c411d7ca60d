"""What every command shares: errors as one line, exit codes, and the standard streams."""

from __future__ import annotations

import os
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from titokcodec import __version__
from titokcodec.cli import habits
from titokcodec.cli.process import discard, one_line, tell
from titokcodec.errors import ImageError, TitokError
from titokcodec.io.atomic import is_stream, write_atomic
from titokcodec.io.names import shown

STREAM_LIMIT = 1 << 30  # 12 bytes for each of the pixels that are let in by default; endless pipes fill no more memory


class Tool(click.Command):
    """A command that ends in one line on standard error, not in a traceback, when its work cannot be done."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
        super().__init__(*args, context_settings=settings, **kwargs)
        self.params.append(_version_option(self))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with one_line(self.name or ""):  # also for what is said of the command line itself
            return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        habits.check(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            instead = habits.hint(error.option_name)
            if instead is None:
                raise
            raise click.UsageError(f"No such option: {error.option_name}; {instead}.", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _warnings(self.name, ctx.params):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)
        except (TitokError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not out_of_memory(error):
                raise  # a mistake of ours, or click's way to exit
            complain(self.name, reason(error))
            ctx.exit(1)


@contextmanager
def _warnings(tool: str | None, params: dict[str, Any]) -> Iterator[None]:
    """What libraries warn of, for programmers mostly, is a line each with --verbose and nothing otherwise; unless the
    user has told Python what to do with warnings."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("default" if params.get("verbose") and not params.get("as_json") else "ignore")
            warnings.showwarning = lambda message, *_: complain(tool, f"warning: {' '.join(str(message).split())}")
        yield


def _version_option(command: click.Command) -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(f"{command.name} {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version and exit.",
        show_default=False,
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, torch on a GPU, or torch on the CPU could not allocate: three types for one thing."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "allocate" in str(error) and "memory" in str(error)


def reason(error: BaseException, name: str = "") -> str:
    """What went wrong, in one line, without the name of the file if the message begins with it."""
    if out_of_memory(error):
        return "not enough memory: try a smaller picture or a smaller --batch-size"
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        named = shown(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else ""
        text = f"{named}: {error.strerror}" if named else error.strerror
    text = " ".join(text.split()) or type(error).__name__
    return text.removeprefix(f"{name}: ") if name else text


def complain(tool: str | None, message: str) -> None:
    """One line on standard error; nobody listening there is no reason to stop."""
    tell(f"{tool}: {message}")


@contextmanager
def picture_source(path: Path | None) -> Iterator[Path | bytes | IO[bytes]]:
    """What to read a picture from; None is standard input.

    Pillow wants to seek, so what comes through a pipe or from a device is held in memory, up to a limit.

    Raises:
        OSError: it is closed or fails.
        ImageError: it does not end.
    """
    if path is None:
        source = stdin()
        if _is_whole_file(source):
            with os.fdopen(os.dup(source.fileno()), "rb") as file:
                yield file
        else:
            yield _read_stream(source)
    elif is_stream(path):  # <(a command), say
        with path.open("rb") as file:
            yield _read_stream(file)
    else:
        yield path


def _is_whole_file(stream: Any) -> bool:
    """Whether a stream is a plain file of which nothing has been read: somebody's < photo.jpg."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and stream.tell() == 0
    except OSError:  # not one of the system's, in a test say
        return False


def _read_stream(stream: IO[bytes]) -> bytes:
    from titokcodec.files import read_at_most

    data = read_at_most(stream, STREAM_LIMIT + 1)
    if len(data) > STREAM_LIMIT:
        raise ImageError(f"more than {STREAM_LIMIT >> 20} MiB: give a file instead")
    return data


def stdin() -> Any:
    """Standard input as a binary stream. Raises ``OSError`` if it is closed."""
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return sys.stdin.buffer


def write_stdout(data: bytes) -> None:
    """Bytes to standard output, now. Raises ``OSError`` if it is closed, full or a pipe that nobody reads."""
    if sys.stdout is None:
        raise OSError("standard output is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        discard(sys.stdout)
        raise OSError(f"standard output: {error.strerror or error}") from None


def write_line(text: str) -> None:
    """A line to standard output, whatever encoding the terminal claims to have."""
    write_stdout(f"{text}\n".encode(errors="backslashreplace"))


def write_target(target: Path | None, data: bytes, force: bool) -> None:
    """Write a result whole or not at all: to a file, a device or pipe, or (None) standard output.

    Raises:
        OSError: it cannot be written, or is there and ``force`` is off; the message says which.
    """
    if target is None:
        write_stdout(data)
        return
    try:
        write_atomic(target, data, overwrite=force)
    except FileExistsError:
        raise OSError(exists(target)) from None
    except OSError as error:
        raise OSError(f"cannot write {shown(target)}: {error.strerror or error}") from None


def exists(target: Path) -> str:
    """What to say of a file that is in the way."""
    return f"{shown(target)} exists: use --force to replace it"


def in_the_way(target: Path | None) -> bool:
    """Whether writing ``target`` would replace something. Devices and pipes, such as /dev/null, are written to."""
    return target is not None and os.path.lexists(target) and not is_stream(target)
