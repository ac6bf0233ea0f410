"""A workaround where the engine made a mistake: other options that were tried, with a right result.

Only looked for when a result is wrong, so that it may take its time.
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
def suggesting_workaround(
    engine: str, request: PrelinkRequest, expectation_of: Callable[[PrelinkResult], Expectation]
) -> Iterator[None]:
    """Add to the help of a `VerifyError` of the body the options that strip the library right.

    `engine` is the one that failed `request`; `expectation_of` says what is expected of a result.
    """
    try:
        yield
    except VerifyError as e:
        if e.defect:
            options = _first_that_works(engine, request, expectation_of)
            e.help += (
                f"until it is fixed, use `{options}`: that was tried, and the result is right"
                if options
                else "no other `--granularity` or `--engine` works: use the original meanwhile",
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
    """(options, engine, request) of each other way, the one that costs least first."""
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
    """Whether an engine gives a result that the verifier accepts."""
    from cargo_strip_hook.engines import engine
    from cargo_strip_hook.verify import verify

    try:
        result = engine(name).prelink(replace(request, twin=None))
        expected = expectation_of(result)
        if expected.granularity is not None:
            expected = replace(expected, granularity=request.granularity)
        verify(request.archive, request.output, expected)
    except (StripHookError, OSError):
        return False
    return True
