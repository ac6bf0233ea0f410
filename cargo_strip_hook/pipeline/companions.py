"""Text files that say how the libraries of a set are linked: they are replaced together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from cargo_strip_hook.core.lifetime import undisturbed
from cargo_strip_hook.replace import Staging, commit_all, staging


class Companion(Protocol):
    """Some text files of a set."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, whether they exist or not; the last one does."""
        ...

    def texts(self) -> Sequence[tuple[Path, str]]:
        """Each with its contents for the set, in the order in which they are replaced."""
        ...

    def must_tell(self, undefined: Mapping[Path, Sequence[str]], defined: Collection[str]) -> None:
        """Raise a `StripHookError` where a file does not say what a library needs.

        `undefined` are the names, as C has them, that each library leaves to a program; those that
        are `defined` another one of the set has.
        """
        ...


def stage_texts(companions: Sequence[Companion], stack: ExitStack) -> list[Staging]:
    """The texts that are not there yet, each beside the file that it replaces."""
    staged: list[Staging] = []
    for companion in companions:
        model = companion.files[-1]
        for path, text in companion.texts():
            data = text.encode(errors="surrogateescape")
            if path.exists() and path.read_bytes() == data:
                continue
            with undisturbed():  # what is made is known to `stack`
                place = staging(path) if path.exists() else staging(model, output=path)
                staged.append(stack.enter_context(place))
            staged[-1].path.write_bytes(data)
    return staged


def replace_texts(companions: Sequence[Companion]) -> None:
    """Write the texts alone, for libraries that are done already."""
    with ExitStack() as stack:
        staged = stage_texts(companions, stack)
        with undisturbed():
            commit_all(staged)


__all__ = ["Companion", "replace_texts", "stage_texts"]
