"""Puts a result in the place of a library: at once and whole, or not at all.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cargo_strip_hook.errors import ReplaceError
from cargo_strip_hook.replace import io
from cargo_strip_hook.replace.lock import cache_folder, library_lock

__all__ = [
    "Staging",
    "cache_folder",
    "library_lock",
    "real_library",
    "remove_litter",
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
    """What tells a file from a changed or another one."""

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
    """A file beside the one to be replaced. Write `path`, then `commit`.

    `library` is what is read, with all links resolved, and `target` what is replaced: the same
    file but for `--output`.
    """

    library: Path
    target: Path
    path: Path
    identity: Identity
    committed: bool = field(default=False)

    def commit(self) -> None:
        """Replace the target. Raises `ReplaceError`; then everything is as it was.

        The new file has mode, owner and access control lists of the one it replaces (of the
        library, where `--output` names no file yet). Other names of the old file keep it.
        """
        self._check_unchanged()
        try:
            model = self.target if self.target.exists() else self.library
            io.copy_attributes(model, self.path)
            io.sync(self.path)
            self._check_unchanged()
            io.rename(self.path, self.target)
        except OSError as e:
            raise _replace_error(self.target, e) from e
        self.committed = True
        with contextlib.suppress(OSError):
            # the library is the new one, whole: only a power cut could still bring the old one back
            io.sync_folder(self.target.parent)

    def _check_unchanged(self) -> None:
        try:
            unchanged = Identity.of(self.library) == self.identity
        except FileNotFoundError:
            unchanged = False
        if not unchanged:
            raise ReplaceError(
                f"{self.library} was changed while it was being stripped",
                help="another build is running; strip again when it is done",
            )


@contextlib.contextmanager
def staging(
    library: Path, *, root: Path | None = None, output: Path | None = None
) -> Iterator[Staging]:
    """A place to write the new `library`, or `output` if given; removed again unless committed.

    `root` is the folder that a symbolic link may not lead out of (that of the link where it is
    None). Turns an `OSError` of the body into `ReplaceError`.
    """
    staged = _stage(library, root, output)
    try:
        yield staged
    except OSError as e:
        if staged.committed:
            raise
        raise _replace_error(staged.target, e) from e
    finally:
        if not staged.committed:
            with contextlib.suppress(OSError):
                io.remove(staged.path)


def _stage(library: Path, root: Path | None, output: Path | None) -> Staging:
    try:
        source = library.resolve(strict=True)
        identity = Identity.of(source)
        target = real_library(library, root) if output is None else real_library(output, None)
        path = staging_path(target)
        io.remove(path)
        io.create(path)
    except OSError as e:
        raise _replace_error(output or library, e) from e
    except RuntimeError as e:  # how Python 3.12 and older report links in a circle
        raise ReplaceError(f"{library} cannot be found: {e}") from e
    return Staging(source, target, path, identity)


def real_library(library: Path, root: Path | None) -> Path:
    """The file behind a path that may be a symbolic link; it need not be there.

    Raises `ReplaceError` for a link that leads out of `root` (of its own folder where that is
    None), and for what is no regular file.
    """
    try:
        real = library.resolve()
        mode = real.stat().st_mode if real.exists() else stat.S_IFREG
    except (OSError, RuntimeError) as e:
        raise ReplaceError(f"{library} cannot be found: {e}") from e
    if not stat.S_ISREG(mode):
        raise ReplaceError(f"{library} is not a regular file")
    if not library.is_symlink():
        return real
    inside = (root or library.parent).resolve()
    if not real.is_relative_to(inside):
        raise ReplaceError(
            f"{library} is a symbolic link to {real}, outside of {inside}",
            help=f"name the file itself, {real}, if it is the one to be changed",
        )
    return real


def staging_path(target: Path) -> Path:
    """Where a result waits: always the same name, so that a later run finds what was left."""
    name = f".{target.name}.strip-hook"
    if len(os.fsencode(name)) > 255:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}.strip-hook"
    return target.with_name(name)


def remove_litter(library: Path) -> None:
    """Remove what a killed run left beside a library. Call it with the library's lock held."""
    with contextlib.suppress(OSError):
        io.remove(staging_path(library.resolve()))


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
