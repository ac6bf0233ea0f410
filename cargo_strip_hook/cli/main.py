"""The entry point: chooses the command, and reports its errors."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from cargo_strip_hook.cli import parser as parsers
from cargo_strip_hook.cli.console import Console, Unwritable
from cargo_strip_hook.core import lifetime
from cargo_strip_hook.core.errors import StripHookError, UsageError, of_memory, of_system
from cargo_strip_hook.engines import worker
from cargo_strip_hook.present.terminal import Shell

_WRAPPED: dict[str, Literal["cbuild", "cinstall"]] = {"cbuild": "cbuild", "cinstall": "cinstall"}


def main(argv: Sequence[str], *, parent: int | None = None) -> int:
    """Run a command line (without the program's name) and return the exit code.

    0: done. 1: failed, or `check` found something. 2: the command line makes no sense. 128 and a
    signal's number: that signal ended it. `parent` is the process that waits for this one.
    """
    words = list(argv)
    # cargo calls its subcommands with their own name first
    if words and words[0] == "strip-hook":
        del words[0]
    console = _early_console(words)
    with lifetime.endings_raise():
        if parent is not None:
            lifetime.follow(parent)
        try:
            return _all_of(words, console)
        finally:
            worker.dismiss()


def report(argv: Sequence[str], problem: StripHookError) -> int:
    """Report why the process of a command line ended. Returns the exit code."""
    console = _early_console(argv)

    def say() -> int:
        console[0].problem(problem)
        _finish(console[0], problem.exit_code)
        return problem.exit_code

    return _said(say, console[0])


def _all_of(words: list[str], console: list[Console]) -> int:
    def run() -> int:
        exit_code = _run(words, console)
        _finish(console[0], exit_code)
        sys.stdout.flush()
        return exit_code

    try:
        return _said(run, console[0])
    except KeyboardInterrupt as e:  # while writing a message
        return _ended(e, console[0])


def _said(say: Callable[[], int], console: Console) -> int:
    """The exit code of `say`, which writes to stdout; 1 where that cannot be written."""
    try:
        return say()
    except BrokenPipeError:
        # the reader of stdout is gone; Python must not report that again when it exits
        _silence()
        return 1
    except Unwritable as e:
        _silence()
        # not as JSON, which would go to stdout
        console.shell.error(StripHookError(f"stdout cannot be written: {e.strerror or e}").what)
        return 1
    except OSError as e:
        _silence()
        console.shell.error(of_system(e).what)
        return 1


def _silence() -> None:
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(words: list[str], console: list[Console]) -> int:
    """Run the command and report its errors. `console[0]` is replaced once options are known."""
    try:
        return _dispatch(words, console)
    except KeyboardInterrupt as e:
        return _ended(e, console[0])
    except (BrokenPipeError, Unwritable):
        raise
    except Exception as e:
        asked = lifetime.asked_to_end()
        if asked is not None:
            return _ended(asked, console[0])
        if isinstance(e, StripHookError):
            console[0].problem(e)
            return e.exit_code
        problem = of_memory(e)
        if problem is None and isinstance(e, OSError):
            problem = of_system(e)
        if problem is None:
            if "-vv" in words or os.environ.get("STRIP_HOOK_BACKTRACE", "0") not in ("", "0"):
                import traceback

                console[0].shell.block("where it happened:", traceback.format_exc().splitlines())
            problem = _internal(e)
        console[0].problem(problem)
        return 1


def _ended(error: KeyboardInterrupt, console: Console) -> int:
    what, exit_code = lifetime.ending_of(error)
    console.shell.error(what)
    return exit_code


def _internal(error: Exception) -> StripHookError:
    return StripHookError(
        f"internal error: {type(error).__name__}: {error}",
        help=(
            "this is a defect of cargo-strip-hook, and no library was replaced by it",
            "please report it with what STRIP_HOOK_BACKTRACE=1 shows",
        ),
    )


def _early_console(words: Sequence[str]) -> list[Console]:
    """A console for errors in the command line itself, before it is parsed."""
    try:
        shell = Shell.open(sys.stderr, None, 0, False)
    except UsageError:
        shell = Shell(sys.stderr)
    return [Console(shell, json=_wants_json(words))]


def _wants_json(words: Sequence[str]) -> bool:
    if "--message-format=json" in words or "--json" in words:
        return True
    return ("--message-format", "json") in itertools.pairwise(words)


def _finish(console: Console, exit_code: int) -> None:
    if console.json:
        from cargo_strip_hook.present import messages

        console.send([messages.finished(exit_code)])


def _dispatch(words: list[str], console: list[Console]) -> int:
    before, command, after = parsers.split_command(words)
    if command == "help":
        return _help(after)
    # parsing first: `commands` is not needed for --help and mistakes
    wrapped = _WRAPPED.get(command or "")
    if wrapped is not None:
        args = parsers.PARSERS[wrapped]().parse_args(before)
        chosen = _open_console(args, _cargo_verbosity(after))
    else:
        args = parsers.PARSERS[command or ""]().parse_args([*before, *after])
        chosen = _open_console(args, argparse.Namespace(verbose=0, color=None))
    console[0] = chosen
    if command in (None, "strip"):  # not where cargo runs first: that takes long
        worker.start()
    from cargo_strip_hook.cli import commands, sets

    if wrapped is not None:
        return commands.wrap(wrapped, args, after, chosen)
    run = {
        None: commands.bare,
        "setup": commands.setup,
        "strip": commands.strip,
        "share": sets.share,
        "join": sets.join,
        "check": commands.check,
        "exports": commands.exports,
        "report": commands.report,
        "completions": commands.completions,
        "man": commands.man,
        "why": commands.why,
    }[command]
    return run(args, chosen)


def _open_console(args: argparse.Namespace, cargo: argparse.Namespace) -> Console:
    shell = Shell.open(
        sys.stderr,
        args.color or cargo.color,
        args.verbose or (0 if args.quiet else cargo.verbose),
        args.quiet,
    )
    return Console(shell, json=args.message_format == "json")


def _cargo_verbosity(words: Sequence[str]) -> argparse.Namespace:
    """-v and --color among cargo-c's arguments, which apply to our lines, too."""
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scan.add_argument("-v", "--verbose", action="count", default=0)
    scan.add_argument("--color", choices=("auto", "always", "never"))
    try:
        return scan.parse_known_args(list(words))[0]
    except (SystemExit, argparse.ArgumentError):
        return argparse.Namespace(verbose=0, color=None)


def _help(words: Sequence[str]) -> int:
    command = words[0] if words else ""
    if command not in parsers.PARSERS:
        raise UsageError(f"no such command: `{command}`")
    parsers.PARSERS[command]().print_help()
    return 0
