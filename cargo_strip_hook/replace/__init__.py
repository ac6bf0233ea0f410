"""Replacing a library by a result: atomically, or not at all.

with library_lock(library):
    with staging(library, root=target_dir) as staged:
        ...  # write staged.path, verify it
        staged.commit()
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cargo_strip_hook.core.errors import ReplaceError
from cargo_strip_hook.core.lifetime import undisturbed
from cargo_strip_hook.replace import io
from cargo_strip_hook.replace.lock import cache_folder, library_lock

__all__ = [
    "Identity",
    "Staging",
    "blaming_changes",
    "cache_folder",
    "commit_all",
    "left_over",
    "library_lock",
    "must_be",
    "real_library",
    "remove_litter",
    "reserved",
    "staging",
    "staging_path",
]

_HELP = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only: write the result elsewhere with `--output`",
    errno.EACCES: "the folder cannot be written: write the result elsewhere with `--output`",
    errno.EPERM: "the folder cannot be written: write the result elsewhere with `--output`",
    errno.EFBIG: "the file is larger than the limit of this process (`ulimit -f`)",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies a file and its contents: another or a changed file differs in it."""

    device: int
    inode: int
    size: int
    modified: int  # ns

    @classmethod
    def of(cls, path: Path) -> Identity:
        facts = path.stat()
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


@dataclass(slots=True)
class Staging:
    """A new file beside the one that it replaces. Write `path`, then `commit`.

    `library` is the file that is read, with all links resolved; `target` is the one that is
    replaced, another one only with `--output`.
    """

    library: Path
    target: Path
    path: Path
    identity: Identity
    committed: bool = field(default=False)
    kept: bool = field(default=False)

    def commit(self) -> None:
        """Replace the target. Raises `ReplaceError`; then nothing is changed.

        The new file gets mode, owner and access control lists of the one that it replaces (of the
        library, where `--output` does not exist yet). Other hard links keep the old file.
        """
        self.finish()
        self.commit_finished()
        self.apply()

    def commit_finished(self) -> None:
        """Rename the new file to the target, after `finish`. Raises `ReplaceError`."""
        try:
            self._check_unchanged()
            io.rename(self.path, self.target)
        except OSError as e:
            raise _replace_error(self.target, e) from e
        self.committed = True

    def finish(self) -> None:
        """Do all that `commit` does before it renames the new file."""
        self._check_unchanged()
        try:
            model = self.target if self.target.exists() else self.library
            io.copy_attributes(model, self.path)
            io.sync(self.path)
        except OSError as e:
            raise _replace_error(self.target, e) from e

    def apply(self) -> None:
        """Wait until the rename is on the medium, where the system supports that."""
        with contextlib.suppress(OSError):
            # the library is replaced: only a power failure could still bring the old one back
            io.sync_folder(self.target.parent)

    def keep(self) -> None:
        """Leave the file where it is when the context ends, for `commit_all` or `discard`."""
        self.kept = True

    def discard(self) -> None:
        """Remove what was kept."""
        with contextlib.suppress(OSError):
            io.remove(self.path)

    @contextlib.contextmanager
    def working_folder(self) -> Iterator[Path]:
        """An empty folder beside the target for temporary files; removed with its contents.

        Beside the target, so that it is on the same disk, and the next run finds what a killed run
        left.
        """
        path = working_path(self.target)
        try:
            io.make_folder(path)
            yield path
        finally:
            with undisturbed():
                io.remove_folder(path)

    def _check_unchanged(self) -> None:
        if not _is(self.library, self.identity):
            raise _changed(self.library)


def _is(library: Path, identity: Identity) -> bool:
    try:
        return Identity.of(library) == identity
    except FileNotFoundError:
        return False


def must_be(library: Path, expected: Identity | None) -> None:
    """Raise `ReplaceError` where the library is not the file that is `expected`."""
    if expected is not None and not _is(library, expected):
        raise _changed(library)


def _changed(library: Path) -> ReplaceError:
    return ReplaceError(
        f"{library} was changed while it was being stripped",
        help="another build is running; strip again when it is done",
    )


@contextlib.contextmanager
def blaming_changes(library: Path) -> Iterator[None]:
    """Raise `ReplaceError` for a failure of the body if the library was changed meanwhile.

    The change is then the likely cause.
    """
    identity = Identity.of(library)
    try:
        yield
    except Exception as e:
        if not _is(library, identity):
            raise _changed(library) from e
        raise


@contextlib.contextmanager
def staging(
    library: Path, *, root: Path | None = None, output: Path | None = None
) -> Iterator[Staging]:
    """A file to write the new `library` (or `output`) to; removed again unless it is committed.

    A symbolic link may not lead out of the folder `root` (None: its own folder). Turns an `OSError`
    of the body into `ReplaceError`.
    """
    staged = _place(library, root, output)
    try:
        try:
            _remove_litter(staged.target)
            io.create(staged.path)
        except OSError as e:
            raise _replace_error(output or library, e) from e
        yield staged
    except OSError as e:
        if staged.committed:
            raise
        raise _replace_error(staged.target, e) from e
    finally:
        if not staged.committed and not staged.kept:
            with undisturbed():
                staged.discard()


