"""What two programs for Windows have in common: code and unwind data, function by function.

Read by LLVM's tools. Places differ from one program to the other: a target of a branch is told by
its function, the address of data not at all (the verifier compares what relocations refer to).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from pathlib import Path

from tests.consumers.toolbox import run
from tests.tools import need

# places within a function that the compiler names; thunks of import libraries
_WITHIN = re.compile(r"\$ehgcr_|\.|__imp_")
_SYMBOL = re.compile(r"([0-9a-f]+) <(.*)>:")
_LINE = re.compile(r" *([0-9a-f]+):\s+(.*)")
_END = re.compile(r"(ret|jmp|b|br|call|int3|ud2|brk|bl)")

Code = dict[str, tuple[str, ...]]


def code(program: Path, shared: frozenset[str] | None = None) -> Code:
    """The instructions of each function; targets in those of `shared` are told by name."""
    said = run(need("llvm-objdump-22", "llvm-objdump"), "-d", "--no-show-raw-insn", program).stdout
    starts: list[int] = []
    names: list[str] = []
    bodies: list[list[str]] = []
    for line in said.splitlines():
        if (symbol := _SYMBOL.fullmatch(line)) and not _WITHIN.match(symbol[2]):
            starts.append(int(symbol[1], 16))
            names.append(symbol[2])
            bodies.append([])
        elif bodies and (found := _LINE.fullmatch(line)):
            bodies[-1].append(found[2])
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1

    def place(match: re.Match[str]) -> str:
        address = int(match[1], 16)
        at = bisect_right(starts, address) - 1
        far = at < 0 or address - starts[at] > 1 << 16  # what is no code, but stands between it
        if far or (shared is not None and names[at] not in shared):
            return "DATA"
        return f"{names[at]}+{address - starts[at]:#x}"

    out = {}
    for name, body in zip(names, bodies, strict=True):
        if counts[name] > 1:
            continue
        thread_local = any("fs:" in line for line in body)
        lines = [_plain(line, thread_local) for line in body]
        lines = [re.sub(r"0x([0-9a-f]+) <[^>]*>", place, line) for line in lines]
        # what follows the last branch fills the room up to the next function
        while lines and not _END.match(lines[-1]):
            lines.pop()
        while lines and re.match(r"int3|nop", lines[-1]):
            lines.pop()
        out[name] = tuple(lines)
    return out


def _plain(line: str, thread_local: bool) -> str:
    """An instruction without the addresses of data."""
    line = re.sub(r"\s*(#|//) .*", "", line).replace("\t", " ")
    line = re.sub(r"-?0x[0-9a-f]+\(%rip\)", "DATA(%rip)", line)
    line = re.sub(r"(?<![+<])0x([4-9][0-9a-f]{5}|14[0-9a-f]{7})\b(?! <)", "DATA", line)
    if thread_local:  # an offset in the program's block of thread-local data
        line = re.sub(r"0x[0-9a-f]+\(%", "OFFSET(%", line)
    if line.startswith("adrp"):
        return line.partition(",")[0]
    if re.match(r"(add|ldr\w*|str\w*) ", line) and not re.search(r"\b(sp|x29)\b", line):
        line = re.sub(r"#0x[0-9a-f]+", "#DATA", line)
    return line


def unwinding(program: Path) -> dict[str, str]:
    """How each function is unwound (aarch64, x86_64)."""
    said = run(need("llvm-readobj-22", "llvm-readobj"), "--unwind", program).stdout
    out: dict[str, str] = {}
    for part in said.split("RuntimeFunction {")[1:]:
        block = part.partition("\n  }")[0]
        name = re.search(r"(?:Function|StartAddress): (\S+) \(", block)
        if name and not _WITHIN.match(name[1]):
            text = re.sub(r"(ExceptionRecord|Parameter): .*|\(?0x1?4[0-9A-F]{7,}\)?", "", block)
            out[name[1]] = out.get(name[1], "") + text
    return out


def variables(program: Path) -> set[str]:
    """The names of a program's variables."""
    said = run(need("llvm-nm-22", "llvm-nm"), program).stdout
    rows = (line.split() for line in said.splitlines())
    return {row[2] for row in rows if len(row) == 3 and row[1] in "dDbBrR"}
