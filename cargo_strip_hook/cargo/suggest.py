"""Suggestions for misspelt words."""

from __future__ import annotations

from collections.abc import Sequence


def did_you_mean(word: str, known: Sequence[str], otherwise: str) -> str:
    """``did you mean ...?`` for the word of `known` nearest to `word`, else `otherwise`."""
    # only needed for errors
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`?" if close else otherwise
