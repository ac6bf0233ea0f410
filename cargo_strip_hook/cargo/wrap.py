"""Running cargo-c's commands, and finding where their output goes.

The executables are called as cargo calls its subcommands, ``cargo-cbuild cbuild ARGS``, not by
``cargo cbuild``: an alias of that name for our own command would never end. Options: cargo-c
0.10.24 `src/cli.rs` and cargo 0.98 `util/command_prelude.rs`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cargo_strip_hook.cargo.config import cargo_home
from cargo_strip_hook.cargo.metadata import manifest_file
from cargo_strip_hook.cargo.selection import Selection

WrappedCommand = Literal["cbuild", "cinstall"]

_SHORT = {
    "p": "package",
    "j": "jobs",
    "F": "features",
    "Z": "unstable-features",
    "r": "release",
    "h": "help",
    "V": "version",
    "v": "verbose",
    "q": "quiet",
}
_WITH_VALUE = frozenset(
    {
        *("destdir", "prefix", "libdir", "includedir", "bindir", "pkgconfigdir", "datarootdir"),
        *("datadir", "dlltool", "explain", "color", "config", "unstable-features", "library-type"),
        *("message-format", "jobs", "profile", "target-dir", "features", "exclude"),
        *("manifest-path", "path", "lockfile-path"),
    }
)
# for these, clap takes the next word only where it is no option
_WITH_OPTIONAL_VALUE = frozenset({"package", "target", "bin", "example", "test", "bench"})
_PRINTS_ONLY = frozenset({"help", "version", "list", "explain"})


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A cargo-c command: what to run, and what it builds (None: it only prints something)."""

    argv: tuple[str, ...]
    selection: Selection | None


def wrap(command: WrappedCommand, args: Sequence[str]) -> Wrapped:
    """Both `wrap_argv` and `wrap_selection`."""
    return Wrapped(wrap_argv(command, args), wrap_selection(command, args))


def wrap_argv(command: WrappedCommand, args: Sequence[str]) -> tuple[str, ...]:
    """The argv that runs cargo-c's `command` with `args` untouched. Run it with passthrough.

    The executable is looked for as by cargo: on PATH, then in CARGO_HOME's bin folder. Where it is
    in neither, its bare name is returned, with which `run` raises `ToolError`.
    """
    program = f"cargo-{command}"
    beside_cargo = os.fspath(cargo_home(os.environ) / "bin")
    installed = shutil.which(program) or shutil.which(program, path=beside_cargo)
    return (installed or program, command, *args)


def wrap_selection(command: WrappedCommand, args: Sequence[str]) -> Selection | None:
    """What cargo-c builds or installs with `args`; None for `--help`, `--version` and the like.

    Options that do not decide where the output is are ignored. Raises `UsageError` for what cargo
    refuses, too.
    """
    given: dict[str, list[str]] = {}
    for name, value in _options(args):
        given.setdefault(name, []).append(value)
    if not _PRINTS_ONLY.isdisjoint(given):
        return None

    def path(name: str) -> Path | None:
        values = given.get(name)
        return Path(values[-1]) if values and values[-1] else None

    profile = given["profile"][-1] if given.get("profile") else None
    if profile is None and "release" in given:
        profile = "release"
    elif profile is None and "debug" in given:
        profile = "dev"
    manifest = path("manifest-path") or path("path")
    return Selection(
        packages=tuple(v for v in given.get("package", []) if v),
        workspace="workspace" in given or "all" in given,
        exclude=tuple(given.get("exclude", [])),
        manifest_path=manifest_file(manifest) if manifest else None,
        target=(given.get("target") or [""])[-1] or None,
        target_dir=path("target-dir"),
        profile=profile,
        config=tuple(given.get("config", [])),
        unstable=tuple(given.get("unstable-features", [])),
        locked="locked" in given,
        offline="offline" in given,
        frozen="frozen" in given,
        features=tuple(given.get("features", [])),
        all_features="all-features" in given,
        no_default_features="no-default-features" in given,
        library_types=tuple(v.lower() for v in given.get("library-type", [])),
        meson_paths="meson-paths" in given,
        installed=command == "cinstall",
        destdir=path("destdir"),
        prefix=path("prefix"),
        libdir=path("libdir"),
        includedir=path("includedir"),
        bindir=path("bindir"),
        pkgconfigdir=path("pkgconfigdir"),
    )


def _options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The long names and values ("" for a flag) of options, as clap parses them."""
    words = list(args)
    while words:
        word = words.pop(0)
        if word == "--":
            return
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            yield name, value if equals else _value(name, words)
        elif word.startswith("-") and len(word) > 1:
            yield from _cluster(word[1:], words)


def _cluster(letters: str, words: list[str]) -> Iterator[tuple[str, str]]:
    """One-letter options in one word: ``-rp foo``, ``-pfoo``, ``-p=foo``, ``-vv``."""
    while letters:
        name = _SHORT.get(letters[0], letters[0])
        letters = letters[1:]
        if name in _WITH_VALUE or name in _WITH_OPTIONAL_VALUE:
            yield name, letters.removeprefix("=") if letters else _value(name, words)
            return
        yield name, ""


def _value(name: str, words: list[str]) -> str:
    if name in _WITH_VALUE or name in _WITH_OPTIONAL_VALUE:
        optional = name in _WITH_OPTIONAL_VALUE
        if words and not (optional and words[0].startswith("-")):
            return words.pop(0)
    return ""
