"""What to do where the engine has made a mistake: another way that was tried and found right.

Only asked for when a result is not what it should be, so that it may take its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cargo_strip_hook.core.errors import StripHookError, VerifyError
from cargo_strip_hook.core.requests import Compression, Granularity, PrelinkRequest, PrelinkResult

if TYPE_CHECKING:
    from cargo_strip_hook.verify import Expectation


@contextmanager
def looked_for(
    engine: str, request: PrelinkRequest, expectation_of: Callable[[PrelinkResult], Expectation]
) -> Iterator[None]:
    """Adds to the help of a `VerifyError` of the body how else the library can be stripped.

    `engine` made what `request` asked for; `expectation_of` says what is expected of a result.
    """
    try:
        yield
    except VerifyError as e:
        if e.defect:
            found = _first_that_works(engine, request, expectation_of)
            e.help += (
                f"until it is mended, `{found}` does it: that was tried, and the result is right"
                if found
                else "no other `--granularity` or `--engine` does it: use the original meanwhile",
            )
        raise


def _first_that_works(
    engine: str, request: PrelinkRequest, expectation_of: Callable[[PrelinkResult], Expectation]
) -> str:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="cargo-strip-hook-", dir=request.folder) as folder:
        path = Path(folder, "tried.a")
        for options, name, one in _others(engine, request):
            if _works(name, replace(one, output=path), expectation_of):
                return options
    return ""


def _others(engine: str, request: PrelinkRequest) -> Iterator[tuple[str, str, PrelinkRequest]]:
    """(options, engine, request), what costs least first."""
    finest = replace(request, granularity=Granularity.SECTION)
    if request.granularity is not Granularity.SECTION:
        yield "--granularity section", engine, finest
    if engine != "native":
        yield "--engine native", "native", request
    elif request.twin is None and request.compress_debug is Compression.NONE:
        yield "--engine system", "system", request


def _works(
    name: str, request: PrelinkRequest, expectation_of: Callable[[PrelinkResult], Expectation]
) -> bool:
    """Whether another engine, or granularity, gives a result that the verifier takes."""
    from cargo_strip_hook.engines import engine
    from cargo_strip_hook.verify import verify

    try:
        made = engine(name).prelink(replace(request, twin=None))
        verify(request.archive, request.output, expectation_of(made))
    except (StripHookError, OSError):
        return False
    return True
