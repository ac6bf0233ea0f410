"""The options of every command, with their help; what they mean is decided elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from cargo_strip_hook import __version__
from cargo_strip_hook.core.errors import UsageError
from cargo_strip_hook.exports.sources import SOURCES

COMMANDS = {
    "cbuild": "run cargo-c's `cbuild` with the arguments that follow, then strip what it built",
    "cinstall": "run cargo-c's `cinstall` likewise, then strip the installed libraries",
    "setup": "have cargo itself strip each static library of this workspace that it builds",
    "strip": "strip the given libraries; knows nothing of cargo",
    "share": "put what several libraries have in common into one more library",
    "join": "make one library of several, with what they have in common once",
    "check": "say what is wrong with a library as something that others link against",
    "exports": "list the public symbols and where each one came from",
    "report": "show the size of a library by kind, crate and member, or how two differ",
    "why": "say why a symbol or crate is in a library, and what it costs",
    "completions": "write the completions for a shell to stdout",
    "man": "write the manual page to stdout",
    "help": "show the help of a command",
}
SHELLS = ("bash", "zsh", "fish")
PROGRAM = "cargo strip-hook"
_LIBRARY = "a static library, or an xcframework"


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `UsageError`."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` for a mistake on the command line."""
        raise UsageError(message, help=f"for more information, try `{self.prog} --help`")


def _parser(command: str, description: str, usage: str, epilog: str = "") -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} {command}".strip(),
        description=description,
        usage=f"{PROGRAM} {usage}",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    _general(parser)
    return parser


def _general(parser: Parser) -> None:
    group = parser.add_argument_group("general options")
    group.add_argument("-h", "--help", action="help", help="show this help and exit")
    group.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"cargo-strip-hook {__version__}",
        help="show the version and exit",
    )
    group.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; -vv shows tracebacks too"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        metavar="WHEN",
        help="colour the output: auto, always or never",
    )
    group.add_argument(
        "--message-format",
        choices=("human", "json"),
        default="human",
        metavar="FMT",
        help="json: write one JSON object a line to stdout as well",
    )


def _exports(parser: Parser) -> None:
    group = parser.add_argument_group("what is public (each may be repeated)")

    def many(*names: str, kind: Callable[[str], object], metavar: str, help: str) -> None:
        group.add_argument(*names, action="append", type=kind, metavar=metavar, help=help)

    many("--header", kind=Path, metavar="H", help="the functions and variables a C header declares")
    for source in SOURCES:
        many(f"--{source.name}", kind=source.kind, metavar=source.metavar, help=source.help)
    many(
        "--keep",
        kind=str,
        metavar="PATTERN",
        help="leave these global as well, although they are no API (C++ type information)",
    )
    many("-D", "--define", kind=str, metavar="NAME[=VALUE]", help="define a macro for the headers")
    many("-I", "--include-dir", kind=Path, metavar="DIR", help="where headers find the others")
    group.add_argument(
        "--cdylib", type=Path, metavar="F", help="all that this shared library exports"
    )
    group.add_argument(
        "--crate-name",
        metavar="NAME",
        help="the crate whose own symbols are public where nothing else says what is",
    )
    group.add_argument(
        "--allow-missing",
        action="store_true",
        default=None,
        help="warn where a declared symbol is not defined, instead of failing",
    )


def _result(parser: Parser) -> None:
    group = parser.add_argument_group("the result")
    _size(group)
    group.add_argument(
        "--engine",
        choices=("native", "system"),
        help="our own prelinker (native, the default) or the platform's linker and objcopy",
    )
    _link_check(group)
    group.add_argument(
        "--debug-twin",
        type=Path,
        metavar="FILE",
        help="also write the same library with all names and debug information of live code: a "
        "program linked with it has the same addresses, for crash reports",
    )
    group.add_argument(
        "--compress-debug",
        choices=("none", "zlib", "zstd"),
        help="how debug sections are written where they are kept (ELF only; default: none)",
    )
    group.add_argument(
        "--allow-signed",
        action="store_true",
        help="change libraries in a signed xcframework or framework, too; sign it again then",
    )
    _jobs_option(group)
    _dry_run(group)


def _share(parser: Parser) -> None:
    """What packages have besides: a set."""
    parser.add_argument(
        "--share",
        type=_library_name,
        metavar="NAME",
        help="put what at least two of the packages need into one more library, libNAME, that "
        "programs link besides; each .pc file requires NAME.pc, which is written (ELF only)",
    )


