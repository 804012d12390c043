"""The application: its verbs, and what becomes of whatever they raise."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from dfmeta import __version__
from dfmeta.cli import failures, isolation
from dfmeta.cli.audit import audit
from dfmeta.cli.bounds import bounded
from dfmeta.cli.check import check
from dfmeta.cli.compress import compress
from dfmeta.cli.convert import convert
from dfmeta.cli.demo import demo
from dfmeta.cli.distill import distill
from dfmeta.cli.evaluate import evaluate
from dfmeta.cli.factorize import factorize
from dfmeta.cli.groups import expanded
from dfmeta.cli.merge import merge
from dfmeta.cli.prune import prune
from dfmeta.cli.quantize import quantize
from dfmeta.cli.reconstruct import reconstruct
from dfmeta.cli.record import record
from dfmeta.cli.show import show
from dfmeta.cli.validate import validate

# In the order in which a release is made and used.
VERBS = (
    record,
    merge,
    audit,
    validate,
    show,
    reconstruct,
    distill,
    quantize,
    factorize,
    prune,
    compress,
    convert,
    evaluate,
    check,
    demo,
)

# One reads a manifest, and runs nothing; one runs the graph that it has just trained, and then other verbs. Every other
# verb may run a stranger's graph, and does its work in a child process.
UNWATCHED = (show, demo)

_VERBATIM = "\b\n"


def _help(verb: Callable[..., None]) -> str:
    """A verb's docstring, its indented examples kept as they are written."""
    paragraphs = (inspect.getdoc(verb) or "").split("\n\n")
    return "\n\n".join(f"{_VERBATIM}{text}" if text.startswith(" ") else text for text in paragraphs)


app = typer.Typer(
    name="dfmeta",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="dfmeta VERB --help says more, with an example. Exit codes: 0 good, 1 what was examined fails "
    "its check, 2 wrong use, 3 something missing or unsupported, 4 a bug of ours.",
)
for verb in VERBS:
    app.command(help=_help(verb))(expanded(verb if verb in UNWATCHED else bounded(verb)))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dfmeta {__version__}")
        raise typer.Exit


@app.callback()
def dfmeta(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Publish what the data did to a model, not the data; compress the model from that alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    As a program, without ``arguments``, a verb that may run a graph does its work in a child process
    (:mod:`dfmeta.cli.isolation`). With ``arguments`` all is done in this process, and nothing watches over it.

    Args:
        arguments: in place of ``sys.argv[1:]``.

    Returns:
        The exit code. Nothing is raised, whatever happens.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and (verb := _runs_graphs(given)):
        return isolation.run(lambda: _main(given), lambda error: failures.ended(error, verb, as_json="--json" in given))
    return _main(given)


def _runs_graphs(arguments: list[str]) -> str:
    """The verb, if it is one that may run a stranger's graph; otherwise nothing."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    others = {each.__name__ for each in VERBS if each not in UNWATCHED}
    return verb if verb in others else ""


def _main(given: list[str]) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = failures.show_warning
        code = _run(given) if given else max(_run(["--help"]), failures.WRONG_USE)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on. Python flushes once more while it leaves, and must not complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failures.BROKEN_PIPE
    return code


def _run(arguments: list[str]) -> int:
    try:
        result = app(args=arguments, prog_name="dfmeta", standalone_mode=False)
    except SystemExit as error:
        # Typer and rich leave like this when the reader of a pipe is gone; so may a user's own module.
        if isinstance(error.__context__, BrokenPipeError):
            return failures.BROKEN_PIPE
        return error.code if isinstance(error.code, int) else failures.WRONG_USE
    except BaseException as error:  # noqa: BLE001 - the last stop: everything becomes a line and an exit code
        return failures.report(error, as_json="--json" in arguments)
    return result if isinstance(result, int) else 0
