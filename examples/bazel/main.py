"""Starts cargo-strip-hook from the folder named first, whatever Python has installed."""

import sys

sys.path.insert(0, sys.argv.pop(1))

from cargo_strip_hook.__main__ import run

run()
