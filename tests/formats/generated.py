"""Random small libraries in assembly, with the value of each function worked out beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import strategies as st

from cargo_strip_hook.core.requests import Granularity

VISIBILITIES = ("", "", "", "hidden", "protected", "internal")
CALLS = ("call", "plt", "got", "pointer", "data")


@dataclass(frozen=True)
class Function:
    """`f<n>` in `unit`: returns its number, plus what its callees return, plus its data."""

    unit: int
    callees: tuple[tuple[int, str], ...]  # only of higher numbers, so that it ends
    visibility: str
    exported: bool
    local: bool  # another unit cannot call it
    tls: int  # uses thread-local t<unit> if set; 1 initial-exec, 2 local-exec style through GOT
    weak_absent: bool  # tests a weak undefined symbol
    group: int  # calls inline function inl<n> of a COMDAT group, 0 for none
    fde: bool
    counts_set: bool
    lsda: bool


@dataclass(frozen=True)
class Plan:
    functions: tuple[Function, ...]
    constructors: tuple[tuple[int, int, int], ...]  # unit, function called, priority or 0
    elements: tuple[tuple[int, int], ...]  # unit, function pointed to
    retained: tuple[int, ...]  # functions whose section has SHF_GNU_RETAIN
    ordered: tuple[int, ...]  # functions with a SHF_LINK_ORDER section
    granularity: Granularity


@dataclass(frozen=True)
class Program:
    sources: Mapping[str, str]
    exports: tuple[str, ...]
    functions: tuple[str, ...]
    main: str
    expected: str
    needed_by_constructors: set[str]


UNITS = 3


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(2, 8))
    functions = []
    for number in range(count):
        higher = list(range(number + 1, count))
        callees = (
            draw(st.lists(st.tuples(st.sampled_from(higher), st.sampled_from(CALLS)), max_size=3))
            if higher
            else []
        )
        functions.append(
            Function(
                draw(st.integers(0, UNITS - 1)),
                tuple(callees),
                draw(st.sampled_from(VISIBILITIES)),
                draw(st.booleans()) if number else True,
                draw(st.integers(0, 3)) == 0 and number > 0,
                draw(st.integers(0, 2)),
                draw(st.integers(0, 3)) == 0,
                draw(st.integers(0, 2)),
                draw(st.booleans()),
                draw(st.integers(0, 3)) == 0,
                draw(st.integers(0, 3)) == 0,
            )
        )
    anyone = st.integers(0, count - 1)
    unit = st.integers(0, UNITS - 1)
    return Plan(
        tuple(functions),
        tuple(draw(st.lists(st.tuples(unit, anyone, st.sampled_from((0, 200, 300))), max_size=2))),
        tuple(draw(st.lists(st.tuples(unit, anyone), max_size=3))),
        tuple(draw(st.lists(anyone, max_size=1))),
        tuple(draw(st.lists(anyone, max_size=2))),
        draw(st.sampled_from(list(Granularity))),
    )


def _reachable(plan: Plan, unit: int, callee: int) -> bool:
    """Whether code of `unit` can name the function."""
    function = plan.functions[callee]
    return not function.local or function.unit == unit


def make(plan: Plan) -> Program:
    """The sources of a plan and what its program writes."""
    functions = plan.functions
    bodies: list[list[str]] = [[] for _ in range(UNITS)]
    used_tls: list[bool] = [False] * UNITS
    for n, f in enumerate(functions):
        bodies[f.unit] += _function(plan, n, f)
        used_tls[f.unit] |= f.tls > 0
    for unit in range(UNITS):
        bodies[unit] += [
            f' .section .tdata.t{unit},"awT",@progbits',
            " .balign 4",
            f" .globl t{unit}",
            f" .hidden t{unit}",
            f" .type t{unit},@object",
            f"t{unit}: .long {unit + 1}00000",
        ]
        for group in (1, 2):
            bodies[unit] += _inline(group, unit)
    for i, (unit, callee, priority) in enumerate(plan.constructors):
        if _reachable(plan, unit, callee):
            suffix = f".{priority:05}" if priority else ""
            bodies[unit] += [
                f' .section .init_array{suffix},"aw",@init_array',
                " .balign 8",
                f" .quad ctor{i}",
                f' .section .text.ctor{i},"ax",@progbits',
                f"ctor{i}: pushq %rbx",
                f" call f{callee}",
                " addl %eax, made(%rip)",
                " popq %rbx",
                " ret",
            ]
    for unit, callee in plan.elements:
        if _reachable(plan, unit, callee):
            bodies[unit] += [' .section gen_set,"aw",@progbits', " .balign 8", f" .quad f{callee}"]
    bodies[0] += [
        ' .section .bss.made,"aw",@nobits',
        " .balign 4",
        " .globl made",
        "made: .zero 4",
        ' .section .text.made_value,"ax",@progbits',
        " .globl made_value",
        "made_value: movl made(%rip), %eax",
        " ret",
    ]
    for unit in range(UNITS):
        if unit:
            bodies[unit] += [" .hidden made"]
        bodies[unit] += [' .section .note.GNU-stack,"",@progbits', ""]
    sources = {f"u{unit}.s": "\n".join(body) for unit, body in enumerate(bodies)}
    exported = tuple(f"f{n}" for n, f in enumerate(functions) if _callable(f))
    loaded = _loaded(plan, (*exported, "made_value"))
    total = sum(
        _value(plan, loaded, c)
        for u, c, _ in plan.constructors
        if u in loaded and _reachable(plan, u, c)
    )
    declarations = "".join(f"int {name}(void);" for name in exported)
    prints = "".join(f'printf("%d ", {name}());' for name in exported)
    main = f"""#include <stdio.h>
{declarations} int made_value(void);
int main(void) {{ {prints} printf("%d\\n", made_value()); }}
"""
    values = [str(_value(plan, loaded, int(name[1:]))) for name in exported]
    return Program(
        sources,
        (*exported, "made_value"),
        exported,
        main,
        " ".join([*values, str(total)]) + "\n",
        _constructed(plan),
    )


def _callable(f: Function) -> bool:
    return f.exported and not f.local and f.visibility in ("", "protected")


def _function(plan: Plan, n: int, f: Function) -> list[str]:
    flags = "axR" if n in plan.retained else "ax"
    out = [f' .section .text.f{n},"{flags}",@progbits']
    if not f.local:
        out += [f" .globl f{n}"]
        out += [f" .{f.visibility} f{n}"] if f.visibility else []
    out += [f" .type f{n},@function", f"f{n}:"]
    out += [" .cfi_startproc"] if f.fde else []
    if f.fde and f.lsda:
        out += [f" .cfi_lsda 0x1b, lsda{n}"]
    out += [" pushq %rbx"]
    out += [" .cfi_adjust_cfa_offset 8"] if f.fde else []
    out += [f" movl ${1 << n}, %ebx"]
    for i, (callee, way) in enumerate(f.callees):
        if not _reachable(plan, f.unit, callee):
            continue
        local = plan.functions[callee].local
        if way == "plt" and not local:
            out += [f" call f{callee}@PLT"]
        elif way == "got":
            out += [f" call *f{callee}@GOTPCREL(%rip)"]
        elif way == "pointer":
            out += [f" movq f{callee}@GOTPCREL(%rip), %rax", " call *%rax"]
        elif way == "data":
            out += [f" movq ptr{n}_{i}(%rip), %rax", " call *%rax"]
        else:
            # a protected or default symbol may be called directly within a program
            out += [f" call f{callee}"]
        out += [" addl %eax, %ebx"]
    if f.tls:
        if f.tls == 1:
            out += [f" movq t{f.unit}@gottpoff(%rip), %rax", " addl %fs:(%rax), %ebx"]
        else:
            out += [f" movl %fs:t{f.unit}@tpoff, %eax", " addl %eax, %ebx"]
    if f.weak_absent:
        out += [
            " .weak never_defined",
            " movq never_defined@GOTPCREL(%rip), %rax",
            " testq %rax, %rax",
            " je 1f",
            " addl $1000000000, %ebx",
            "1:",
        ]
    if f.group:
        out += [f" call inl{f.group}@PLT", " addl %eax, %ebx"]
    if f.counts_set and plan.elements:
        out += [
            " movq __stop_gen_set@GOTPCREL(%rip), %rax",
            " subq __start_gen_set@GOTPCREL(%rip), %rax",
            " imull $1250, %eax, %eax",  # 10,000 for each element of 8 bytes
            " addl %eax, %ebx",
            " .weak __start_gen_set",
            " .weak __stop_gen_set",
        ]
    out += [" movl %ebx, %eax", " popq %rbx"]
    out += [" .cfi_adjust_cfa_offset -8"] if f.fde else []
    out += [" ret"]
    out += [" .cfi_endproc"] if f.fde else []
    out += [f" .size f{n},.-f{n}"]
    if f.fde and f.lsda:
        out += [f' .section .gcc_except_table.f{n},"a",@progbits', f"lsda{n}: .long 0x01ffffff, 0"]
    for i, (callee, way) in enumerate(f.callees):
        if way == "data" and _reachable(plan, f.unit, callee):
            out += [
                f' .section .data.rel.ptr{n}_{i},"aw",@progbits',
                " .balign 8",
                f"ptr{n}_{i}: .quad f{callee}",
            ]
    if n in plan.ordered:
        out += [f' .section ordered{n},"ao",@progbits,.text.f{n}', f" .long {n}"]
    return out


def _inline(group: int, unit: int) -> list[str]:
    """The same function in each unit, in a COMDAT group with a string and a counter of its own."""
    name = f"inl{group}"
    return [
        f' .section .text.{name},"axG",@progbits,{name},comdat',
        f" .weak {name}",
        f" .type {name},@function",
        f"{name}: .cfi_startproc",
        f" leaq word{group}_{unit}(%rip), %rax",
        " movl (%rax), %eax",
        " ret",
        " .cfi_endproc",
        f" .size {name},.-{name}",
        f' .section .rodata.{name},"aG",@progbits,{name},comdat',
        " .balign 4",
        f"word{group}_{unit}: .long {group}0000000",
        # referred to by no one: lives because the group does
        f' .section .data.{name},"awG",@progbits,{name},comdat',
        " .long 1",
    ]


def _value(plan: Plan, loaded: set[int], n: int) -> int:
    f = plan.functions[n]
    total = 1 << n
    for callee, _ in f.callees:
        if _reachable(plan, f.unit, callee):
            total += _value(plan, loaded, callee)
    total += (f.unit + 1) * 100000 if f.tls else 0
    total += f.group * 10000000
    if f.counts_set:
        total += 10000 * sum(1 for u, c in plan.elements if u in loaded and _reachable(plan, u, c))
    return total


def _loaded(plan: Plan, exports: tuple[str, ...]) -> set[int]:
    """The units that a linker loads: those of the exports, and of whatever they name."""
    functions = plan.functions
    loaded = {functions[int(e[1:])].unit for e in exports if e != "made_value"} | {0}
    while True:
        names = {c for f in functions if f.unit in loaded for c, _ in f.callees}
        names |= {c for u, c, _ in plan.constructors if u in loaded}
        names |= {c for u, c in plan.elements if u in loaded}
        more = {functions[c].unit for c in names if not functions[c].local} | loaded
        # inl1 and inl2 are in every unit; a weak definition in unit 0 is there already
        if more == loaded:
            return loaded
        loaded = more


def _constructed(plan: Plan) -> set[str]:
    """Names of functions that only constructors and retained sections need."""
    found: set[int] = set()
    todo = [c for u, c, _ in plan.constructors if _reachable(plan, u, c)] + list(plan.retained)
    while todo:
        n = todo.pop()
        if n in found:
            continue
        found.add(n)
        f = plan.functions[n]
        todo += [c for c, _ in f.callees if _reachable(plan, f.unit, c)]
        if f.counts_set:
            todo += [c for u, c in plan.elements if _reachable(plan, u, c)]
    names = {f"f{n}" for n in found}
    return names | {f"inl{plan.functions[n].group}" for n in found}
