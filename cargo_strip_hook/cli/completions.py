"""Completions for shells, made from the parsers of the commands."""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from cargo_strip_hook.cli.parser import COMMANDS, PARSERS, Parser

# options of ours come before these words, cargo-c's after them
_WRAPPERS = ("cbuild", "cinstall")
_PROGRAM = "cargo-strip-hook"


def script(shell: str) -> str:
    """The script with which `shell` ("bash", "zsh" or "fish") completes our command line."""
    return str(shtab.complete(_tree(), shell)).rstrip("\n") + "\n"


def _tree() -> Parser:
    """One parser with all commands below it, which is what shtab reads."""
    root = _with_completions(PARSERS[""]())
    root.prog = _PROGRAM
    below = root.add_subparsers(prog=_PROGRAM, metavar="COMMAND", parser_class=_Given)
    for name, summary in COMMANDS.items():
        if name in _WRAPPERS:
            parser = Parser(add_help=False)
        elif name == "help":
            parser = Parser(add_help=False)
            parser.add_argument("command", choices=[c for c in COMMANDS if c != "help"])
        else:
            parser = _with_completions(PARSERS[name]())
        parser.description = summary
        below.add_parser(name, given=parser, help=summary)
    return root


class _Given(Parser):
    """Given to argparse as the class of parsers: returns one that exists already."""

    def __new__(cls, given: Parser, **_: object) -> Parser:  # type: ignore[misc]
        return given


def _with_completions(parser: Parser) -> Parser:
    """Mark for shtab which arguments are files and which are folders."""
    for action in parser._actions:
        if action.type is Path:
            kind = shtab.DIRECTORY if _is_folder(action) else shtab.FILE
            action.complete = kind  # type: ignore[attr-defined]
    return parser


def _is_folder(action: argparse.Action) -> bool:
    return action.metavar == "DIR"
