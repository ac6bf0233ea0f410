"""Libraries that need a common library as it is, when another set is to replace it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cargo_strip_hook.archive import object_name
from cargo_strip_hook.core.errors import InputError
from cargo_strip_hook.verify.marker import read_marker, set_of


def must_serve_no_other(common: Path, results: Collection[Path]) -> None:
    """Raise `InputError` where a library that is none of the `results` needs an old common library.

    Libraries of the old set are looked for where the results and the common library are.
    """
    old = set_of(read_marker(common)) if common.exists() else ""
    if not old:
        return
    mine = {path.resolve() for path in (*results, common)}
    named = set(old.split(" ")[1:])
    for folder in sorted({path.parent for path in mine}):
        for path in sorted(folder.iterdir()):
            if path in mine or object_name(path) not in named or not path.is_file():
                continue
            if set_of(read_marker(path)) == old:
                raise InputError(
                    f"{path.name} needs it as it is, and is not among the libraries of this set",
                    path=str(common),
                    help=(
                        f"build {path.name} again and share it with the others",
                        "or give the common library of this set another name",
                    ),
                )


__all__ = ["must_serve_no_other"]
