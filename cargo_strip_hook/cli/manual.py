"""The manual page, in the language of man(7), made from the parsers of the commands."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

from cargo_strip_hook import __version__
from cargo_strip_hook.cli.parser import COMMANDS
from cargo_strip_hook.cli.reference import Command, Option, reference

_DATE = "2026-11-30"  # of the last change of the text
_EXIT_STATUS = (
    ("0", "Done."),
    ("1", "Failed, or `check` found something. Libraries that failed are as they were."),
    ("2", "The command line or the configuration makes no sense."),
    ("130", "Interrupted."),
)
_ENVIRONMENT = (
    ("CARGO_TERM_COLOR, NO_COLOR, FORCE_COLOR", "Whether output is coloured, as for cargo."),
    ("CARGO_TERM_QUIET, CARGO_TERM_VERBOSE", "The same as -q and -v."),
    ("CARGO_TERM_PROGRESS_WHEN", "Whether long work shows its progress: auto, always or never."),
    ("STRIP_HOOK", "0: cargo's hook (see `setup`) leaves the libraries of a build alone."),
    ("STRIP_HOOK_BACKTRACE", "Show a traceback where the program itself fails."),
    (
        "STRIP_HOOK_LD, STRIP_HOOK_OBJCOPY, STRIP_HOOK_LIBTOOL",
        "The programs of `--engine system`; where not set, LD, OBJCOPY and LIBTOOL.",
    ),
)


def page() -> str:
    """The page, the same bytes for the same version."""
    return "".join(line + "\n" for line in _lines())


def _lines() -> Iterator[str]:
    documented = reference()
    yield f'.TH CARGO\\-STRIP\\-HOOK 1 {_DATE} "cargo\\-strip\\-hook {__version__}" "User Commands"'
    yield ".SH NAME"
    yield "cargo\\-strip\\-hook \\- make static libraries of cargo\\-c small and self\\-contained"
    yield ".SH SYNOPSIS"
    for number, command in enumerate(documented.commands):
        if number:
            yield ".br"
        yield _usage(command.usage)
    yield ".SH DESCRIPTION"
    yield from _paragraphs(documented.commands[0].description)
    yield ".SH COMMANDS"
    for command in documented.commands[1:]:
        yield from _command(command)
    yield from _entry(_bold("help"), COMMANDS["help"])
    yield ".SH OPTIONS"
    for group in documented.groups:
        yield f".SS {_quoted(group.title)}"
        if len(group.commands) < len(documented.commands):
            yield from _text(f"For {_listed(group.commands)}.")
        yield from _options(group.options)
    yield ".SH CONFIGURATION"
    yield from _paragraphs(
        "Keys of [package.metadata.strip-hook] and [workspace.metadata.strip-hook] in Cargo.toml "
        "are named like the options: header, export, exports-file, preset, keep, strip, engine, "
        "granularity, compress-debug, debug-twin, allow-missing, share. Those of cargo's hook "
        "alone are profiles, on-error and verbose. A result that is larger than max-size, or grew "
        "by more than max-growth since the report in the file baseline, fails the run. A table "
        "`targets` has other values for triples and cfg(...). Options go over a package's keys, "
        "and those over the workspace's."
    )
    yield ".SH EXIT STATUS"
    for code, text in _EXIT_STATUS:
        yield from _entry(_bold(code), text)
    yield ".SH ENVIRONMENT"
    for names, text in _ENVIRONMENT:
        yield from _entry(_bold(names), text)
    yield ".SH SEE ALSO"
    yield ".BR cargo (1),"
    yield ".BR ld (1),"
    yield ".BR ar (1)"


def _command(command: Command) -> Iterator[str]:
    yield from _entry(_usage(command.usage.removeprefix("cargo strip-hook ")), command.description)
    if command.own:
        yield ".RS"
        yield from _options(command.own)
        yield ".RE"


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        value = _italic(option.metavar) if option.metavar else ""
        names = ", ".join(_bold(name) for name in option.names)
        yield from _entry(" ".join(filter(None, (names, value))), option.help)


def _entry(tag: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield tag
    yield from _paragraphs(text, ".IP")


def _paragraphs(text: str, between: str = ".PP") -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield between
        yield from _text(" ".join(paragraph.split()))


def _listed(commands: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" if name else "no command" for name in commands)


def _usage(text: str) -> str:
    """Literal words in bold, metavariables in italics."""
    return re.sub(
        r"[A-Za-z-]+",
        lambda m: _italic(m[0]) if m[0].isupper() else _bold(m[0]),
        text.replace("...", "\0"),
    ).replace("\0", "...")


def _text(text: str) -> list[str]:
    """Lines of text: `code` in bold, and no line that roff would read as a request."""
    parts = text.split("`")
    said = "".join(_bold(part) if n % 2 else _plain(part) for n, part in enumerate(parts))
    lines = textwrap.wrap(said, 78, break_long_words=False, break_on_hyphens=False)
    return [f"\\&{line}" if line.startswith((".", "'")) else line for line in lines]


def _quoted(text: str) -> str:
    return '"' + _plain(text).replace('"', "\\(dq") + '"'


def _bold(text: str) -> str:
    return f"\\fB{_plain(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_plain(text)}\\fR"


def _plain(text: str) -> str:
    special = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti", "…": "..."}
    return "".join(special.get(c, c) for c in text)
