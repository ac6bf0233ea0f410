"""What the parsers say, as values for the manual page and the documentation."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from cargo_strip_hook.cli.parser import COMMANDS, PARSERS, Parser


@dataclass(frozen=True, slots=True)
class Option:
    """An option or a positional argument. `metavar` is empty for one that takes no value."""

    names: tuple[str, ...]
    metavar: str
    help: str


@dataclass(frozen=True, slots=True)
class Group:
    """Options that several commands share, under a heading."""

    title: str
    options: tuple[Option, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A command; the bare one has no name. `own` are the options that are in no group."""

    name: str
    summary: str
    usage: str
    description: str
    own: tuple[Option, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """All commands, in the order of the help, and the groups of options, each once."""

    commands: tuple[Command, ...]
    groups: tuple[Group, ...]


def reference() -> Reference:
    """Read the parsers of all commands."""
    commands = []
    groups: dict[tuple[str, tuple[Option, ...]], list[str]] = {}
    for name, make in PARSERS.items():
        parser = make()
        own: tuple[Option, ...] = ()
        titles = []
        for group in parser._action_groups:
            options = tuple(_option(action) for action in group._group_actions)
            if not options:
                continue
            if group in _without_title(parser):
                own += options
            else:
                title = str(group.title)
                titles.append(title)
                groups.setdefault((title, options), []).append(name)
        usage, text = str(parser.usage), _description(parser)
        commands.append(Command(name, COMMANDS.get(name, ""), usage, text, own, tuple(titles)))
    shared = tuple(Group(title, given, tuple(by)) for (title, given), by in groups.items())
    return Reference(tuple(commands), shared)


def _without_title(parser: Parser) -> list[argparse._ArgumentGroup]:
    """The two groups of argparse itself, of positional and of other arguments."""
    return parser._action_groups[:2]


def _option(action: argparse.Action) -> Option:
    takes_value = action.nargs != 0
    metavar = ""
    if takes_value:
        metavar = str(action.metavar or "|".join(map(str, action.choices or ())) or action.dest)
    if not action.option_strings:
        metavar += {"+": "...", "*": "..."}.get(str(action.nargs), "")
    return Option(tuple(action.option_strings), metavar, str(action.help or ""))


def _description(parser: Parser) -> str:
    """The description without the list of commands, which a reference has elsewhere."""
    return str(parser.description or "").partition("\n\ncommands:\n")[0]
