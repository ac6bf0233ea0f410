"""The .pc files of the libraries of a set: that each needs the common library, and its own file.

Format: the manual pages pkg-config(1) and pc(5). cargo-c 0.10.24 writes one field a line, in one
order (`src/pkg_config_gen.rs`, `render`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.core.errors import DiscoveryError
from cargo_strip_hook.core.files import read_text

_FIELD = re.compile(r"^([A-Za-z][\w.]*)[ \t]*:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_VARIABLE = re.compile(r"^[ \t]*\w[\w.]*[ \t]*=.*$", re.MULTILINE)
# a module, and which versions of it are needed
_MODULE = re.compile(r"([^\s,<>=!]+)(?:\s*([<>=!]+)\s*([^\s,]+))?")
# what compilers call without being told to, and what linkers define
_COMPILERS = frozenset({"memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen", "abort"})
_LINKERS = frozenset({"_GLOBAL_OFFSET_TABLE_", "__dso_handle", "__tls_get_addr", "_tls_index"})


@dataclass(frozen=True, slots=True)
class PkgConfigMember:
    """The .pc file of a member of a set, with its package and its library."""

    path: Path
    package: str
    library: Path


@dataclass(frozen=True, slots=True)
class PkgConfigSet:
    """The .pc files of a set in one folder: those of the `members`, and that of the common library.

    `name` is the common library's for linkers and for pkg-config.
    """

    members: tuple[PkgConfigMember, ...]
    common: Path
    name: str
    version: str

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them; that of the common library, which need not exist, first."""
        return (self.common, *(member.path for member in self.members))

    def texts(self) -> list[tuple[Path, str]]:
        """Each file with its contents for the set; that of the common library first.

        Raises `DiscoveryError` for a file that cannot be read.
        """
        old = [_read(member.path) for member in self.members]
        new = [requiring(text, self.name) for text in old]
        return list(zip(self.files, [self._common(old), *new], strict=True))

    def _common(self, members: Sequence[str]) -> str:
        variables = _VARIABLE.findall(members[0])
        private = union(field(text, "Libs.private") for text in members)
        own = {path.stem.removesuffix("-uninstalled") for path in self.files}
        needed = [
            text
            for one in members
            for key in ("Requires", "Requires.private")
            for name, text in modules(field(one, key))
            if name not in own
        ]
        packages = ", ".join(member.package for member in self.members)
        lines = [
            *variables,
            "",
            f"Name: {self.name}",
            f"Description: What {packages} have in common",
            f"Version: {self.version}",
            f"Libs: -L${{libdir}} -l{self.name}",
            f"Libs.private: {private}",
        ]
        if needed:
            lines.append(f"Requires.private: {', '.join(dict.fromkeys(needed))}")
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def must_tell(self, undefined: Mapping[Path, Sequence[str]], defined: Collection[str]) -> None:
        """Raise `DiscoveryError` for a member whose file names no libraries though it needs some.

        `undefined` are the names, as C has them, that each library leaves to a program; those that
        are `defined` another one of the set has.
        """
        known = _COMPILERS | _LINKERS | set(defined)
        for member in self.members:
            missing = [name for name in undefined[member.library] if name not in known]
            if missing and not field(_read(member.path), "Libs.private"):
                again = " ".join(f"-p {one.package}" for one in self.members)
                raise DiscoveryError(
                    f"{member.path} names no libraries under `Libs.private`, but package "
                    f"`{member.package}` needs some",
                    lines=_some(missing),
                    help=(
                        "cargo-c writes none for a package that it did not build again: build all "
                        f"of the set, after `cargo clean {again}` with the same --target and "
                        "--release",
                        'where C\'s own library is enough, say so: `#[link(name = "c")] extern …`',
                    ),
                )


def _some(names: Sequence[str], count: int = 5) -> list[str]:
    left = len(names) - count
    shown = [f"undefined: {name}" for name in names[:count]]
    return [*shown, f"… and {left} more"] if left > 0 else shown


def _read(path: Path) -> str:
    try:
        # a backslash at its end continues a line
        return re.sub(r"\\\r?\n", " ", read_text(path)).replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as e:
        raise DiscoveryError(f"{path} cannot be read: {e}", help="install the library again") from e


def field(text: str, name: str) -> str:
    """The value of a field; "" where there is none."""
    return next((value for key, value in _FIELD.findall(text) if key == name), "")


def modules(value: str) -> Iterator[tuple[str, str]]:
    """The modules that a field like `Requires` names, and how each is written there."""
    for name, relation, version in _MODULE.findall(value):
        yield name, f"{name} {relation} {version}" if relation else name


def requiring(text: str, module: str) -> str:
    """A file that needs a module, behind what it needs already; the same where it does."""
    known = [*modules(field(text, "Requires")), *modules(field(text, "Requires.private"))]
    if module in (name for name, _ in known):
        return text
    for match in _FIELD.finditer(text):
        if match[1] == "Requires.private":
            value = f"{match[2]}, {module}" if match[2] else module
            return f"{text[: match.start()]}{match[1]}: {value}{text[match.end() :]}"
    return f"{text}{'' if text.endswith(chr(10)) else chr(10)}Requires.private: {module}\n"


def union(values: Iterable[str]) -> str:
    """The options of several lists, each once: where it stands last, behind what may need it."""
    options: dict[str, None] = {}
    for value in values:
        for option in _options(value.split()):
            options.pop(option, None)
            options[option] = None
    return " ".join(options)


def _options(words: Sequence[str]) -> Iterator[str]:
    """Options for a linker; one of two words (`-framework Security`) as it is."""
    waiting = ""
    for word in words:
        if waiting:
            yield f"{waiting} {word}"
            waiting = ""
        elif word in ("-framework", "-weak_framework", "-Xlinker", "-u"):
            waiting = word
        else:
            yield word
    if waiting:
        yield waiting


__all__ = ["PkgConfigMember", "PkgConfigSet", "field", "modules", "requiring", "union"]