def _library_name(text: str) -> str:
    from cargo_strip_hook.cargo.settings import is_library_name

    if not is_library_name(text):
        raise argparse.ArgumentTypeError(f"`{text}` is no name of a library, such as `common`")
    return text


def _size(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--strip",
        choices=("none", "debuginfo", "symbols"),
        help="what else to remove: nothing, debug information, or local names too",
    )
    group.add_argument(
        "--granularity",
        choices=("class", "section", "whole"),
        help="how finely a program's linker can drop parts: what belongs together is one section "
        "(class, the default), as compiled (section), not at all (whole)",
    )


def _jobs_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-j", "--jobs", type=_jobs, metavar="N", help="libraries at a time (default: processors)"
    )


def _link_check(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--link-check",
        action="store_true",
        help="also link a C program that needs every export before anything is replaced",
    )
    group.add_argument(
        "--link-arg",
        action="append",
        metavar="ARG",
        help="what such a program needs besides std's own libraries (repeatable): --link-arg=-lz",
    )


def _dry_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing")


def _jobs(text: str) -> int:
    return _count(text, "a number of jobs")


def _count(text: str, what: str = "a number from 1 on") -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not {what}")
    return number


def _selection(parser: Parser) -> None:
    group = parser.add_argument_group("which packages, as for cargo and cargo-c")
    group.add_argument("-p", "--package", action="append", metavar="SPEC", help="only this package")
    group.add_argument("--workspace", "--all", action="store_true", help="all with a C API")
    group.add_argument("--exclude", action="append", metavar="SPEC", help="all but this package")
    group.add_argument("--manifest-path", type=Path, metavar="PATH", help="path to Cargo.toml")
    group.add_argument("--target", metavar="TRIPLE", help="built for this target")
    group.add_argument("--target-dir", type=Path, metavar="DIR", help="where cargo's output is")
    group.add_argument("--profile", metavar="NAME", help="built with this profile")
    group.add_argument("-r", "--release", action="store_true", help="the same as --profile release")
    group.add_argument("--debug", action="store_true", help="the same as --profile dev")
    group.add_argument("--config", action="append", metavar="KEY=VALUE", help="cargo configuration")
    group.add_argument("-F", "--features", action="append", help="features it was built with")
    group.add_argument("--all-features", action="store_true", help="it was built with all")
    group.add_argument("--no-default-features", action="store_true", help="without the default one")
    group.add_argument("--locked", action="store_true", help="Cargo.lock must be up to date")
    group.add_argument("--offline", action="store_true", help="do not use the network")
    group.add_argument("--frozen", action="store_true", help="both --locked and --offline")
    group.add_argument("--meson-paths", action="store_true", help="built with --meson-paths")
    group.add_argument("-Z", action="append", metavar="FLAG", dest="unstable", help="cargo's own")
    group = parser.add_argument_group("where it is")
    group.add_argument(
        "--installed",
        action="store_true",
        help="the files that `cargo cinstall` installed, not those in the target directory",
    )
    for name, what in (
        ("destdir", "root of the installation"),
        ("prefix", "installation prefix"),
        ("libdir", "library folder"),
        ("includedir", "header folder"),
        ("pkgconfigdir", "folder of .pc files"),
    ):
        group.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"{what} (with --installed)")


