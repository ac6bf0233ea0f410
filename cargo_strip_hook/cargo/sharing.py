"""Sets of a workspace: which packages share code, and where the common library and its .pc go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.cargo.discover import Artefact
from cargo_strip_hook.cargo.paths import library_names
from cargo_strip_hook.cargo.pkgconfig import PkgConfigMember, PkgConfigSet
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class ArtefactSet:
    """Packages that share what they have in common, which goes to the library `common`.

    `pkg_config`: the .pc files, one set of them for each folder.
    """

    name: str
    artefacts: tuple[Artefact, ...]
    common: Path
    pkg_config: tuple[PkgConfigSet, ...]


def sets_of(
    artefacts: Sequence[Artefact], name: str | None, selection: Selection
) -> tuple[list[ArtefactSet], list[Artefact]]:
    """The sets, and the packages that are in none.

    With a `name` all are in the set of that name; else those are whose settings name one. Raises
    `UsageError` for a set of one package, and where a file of the set has the name of a member's.
    """
    chosen: dict[str, list[Artefact]] = {}
    alone: list[Artefact] = []
    for artefact in artefacts:
        own = name or artefact.settings.share
        if own:
            chosen.setdefault(own, []).append(artefact)
        else:
            alone.append(artefact)
    return [_set(own, some, selection) for own, some in chosen.items()], alone


def _set(name: str, artefacts: Sequence[Artefact], selection: Selection) -> ArtefactSet:
    first = artefacts[0]
    if len(artefacts) == 1:
        raise UsageError(
            f"package `{first.package}` has nothing to share with: no other one of the set "
            f"`{name}` is selected",
            help=(
                "select all of the set, with --workspace or -p",
                f"or strip it alone: cargo strip-hook strip {first.library}",
            ),
        )
    names = library_names(first.target, name, meson_paths=selection.meson_paths)
    common = first.folder / (names.installed_static if first.is_installed else names.static)
    for artefact in artefacts:
        if artefact.library == common:
            raise UsageError(
                f"package `{artefact.package}` makes {common}, which is to be the common library",
                help="give the common library another name",
            )
    return ArtefactSet(name, tuple(artefacts), common, _pkg_config(name, artefacts))


def _pkg_config(name: str, artefacts: Sequence[Artefact]) -> tuple[PkgConfigSet, ...]:
    """For each folder and ending, the files of those members that have one there."""
    members: dict[Path, list[PkgConfigMember]] = {}
    for artefact in artefacts:
        for path in artefact.pkg_config:
            ending = "-uninstalled" if path.stem.endswith("-uninstalled") else ""
            common = path.with_name(f"{name}{ending}.pc")
            if path == common:
                raise UsageError(
                    f"package `{artefact.package}` has the file {path}, which is to be that of the "
                    "common library",
                    help="give the common library another name",
                )
            member = PkgConfigMember(path, artefact.package, artefact.library)
            members.setdefault(common, []).append(member)
    version = max((a.version for a in artefacts), key=_order)
    return tuple(
        PkgConfigSet(tuple(some), common, name, version) for common, some in members.items()
    )


def _order(version: str) -> tuple[list[int], str]:
    return [int(n) for n in re.findall(r"\d+", version.partition("-")[0])], version


def how_to_build_again(chosen: ArtefactSet) -> Mapping[Path, tuple[str, ...]]:
    """For each library what to do where it was stripped before."""
    share = f'share = "{chosen.name}"'
    hooked = (
        ()
        if all(a.settings.share for a in chosen.artefacts)
        else (
            "where cargo's hook strips it (`cargo strip-hook setup`), name the set in Cargo.toml: "
            f"[workspace.metadata.strip-hook] {share}",
        )
    )
    return {
        a.library: (
            f"build package `{a.package}` again: `cargo clean -p {a.package}` with the same "
            "--target and --release, then as before",
            *hooked,
        )
        for a in chosen.artefacts
    }


__all__ = ["ArtefactSet", "how_to_build_again", "sets_of"]
