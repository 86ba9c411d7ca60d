"""The class of every command: errors as one line, exit codes, ``--version``, and hints for mistyped options."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from titokcodec import __version__
from titokcodec.cli import hints
from titokcodec.cli.errors import out_of_memory, reason
from titokcodec.cli.process import one_line, write_stderr
from titokcodec.errors import TitokError


class Command(click.Command):
    """A command that ends in one line on standard error, not in a traceback, when its work cannot be done."""

    def __init__(self, name: str | None, **attributes: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
        super().__init__(name, context_settings=settings, **attributes)
        self.params.append(_version_option(self))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with one_line(self.name or ""):  # also for errors about the command line itself
            return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        hints.check(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            instead = hints.hint(error.option_name)
            if instead is None:
                raise
            raise click.UsageError(f"No such option: {error.option_name}; {instead}.", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _library_warnings(self.name, ctx.params):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)
        except (TitokError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not out_of_memory(error):
                raise  # a bug of ours, or click's way to exit
            write_stderr(f"{self.name}: {reason(error)}")
            ctx.exit(1)


@contextmanager
def _library_warnings(command: str | None, params: dict[str, Any]) -> Iterator[None]:
    """Warnings of libraries, mostly meant for programmers, are a line each with --verbose and ignored otherwise; unless
    the user has set Python's own warning options."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("default" if params.get("verbose") and not params.get("as_json") else "ignore")
            warnings.showwarning = lambda message, *_: write_stderr(
                f"{command}: warning: {' '.join(str(message).split())}"
            )
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
