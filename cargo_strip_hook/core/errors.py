"""The errors: one class for each way to fail.

The library never prints: `cargo_strip_hook.cli` alone turns these into an
``error:`` line (`what`), ``help:`` lines (`help`) and an exit code.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


class StripHookError(Exception):
    """A failure: what happened, and what the user can do about it.

    `lines` are a list that belongs to it, of symbols or of paths; `what` ends with them.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, lines: Sequence[str] = (), help: str | Sequence[str] = ()
    ) -> None:
        what = "\n  ".join([what, *lines])
        super().__init__(what)
        self.what = what
        self.lines = tuple(lines)
        self.help: tuple[str, ...] = (help,) if isinstance(help, str) else tuple(help)

    @property
    def head(self) -> str:
        """`what` without its `lines`. (Names may have line feeds, so `what` cannot be split.)"""
        return self.what.removesuffix("".join(f"\n  {line}" for line in self.lines))

    def __reduce__(self) -> tuple[object, ...]:
        # by default the class is called with `args` alone, which some subclasses do not accept
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    kind: type[StripHookError], args: tuple[object, ...], state: dict[str, object]
) -> StripHookError:
    """The error as it was raised in another process."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def of_system(error: OSError) -> StripHookError:
    """The error for what the operating system refused, with the file concerned."""
    where = f"{error.filename}: " if error.filename else ""
    return StripHookError(f"{where}{error.strerror or error}")


def of_memory(error: BaseException) -> StripHookError | None:
    """The error for lack of memory, in whatever form that was raised; None for other errors."""
    cause: BaseException | None = error
    while cause is not None:
        lacks = isinstance(cause, OSError) and cause.errno == errno.ENOMEM
        # of a library that is loaded, the dynamic linker says so in words
        lacks = lacks or (
            isinstance(cause, ImportError) and bool(re.search(_NO_ROOM, str(cause), re.IGNORECASE))
        )
        if lacks or isinstance(cause, MemoryError):
            return StripHookError("there is not enough memory")
        cause = cause.__cause__ or cause.__context__
    return None


@contextlib.contextmanager
def reporting_lack_of_memory() -> Iterator[None]:
    """Raise a `StripHookError` where the body fails for lack of memory."""
    try:
        yield
    except StripHookError:
        raise
    except Exception as e:
        problem = of_memory(e)
        if problem is None:
            raise
        raise problem from e


_NO_ROOM = "cannot allocate memory|failed to map segment|cannot apply additional memory"


class UsageError(StripHookError):
    """The command line or a configuration file asks for something that makes no sense."""

    exit_code = 2


class DiscoveryError(StripHookError):
    """There is no library, there are several, or it must not be changed."""


class HeaderError(StripHookError):
    """A C or C++ header could not be understood."""


class ExportsError(StripHookError):
    """The public symbols cannot be decided, or the archive does not define them all.

    `absent`: it is the archive that lacks symbols.
    """

    def __init__(
        self,
        what: str,
        *,
        lines: Sequence[str] = (),
        help: str | Sequence[str] = (),
        absent: bool = False,
    ) -> None:
        super().__init__(what, lines=lines, help=help)
        self.absent = absent


class InputError(StripHookError):
    """The input is damaged or not supported. Names the file, the member and the offset.

    `offset` is in bytes from the start of `member`, or of the file where `member` is None.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str | None = None,
        member: str | None = None,
        offset: int | None = None,
        help: str | Sequence[str] = (),
    ) -> None:
        where = ""
        if path is not None:
            where = path
        if member is not None:
            where += f"({member})"
        if offset is not None:
            where += f" at offset {offset:#x}"
        super().__init__(f"{where}: {what}" if where else what, help=help)
        self.path, self.member, self.offset = path, member, offset


class ArchiveError(InputError):
    """An `ar` archive is truncated, malformed or not supported."""


class ObjectError(InputError):
    """An object file is truncated, malformed or not supported."""


class LinkError(StripHookError):
    """Symbols do not resolve, as for a linker (for example, two strong definitions)."""


class VerifyError(StripHookError):
    """The result is not what was asked for; the library is unchanged.

    `defect`: this is probably a mistake of the engine.
    """

    def __init__(
        self,
        what: str,
        findings: Sequence[str],
        *,
        help: str | Sequence[str] = (),
        defect: bool = False,
    ) -> None:
        super().__init__(what, help=help)
        self.findings, self.defect = tuple(findings), defect


class BudgetError(StripHookError):
    """A library is larger than its configuration allows; the help says what grew most."""


class ReplaceError(StripHookError):
    """The original could not be replaced by the result; it is unchanged."""


@dataclass(frozen=True, slots=True)
class ToolFailure:
    """How an external program ended. `exit_code` is None where it did not start or timed out."""

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: str
    stderr: str


class ToolError(StripHookError):
    """An external program failed or is missing; carries everything it said."""

    def __init__(self, what: str, failure: ToolFailure, *, help: str | Sequence[str] = ()) -> None:
        super().__init__(what, help=help)
        self.failure = failure


class KilledError(StripHookError):
    """A signal ended an external program, so that nothing is known of its result."""
