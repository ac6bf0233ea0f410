"""``python -m cargo_strip_hook`` and the console script."""

from __future__ import annotations

import contextlib
import os
import sys

# these read no library, and nothing of them can go wrong but what they say themselves
_SHORT = frozenset({"-h", "--help", "-V", "--version", "help", "completions", "man"})


def run() -> None:
    """Run the command line and end the process with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: no library may be opened in its place
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        # what an encoding cannot say is escaped: names may be anything, and no message is lost
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        if sys.argv[1:2] == ["rustc-wrapper"]:  # cargo waits for it, and for nothing before it
            exit_code = _hook()
        elif _SHORT.isdisjoint(sys.argv):
            from cargo_strip_hook.core.lifetime import supervised

            exit_code = supervised(_work, _died)
        else:
            exit_code = _work(None)
    except KeyboardInterrupt:  # before anybody was there to say so
        exit_code = 130
    # taking the interpreter and all that it has down piece by piece takes a while
    os._exit(exit_code)


def _hook() -> int:
    """What cargo calls instead of rustc."""
    from cargo_strip_hook.cargo.wrapper.main import main

    return main(sys.argv[2:])


def _work(parent: int | None) -> int:
    """The command, in the process that works; `parent` is the number of the one that waits."""
    exit_code = _main(parent)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            exit_code = exit_code or 1  # what there was to say of it is said
    return exit_code


def _main(parent: int | None) -> int:
    import gc

    # a run is short and leaves few cycles: looking for them is a twentieth of its time
    gc.disable()
    # numpy would start a thread for each processor, and we do no linear algebra
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from cargo_strip_hook.engines import worker

        if "strip" in sys.argv:
            worker.start()  # before anything else: it has the longest way to go
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
    """A signal ended the process that worked."""
    from cargo_strip_hook.cli.main import report
    from cargo_strip_hook.core.lifetime import died

    return report(sys.argv[1:], died(number))


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # there may be nobody to tell
        os.write(2, text.encode())


if __name__ == "__main__":
    run()
