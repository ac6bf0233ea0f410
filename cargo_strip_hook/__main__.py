"""``python -m cargo_strip_hook`` and the console script."""

from __future__ import annotations

import os
import sys


def run() -> None:
    """Run the command line and end the process with its exit code."""
    import gc

    # a run is short and leaves few cycles: looking for them is a twentieth of its time
    gc.disable()
    # numpy would start a thread for each processor, and we do no linear algebra
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from cargo_strip_hook.cli.main import main

        exit_code = main(sys.argv[1:])
    except KeyboardInterrupt:  # before or after the command itself
        exit_code = 130
    sys.exit(exit_code)


if __name__ == "__main__":
    run()
