"""Turns the JSON lines of a run into a step's outputs and a table for the job's summary.

``summarise.py LOG OUTPUTS SUMMARY``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(log: str, outputs: str, summary: str) -> None:
    """Append to both files."""
    lines = map(json.loads, Path(log).read_text(encoding="utf-8").splitlines())
    done = [line for line in lines if line["reason"] == "stripped"]
    before, after = (sum(line[key] for line in done) for key in ("before", "after"))
    with Path(outputs).open("a", encoding="utf-8") as out:
        paths = "\n".join(line["output"] for line in done)
        out.write(f"libraries<<END-OF-LIBRARIES\n{paths}\nEND-OF-LIBRARIES\n")
        out.write(f"before={before}\nafter={after}\n")
    with Path(summary).open("a", encoding="utf-8") as out:
        out.write("| library | before | after |\n| --- | --: | --: |\n")
        for line in done:
            name = Path(line["output"]).name
            out.write(f"| {name} | {line['before']:,} | {line['after']:,} |\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
