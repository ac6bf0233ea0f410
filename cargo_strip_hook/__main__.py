"""``python -m cargo_strip_hook`` and the console script."""

from __future__ import annotations

import contextlib
import os
import sys

# these read no library, so that no other process need look after them
_SHORT = frozenset({"-h", "--help", "-V", "--version", "help", "completions", "man"})


def run() -> None:
    """Run the command line and end the process with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: no library may get its descriptor
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        # escape what an encoding cannot say: names may be any bytes, and no message may be lost
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        if sys.argv[1:2] == ["rustc-wrapper"]:  # cargo waits for this: nothing else first
            exit_code = _hook()
        elif _SHORT.isdisjoint(sys.argv):
            from cargo_strip_hook.core.lifetime import supervised

            exit_code = supervised(_work, _died)
        else:
            exit_code = _work(None)
    except KeyboardInterrupt:  # too early for a message
        exit_code = 130
    # an orderly end of the interpreter would free all memory, which takes a while
    os._exit(exit_code)


def _hook() -> int:
    """Run the hook that cargo calls instead of rustc."""
    from cargo_strip_hook.cargo.wrapper.main import main

    return main(sys.argv[2:])


def _work(parent: int | None) -> int:
    """Run the command in the process that works; `parent` is the number of the one that waits."""
    exit_code = _main(parent)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            exit_code = exit_code or 1  # the error has been reported
    return exit_code


def _main(parent: int | None) -> int:
    import gc

    # a run is short and leaves few cycles: looking for them would take a twentieth of its time
    gc.disable()
    # numpy would start a thread for each processor, and we do no linear algebra
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from cargo_strip_hook.engines import worker

        if "strip" in sys.argv:
            worker.start()  # first: it takes longest to get ready
        from cargo_strip_hook.cli.main import main

        return main(sys.argv[1:], parent=parent)
    except KeyboardInterrupt as e:  # before or after the command itself
        from cargo_strip_hook.core.lifetime import ending_of

        return ending_of(e)[1]
    except SystemExit as e:  # of an option that only shows something
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except MemoryError:
        _say("error: there is not enough memory\n")
        return 1


def _died(number: int) -> int:
    """Report that a signal ended the process that worked."""
    from cargo_strip_hook.cli.main import report
    from cargo_strip_hook.core.lifetime import died

    return report(sys.argv[1:], died(number))


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, text.encode())


if __name__ == "__main__":
    run()