def bare_parser() -> Parser:
    """`cargo strip-hook` itself."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {help}" for name, help in COMMANDS.items())
    parser = _parser(
        "",
        "Make the static libraries that cargo-c built small and self-contained: one object in\n"
        "which only the public C API is visible.\n\n"
        "Without a command: the libraries of the selected packages, as built by `cargo cbuild`.\n\n"
        f"commands:\n{commands}",
        "[COMMAND] [OPTIONS]",
        "Configuration is read from [package.metadata.strip-hook] and\n"
        "[workspace.metadata.strip-hook]; options go over it. Exit code: 0 done, 1 failed,\n"
        "2 usage.",
    )
    _selection(parser)
    _share(parser)
    _exports(parser)
    _result(parser)
    return parser


def wrap_parser(command: str) -> Parser:
    """The options before `cbuild` or `cinstall`; what follows the word belongs to cargo-c."""
    parser = _parser(
        command,
        f"Run cargo-c's `{command}` with ARGS, untouched, then strip the libraries it made.\n"
        "Options of cargo-strip-hook itself go before the command.",
        f"[OPTIONS] {command} [ARGS]",
    )
    _share(parser)
    _exports(parser)
    _result(parser)
    return parser


def setup_parser() -> Parser:
    """`setup`."""
    parser = _parser(
        "setup",
        "Write `rustc-workspace-wrapper` into the workspace's .cargo/config.toml: from then on\n"
        "each static library that cargo builds here, whoever calls it, is stripped before cargo\n"
        "sees it. What was built before is built again.",
        "setup [OPTIONS]",
        "A machine without cargo-strip-hook cannot build this workspace then. STRIP_HOOK=0 in the\n"
        "environment turns it off for one build.",
    )
    group = parser.add_argument_group("what to do").add_mutually_exclusive_group()
    group.add_argument(
        "--check",
        action="store_true",
        help="say whether it is active, by which file or variable, and for which packages",
    )
    group.add_argument("--undo", action="store_true", help="take the line out again")
    parser.add_argument("--manifest-path", type=Path, metavar="PATH", help="path to Cargo.toml")
    return parser


def strip_parser() -> Parser:
    """`strip LIB…`."""
    parser = _parser(
        "strip",
        "Strip static libraries; the result depends on the arguments and the files they name\n"
        "alone. Where nothing says what is public, it is what the library's own crate defines\n"
        "under a name that is not mangled.",
        "strip LIB... [OPTIONS]",
    )
    parser.add_argument("library", type=Path, nargs="+", metavar="LIB", help=_LIBRARY)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="write OUT, leave LIB")
    _target(parser)
    _exports(parser)
    _result(parser)
    return parser


_OF_SETS = (
    "What is public is decided as by `strip`; a pattern or a header may speak of some of the\n"
    "libraries only. One that was stripped before cannot be {}: build it again."
)


def _set(parser: Parser) -> None:
    """What commands about several libraries have in common, behind their own options."""
    _target(parser)
    _exports(parser)
    group = parser.add_argument_group("what is made of them")
    _size(group)
    _link_check(group)
    _jobs_option(group)
    _dry_run(group)
    _json(parser)


def share_parser() -> Parser:
    """`share LIB… --common FILE`."""
    parser = _parser(
        "share",
        "Make static libraries that go into one program small, and put what at least two of them\n"
        "need into one more library, once: one std, one panic hook, one allocator. A program\n"
        "links any of them with the common one behind. ELF and Mach-O.",
        "share LIB... --common FILE [OPTIONS]",
        _OF_SETS.format("shared"),
    )
    parser.add_argument("library", type=Path, nargs="+", metavar="LIB", help=_LIBRARY)
    parser.add_argument(
        "--common", type=Path, required=True, metavar="FILE", help="write the common library here"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write the results into DIR, leave LIB"
    )
    _set(parser)
    return parser


def join_parser() -> Parser:
    """`join LIB… -o FILE`."""
    parser = _parser(
        "join",
        "Make one static library of several: with all that is public in them, and what they have\n"
        "in common once. Two definitions of one public name are an error. ELF and Mach-O.",
        "join LIB... -o FILE [OPTIONS]",
        _OF_SETS.format("joined"),
    )
    parser.add_argument("library", type=Path, nargs="+", metavar="LIB", help="a static library")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="write the library here"
    )
    _set(parser)
    return parser


def check_parser() -> Parser:
    """`check [LIB…]`."""
    parser = _parser(
        "check",
        "Say what is wrong with a library as something that others link against: symbols leaked\n"
        "or missing, bitcode, debug information, more than one object, collisions.\n"
        "Exit code 1 if there is anything; notes do not count.",
        "check [LIB...] [OPTIONS]",
        "Without LIB: the libraries of the selected packages.",
    )
    parser.add_argument("library", type=Path, nargs="*", metavar="LIB", help=_LIBRARY)
    parser.add_argument(
        "--against",
        action="append",
        type=Path,
        metavar="OTHER",
        help="a library that is to be linked into the same program (repeatable)",
    )
    _selection(parser)
    _exports(parser)
    return parser


def exports_parser() -> Parser:
    """`exports [LIB…]`."""
    parser = _parser(
        "exports",
        "List the public symbols of a library and where each one came from, on stdout.",
        "exports [LIB...] [OPTIONS]",
        "Without LIB: the libraries of the selected packages.",
    )
    parser.add_argument("library", type=Path, nargs="*", metavar="LIB", help=_LIBRARY)
    _selection(parser)
    _exports(parser)
    return parser


def report_parser() -> Parser:
    """`report LIB [OTHER]`."""
    parser = _parser(
        "report",
        "Show how large a library is: the file by kind of contents, what a program loads of it\n"
        "by crate, and the members. With OTHER: how that one differs from LIB.",
        "report LIB [OTHER] [OPTIONS]",
    )
    parser.add_argument("library", type=Path, metavar="LIB", help="a static library")
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER", help="one to compare")
    _target(parser)
    parser.add_argument(
        "--top", type=_count, default=20, metavar="N", help="rows of each table (default: 20)"
    )
    parser.add_argument(
        "--share-with",
        action="append",
        type=Path,
        metavar="LIB",
        help="another library of a set (repeatable), as it was built: also show what of the first "
        "one they need, too, and by crate what not and why",
    )
    parser.add_argument("--markdown", action="store_true", help="write Markdown, for pull requests")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write a page with a treemap, sortable tables and the public symbols",
    )
    _json(parser)
    _exports(parser)
    return parser


def why_parser() -> Parser:
    """`why LIB WHAT`."""
    parser = _parser(
        "why",
        "Say why something is in a library: the shortest chain from a public symbol, or from\n"
        "what runs when the library is loaded, with what each step costs. WHAT is a symbol, a\n"
        "crate, or a symbol as it is written in Rust (`regex::Regex::new`, or its end).",
        "why LIB WHAT [OPTIONS]",
        "Ask about the library as it was built: a stripped one only has what can still be dropped\n"
        "by itself.",
    )
    parser.add_argument("library", type=Path, metavar="LIB", help="a static library")
    parser.add_argument("what", metavar="WHAT", help="a symbol or a crate")
    parser.add_argument(
        "--all-roots",
        action="store_true",
        help="also list the public symbols that would all have to go for it to go",
    )
    parser.add_argument("--crate", action="store_true", help="WHAT is a crate, never a symbol")
    _target(parser)
    _json(parser)
    _exports(parser)
    return parser


def _target(parser: Parser) -> None:
    parser.add_argument(
        "--target", metavar="T", help="the target triple (default: that of the objects)"
    )


def _json(parser: Parser) -> None:
    parser.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="message_format",
        help="the same as --message-format json",
    )


def completions_parser() -> Parser:
    """`completions SHELL`."""
    parser = _parser(
        "completions",
        "Write the completions of `cargo-strip-hook` for a shell to stdout.",
        "completions SHELL",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


def man_parser() -> Parser:
    """`man`."""
    return _parser("man", "Write the manual page, which `man -l -` reads, to stdout.", "man")


PARSERS: Mapping[str, Callable[[], Parser]] = {
    "": bare_parser,
    "cbuild": lambda: wrap_parser("cbuild"),
    "cinstall": lambda: wrap_parser("cinstall"),
    "strip": strip_parser,
    "share": share_parser,
    "join": join_parser,
    "check": check_parser,
    "setup": setup_parser,
    "exports": exports_parser,
    "report": report_parser,
    "why": why_parser,
    "completions": completions_parser,
    "man": man_parser,
}
assert PARSERS.keys() == {"", *COMMANDS} - {"help"}


def split_command(argv: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """The words before the command, the command (None: there is none), and the words after it.

    Raises `UsageError` for a word in the command's position that is no command.
    """
    if argv and argv[0] in COMMANDS:
        return [], argv[0], list(argv[1:])
    with_value: set[str] | None = None
    words = list(argv)
    position = 0
    while position < len(words):
        word = words[position]
        if word in COMMANDS:
            return words[:position], word, words[position + 1 :]
        if not word.startswith("-"):
            raise _no_command(word)
        if with_value is None:
            # every option of every command is known here: bare, and the others' own
            with_value = {
                "-o",
                "--output",
                "--common",
                "--against",
                "--top",
                "--share-with",
                "--html",
                *_options_with_value(bare_parser()),
            }
        position += 2 if word in with_value else 1
    return words, None, []


def _options_with_value(parser: argparse.ArgumentParser) -> set[str]:
    return {
        name
        for action in parser._actions
        if action.nargs is None and action.option_strings
        for name in action.option_strings
    }


def _no_command(word: str) -> UsageError:
    import difflib

    if word.endswith((".a", ".lib")):
        return UsageError(
            f"`{word}` is not a command", help=f"to strip that file: {PROGRAM} strip {word}"
        )
    close = difflib.get_close_matches(word, COMMANDS, n=1)
    help = [f"did you mean `{close[0]}`?"] if close else []
    return UsageError(
        f"no such command: `{word}`", help=[*help, f"all commands: `{PROGRAM} --help`"]
    )