def _place(library: Path, root: Path | None, output: Path | None) -> Staging:
    try:
        source = library.resolve(strict=True)
        identity = Identity.of(source)
        target = real_library(library, root) if output is None else real_library(output, None)
    except OSError as e:
        raise _replace_error(output or library, e) from e
    except RuntimeError as e:  # how Python 3.12 and older report links in a circle
        raise ReplaceError(f"{library} cannot be found: {e}") from e
    return Staging(source, target, staging_path(target), identity)


def commit_all(all_staged: Sequence[Staging]) -> None:
    """Replace several targets: all of them, or none. Raises `ReplaceError`.

    Whatever takes long or may fail is done before the first target is replaced, and the old files
    keep a second name until the last one is replaced. Only a run that is killed in between leaves
    old and new files side by side, each complete, and second names that the next run removes.
    """
    try:
        for one in all_staged:
            one.finish()
        with undisturbed():
            _rename_all(all_staged)
    finally:
        for one in all_staged:
            if not one.committed:
                one.discard()
    for one in all_staged:
        one.apply()


def _rename_all(all_staged: Sequence[Staging]) -> None:
    old: list[Path] = []
    try:
        for one in all_staged:
            if len(all_staged) > 1 and one.target.exists():
                old.append(old_path(one.target))
                try:
                    io.link(one.target, old[-1])
                except OSError as e:
                    raise _replace_error(one.target, e) from e
        for one in all_staged:
            one.commit_finished()
    except BaseException:
        for one in all_staged:
            if one.committed and old_path(one.target) in old:
                io.rename(old_path(one.target), one.target)
            elif one.committed:
                io.remove(one.target)
        raise
    finally:
        for name in old:
            with contextlib.suppress(OSError):
                io.remove(name)


def real_library(library: Path, root: Path | None) -> Path:
    """The file that a path leads to, which may be a symbolic link. It need not exist.

    Raises `ReplaceError` for a link that leads out of `root` (None: its own folder), and for what
    is no regular file.
    """
    try:
        real = library.resolve()
        mode = real.stat().st_mode if real.exists() else stat.S_IFREG
    except (OSError, RuntimeError) as e:
        raise ReplaceError(f"{library} cannot be found: {e}") from e
    if not stat.S_ISREG(mode):
        raise ReplaceError(f"{library} is not a regular file")
    if root is None and not library.is_symlink():
        return real
    inside = (root or library.parent).resolve()
    if not real.is_relative_to(inside):
        raise ReplaceError(
            f"{library} is a symbolic link to {real}, outside of {inside}"
            if library.is_symlink()
            else f"{library} is {real}, by a symbolic link that leads out of {inside}",
            help=f"name the file itself, {real}, if it is the one to be changed",
        )
    return real


def staging_path(target: Path) -> Path:
    """Where a result is written: always the same name, so that a later run can remove it."""
    return _beside(target, ".strip-hook")


def working_path(target: Path) -> Path:
    """Where `Staging.working_folder` is."""
    return _beside(target, ".strip-hook-work")


def old_path(target: Path) -> Path:
    """The second name of the old file while `commit_all` replaces several."""
    return _beside(target, ".strip-hook-old")


def reserved(target: Path) -> tuple[Path, ...]:
    """All names beside a target that a run uses."""
    return staging_path(target), working_path(target), old_path(target)


def _beside(target: Path, ending: str) -> Path:
    name = f".{target.name}{ending}"
    if len(os.fsencode(name)) > 255:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}{ending}"
    return target.with_name(name)


def left_over(library: Path) -> Staging | None:
    """What a run that was killed left to be committed; None where the library is newer.

    Call it with the library's lock held. Whoever asks knows whether the file is complete.
    """
    target = library.resolve()
    path = staging_path(target)
    try:
        if path.stat().st_mtime_ns <= target.stat().st_mtime_ns:
            return None
        io.remove(old_path(target))
        return Staging(target, target, path, Identity.of(target))
    except OSError:
        return None


def remove_litter(library: Path) -> None:
    """Remove what a killed run left beside a library. Call it with the library's lock held."""
    with contextlib.suppress(OSError):
        _remove_litter(library.resolve())


def _remove_litter(target: Path) -> None:
    io.remove_folder(working_path(target))
    io.remove(old_path(target))
    io.remove(staging_path(target))


def _replace_error(target: Path, error: OSError) -> ReplaceError:
    if error.errno == errno.ENOENT and not target.parent.exists():
        return ReplaceError(
            f"{target} cannot be written: there is no folder {target.parent}",
            help="make the folder first",
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return ReplaceError(
        f"{target} was not replaced: {reason}", help=_HELP.get(error.errno or 0, ())
    )
