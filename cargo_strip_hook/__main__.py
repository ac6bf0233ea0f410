"""``python -m cargo_strip_hook`` and the console script."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """Run the command line and end the process with its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: no library may be opened in its place
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    exit_code = _main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(exit_code)  # the interpreter says what is wrong with them
    # taking the interpreter and all that it has down piece by piece takes a while
    os._exit(exit_code)


def _main() -> int:
    import gc

    # a run is short and leaves few cycles: looking for them is a twentieth of its time
    gc.disable()
    # numpy would start a thread for each processor, and we do no linear algebra
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.argv[1:2] == ["rustc-wrapper"]:
        from cargo_strip_hook.wrapper.main import main as wrapper

        return wrapper(sys.argv[2:])
    try:
        from cargo_strip_hook.engines import apart

        if "strip" in sys.argv:
            apart.start()  # before anything else: it has the longest way to go
        from cargo_strip_hook.cli.main import main

        return main(sys.argv[1:])
    except KeyboardInterrupt:  # before or after the command itself
        return 130


if __name__ == "__main__":
    run()
