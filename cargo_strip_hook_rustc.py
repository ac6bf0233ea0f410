"""cargo's hook where it cannot be the shell script `scripts/cargo-strip-hook-rustc`.

Imports nothing of the package for what makes no static library: cargo calls it for each rustc.
"""

from __future__ import annotations

import sys


def ours(args: list[str]) -> bool:
    """Whether rustc, called with `args`, may make a static library: the hook looks closer."""
    emit: list[str] = []
    before, found = "", False
    for word in args:
        if before == "--emit" or word.startswith("--emit="):
            emit.append(word.removeprefix("--emit="))
        elif word in ("-", "--test"):
            return False
        elif word.startswith("@"):  # a file of arguments: it is looked into there
            found = True
            emit.append("link")
        elif "staticlib" in word:
            found = True
        before = word
    return found and "link" in ",".join(emit or ["link"])


def run() -> None:
    """Call rustc, or the hook, and end with its exit code."""
    args = sys.argv[1:]
    if args and not ours(args[1:]):
        import signal
        import subprocess

        # a terminal interrupts rustc as well, and it is rustc that says what becomes of that
        signal.signal(signal.SIGINT, lambda *_: None)
        sys.exit(subprocess.run(args, close_fds=False, check=False).returncode)
    from cargo_strip_hook.cargo.wrapper.main import main

    sys.exit(main(args))


if __name__ == "__main__":
    run()
