"""Running rustc as cargo would: with its streams, descriptors, signals and exit code."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence

_PASSED_ON = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT")


def run_rustc(argv: Sequence[str], meanwhile: Callable[[], None]) -> int:
    """Run rustc to its end. Returns its exit code, or minus the signal that ended it.

    It inherits all descriptors: two of them are cargo's jobserver. Signals to this process are
    passed on; those of the terminal reach rustc anyway. `meanwhile` is called while it works.
    Raises OSError where it cannot be started.
    """
    process = subprocess.Popen(argv, close_fds=False)

    def pass_on(number: int, _frame: object) -> None:
        if process.poll() is None:
            process.send_signal(number)

    before = {}
    for name in _PASSED_ON:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, pass_on)
    try:
        meanwhile()
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_as(code: int) -> int:
    """The exit code for how rustc ended; a signal that ended it ends this process, too."""
    if code >= 0:
        return code
    number = -code
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


__all__ = ["end_as", "run_rustc"]
