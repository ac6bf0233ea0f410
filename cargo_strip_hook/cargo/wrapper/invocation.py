"""What a call of rustc builds, by its arguments.

Rules: the rustc book, "Command-line Arguments"; rustc 1.95 `rustc_session/src/config.rs`
(`parse_crate_types_from_list`, `build_output_filenames`) and `rustc_driver_impl/src/args.rs`
(``@path``: one argument a line).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_VALUES = frozenset(
    {
        *("--crate-name", "--crate-type", "--emit", "--out-dir", "--target", "--cfg", "--print"),
        *("--edition", "--error-format", "--json", "--color", "--extern", "--cap-lints"),
        *("--check-cfg", "--codegen", "--sysroot", "--remap-path-prefix", "--explain", "--env-set"),
        *("--allow", "--warn", "--force-warn", "--deny", "--forbid", "--diagnostic-width"),
        *("-C", "-L", "-l", "-o", "-Z", "-A", "-W", "-D", "-F"),
    }
)
_CFG = re.compile(r'feature\s*=\s*"(.*)"')


@dataclass(frozen=True, slots=True)
class Invocation:
    """A compilation. Paths are as in rustc's arguments, relative to the working folder.

    `emit` maps each kind of output to its file, None where no file was named. `extra` is the last
    `-C extra-filename`. `json`: diagnostics are read by a program; `ansi`: their rendered text may
    have colours. `strip` is the strip level that the arguments imply, None where they do not.
    `words` are the arguments as they were given.
    """

    crate_name: str
    crate_types: tuple[str, ...]
    emit: dict[str, Path | None]
    out_dir: Path
    output: Path | None
    extra: str
    target: str | None
    features: frozenset[str]
    strip: str | None
    json: bool
    ansi: bool
    words: tuple[str, ...] = field(repr=False, compare=False)

    @property
    def file_stem(self) -> str:
        """The common stem of its outputs' names."""
        return f"{self.crate_name}{self.extra}"

    def library_paths(self, name: str) -> tuple[Path, ...]:
        """The paths where a static library called `name` may be, the likeliest first."""
        named = [path for path in (self.emit.get("link"), self.output) if path is not None]
        return (*named, self.out_dir / name)

    @property
    def dep_info(self) -> Path | None:
        """The ``.d`` file; None where none was asked for."""
        if "dep-info" not in self.emit:
            return None
        return self.emit["dep-info"] or self.out_dir / f"{self.file_stem}.d"


def parse(args: Sequence[str]) -> Invocation | None:
    """The compilation of a static library that `args` ask for; None for any other.

    Raises OSError or UnicodeDecodeError for an ``@file`` that cannot be read, as rustc fails, too.
    """
    words = tuple(_expanded(args))
    given: dict[str, list[str]] = {}
    free: list[str] = []
    for name, value in _options(words):
        if name:
            given.setdefault(name, []).append(value)
        else:
            free.append(value)
    crate_types = tuple(t for text in given.get("--crate-type", []) for t in text.split(","))
    if "staticlib" not in crate_types or "--test" in given or free[:1] in ([], ["-"]):
        return None
    emit = _emit(given.get("--emit", ["link"]))
    if "link" not in emit:
        return None
    codegen = dict(text.partition("=")[::2] for text in given.get("-C", []))
    json_words = {word for text in given.get("--json", []) for word in text.split(",")}
    source = Path(free[0])
    name = (given.get("--crate-name") or [source.stem.replace("-", "_")])[-1]
    output = given.get("-o")
    return Invocation(
        crate_name=name,
        crate_types=crate_types,
        emit=emit,
        out_dir=Path((given.get("--out-dir") or ["."])[-1]),
        output=Path(output[-1]) if output else None,
        extra=codegen.get("extra-filename", ""),
        target=given["--target"][-1] if "--target" in given else None,
        features=frozenset(m[1] for text in given.get("--cfg", []) if (m := _CFG.fullmatch(text))),
        strip=_strip(codegen),
        json=(given.get("--error-format") or [""])[-1] == "json",
        ansi="diagnostic-rendered-ansi" in json_words,
        words=tuple(args),
    )


def _expanded(args: Sequence[str]) -> list[str]:
    words: list[str] = []
    for word in args:
        if word.startswith("@"):
            words += Path(word[1:]).read_text(encoding="utf-8").splitlines()
        else:
            words.append(word)
    return words


def _options(words: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values of options; arguments that are no options have the name ""."""
    options: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            options.append(("", word))
            continue
        name, equals, value = word.partition("=")
        if name in _VALUES and not equals:
            value = next(rest, "")
        elif not word.startswith("--") and word[:2] in _VALUES and len(word) > 2:
            name, value = word[:2], word[2:].removeprefix("=")  # -Copt-level=3, -o=PATH
        options.append(({"--codegen": "-C"}.get(name, name), value))
    return options


def _strip(codegen: Mapping[str, str]) -> str | None:
    """The strip level of the profile, as cargo passes it on (cargo `core/compiler/mod.rs`)."""
    said = codegen.get("strip")
    if said in ("none", "debuginfo", "symbols"):
        return said
    return None if codegen.get("debuginfo", "0") in ("0", "none") else "none"


def _emit(values: Sequence[str]) -> dict[str, Path | None]:
    emit: dict[str, Path | None] = {}
    for output in ",".join(values).split(","):
        kind, equals, path = output.partition("=")
        emit[kind] = Path(path) if equals else None
    return emit


def profile_of(out_dir: Path) -> str | None:
    """The profile by the output folder that cargo gives rustc; None where the folder does not say.

    ``<target>/[<triple>/]<profile>/deps``, and in cargo's new layout of the build folder
    ``<build>/[<triple>/]<profile>/build/<package>/<hash>/out`` (cargo `core/compiler/layout.rs`).
    dev and test share ``debug``, release and bench ``release``: the first is assumed.
    """
    parts = out_dir.parts
    if len(parts) >= 2 and parts[-1] == "deps":
        folder = parts[-2]
    elif len(parts) >= 5 and parts[-1] == "out" and parts[-4] == "build":
        folder = parts[-5]
    else:
        return None
    return "dev" if folder == "debug" else folder


__all__ = ["Invocation", "parse", "profile_of"]
