"""Control flow guard and SafeSEH: what lld-link makes of a result is what it makes of the original.

Programs are linked with `/guard:cf`, and what their tables list is compared by name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from cargo_strip_hook.core.requests import Granularity, Strip
from tests.formats import windows_objects as kit
from tests.formats.native_kit import tool
from tests.formats.test_coff_engine import SECTIONS, X64
from tests.tools import need

TARGETS = ("x86_64-pc-windows-msvc", "i686-pc-windows-msvc", "aarch64-pc-windows-msvc")
GUARD = ("-Xclang", "-cfguard")
USER = """
typedef int (*fp)(int);
int thunked(int); __declspec(dllimport) int delayed(int); int direct(int);
static int thread(int x) { return x * 3; }
int in_table(int x) { return x - 1; } static int in_table_too(int x) { return x - 2; }
static const fp table[] = { in_table, in_table_too };
__attribute__((noinline)) static int run(fp f, int x) { volatile fp p = f; return p(x); }
int dead(int x) { return x * 9; } fp api_dead(void) { return dead; }
int api_thread(int i) { return run(thread, i) + table[i & 1](i); }
int api_thunk(int i) { return run(thunked, i); }
int api_delay(int i) { return run(delayed, i) + delayed(2); }
int api_direct(int i) { return direct(i); }
static void init(void) {}
__attribute__((section(".CRT$XCU"), used)) static void (*const constructor)(void) = init;
"""
OWNER = """
__attribute__((noinline)) static int called(int a) { return a * 5; }
int direct(int i) { return called(i) + called(i + 1); }
int (*api_own(void))(int) { return direct; }
"""
API = ("api_thread", "api_thunk", "api_delay", "api_direct", "api_own")
# functions that are only called directly: lld has them where a relocation is left for a call
CALLED = {"called", "run"}


SAFE = ".def @feat.00\n.scl 3\n.type 0\n.endef\n.globl @feat.00\n.set @feat.00, 1"


def _load_configuration(target: str) -> str:
    """IMAGE_LOAD_CONFIG_DIRECTORY in assembly. Source: Microsoft, "The Load Configuration"."""
    wide = not target.startswith("i686")
    u, word = ("", ".quad") if wide else ("_", ".long")
    step = 8 if wide else 4
    names = {
        (112, 72): ("guard_check_icall_fptr", "guard_dispatch_icall_fptr"),
        (128, 80): ("guard_fids_table", "guard_fids_count"),
        (160, 104): ("guard_iat_table", "guard_iat_count"),
        (176, 112): ("guard_longjmp_table", "guard_longjmp_count"),
        (264, 160): ("guard_eh_cont_table", "guard_eh_cont_count"),
    }
    fields = {}
    if not wide:
        fields = {64: (word, "___safe_se_handler_table"), 68: (word, "___safe_se_handler_count")}
    for offsets, pair in names.items():
        at = offsets[0] if wide else offsets[1]
        fields |= {at: (word, f"{u}__{pair[0]}"), at + step: (word, f"{u}__{pair[1]}")}
    fields[144 if wide else 88] = (".long", f"{u}__guard_flags")
    size = 312 if wide else 184
    lines = [SAFE, f'.section .rdata,"dr"\n.globl {u}_load_config_used\n.p2align 3']
    lines.append(f"{u}_load_config_used:")
    lines.append(f".long {size}")
    at = 4
    for offset, (kind, name) in sorted(fields.items()):
        lines += [f".fill {offset - at},1,0", f"{kind} {name}"]
        at = offset + (step if kind == word else 4)
    lines.append(f".fill {size - at},1,0")
    for name in names[112, 72]:
        lines.append(f".data\n.globl {u}__{name}\n.p2align 3\n{u}__{name}: {word} {name}_code")
        lines.append(f".text\n{name}_code: ret")
    return "\n".join(lines) + "\n"


def _tables(program: Path) -> dict[str, set[str]]:
    """The names of what each table of a program lists; a place without a name is left out."""
    names = defaultdict(list)
    for line in tool([kit.llvm("nm"), program]).splitlines():
        words = line.split()
        if len(words) == 3:
            names[int(words[0], 16)].append(words[2])
    said = tool([kit.llvm("readobj"), "--coff-load-config", program])
    tables = {}
    for name, text in re.findall(r"(\w+Table) \[(.*?)\]", said, re.S):
        tables[name] = {n for place in text.split() for n in names[int(place, 16)]}
    return tables


def _program(folder: Path, target: str, library: Path, api: Sequence[str], *flags: str) -> Path:
    calls = " + ".join(f"(long long){name}" for name in api)
    main = "".join(f"extern char {name}[];" for name in api)
    main += f"long long mainCRTStartup(void) {{ return {calls}; }}"
    main += "void *__stdcall __delayLoadHelper2(void *a, void *b) { return a ? b : a; }"
    main += "int _fltused;"
    definition = folder / "system.def"
    definition.write_text("LIBRARY system.dll\nEXPORTS\n thunked\n delayed\n")
    machine = {"x86_64": "i386:x86-64", "i686": "i386", "aarch64": "arm64"}[
        target.partition("-")[0]
    ]
    imports = folder / "system.lib"
    tool([kit.llvm("dlltool"), "-m", machine, "-d", definition, "-l", imports])
    sources = {"main.c": main, "configuration.s": _load_configuration(target)}
    objects = kit.compile(folder / "main", target, sources, "-O1", *GUARD)
    out = folder / f"{library.parent.name}.exe"
    argv: list[str | Path] = [need("lld-link-22", "lld-link"), "/nodefaultlib", "/debug:symtab"]
    argv += [f"/machine:{kit.MACHINES[target.partition('-')[0]]}", "/subsystem:console"]
    argv += ["/entry:mainCRTStartup", f"/out:{out}", *flags, *objects, library, imports]
    tool(argv)
    return out


def _compared(
    folder: Path, target: str, original: Path, api: Sequence[str], *flags: str
) -> dict[str, set[str]]:
    """What is in the original's tables; those of all results have it, too."""
    before = _tables(_program(folder, target, original, api, "/guard:cf,longjmp,ehcont", *flags))
    for strip, granularity in (
        (Strip.DEBUGINFO, Granularity.CLASS),
        (Strip.NONE, Granularity.SECTION),
        (Strip.NONE, Granularity.WHOLE),
    ):
        out, made = kit.strip(original, target, api, strip, granularity)
        kit.check(original, out, target, made, strip)
        after = _tables(_program(folder, target, out, api, "/guard:cf,longjmp,ehcont", *flags))
        u = kit.prefix(target)
        gone = {u + n for n in ("dead", "api_dead", *CALLED)}
        for name, listed in before.items():
            lost = {n for n in listed - after.get(name, set()) if not n.startswith(".weak.")}
            assert lost <= gone, (name, strip, granularity)
    return before


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("delay", [(), ("/delayload:system.dll",)], ids=["", "delay"])
@pytest.mark.parametrize("guards", ["none", "first", "second", "both"])
def test_functions_whose_address_is_taken(
    tmp_path: Path, target: str, delay: tuple[str, ...], guards: str
) -> None:
    first = GUARD if guards in ("first", "both") else ()
    second = GUARD if guards in ("second", "both") else ()
    objects = kit.compile(tmp_path, target, {"user.c": USER}, "-O1", *SECTIONS, *first)
    objects += kit.compile(tmp_path, target, {"owner.c": OWNER}, "-O1", *SECTIONS, *second)
    original = kit.archive(tmp_path / "t.lib", target, objects)
    found = _compared(tmp_path, target, original, API, *delay)["GuardFidTable"]
    u = kit.prefix(target)
    assert {u + n for n in ("thread", "in_table", "in_table_too", "init", "direct")} <= found


TABLES = """
    .def @feat.00
    .scl 3
    .type 0
    .endef
    .globl @feat.00
.set @feat.00, 0x4800
    .globl api
    .text
api: call outside
after_call: nop
target: nop
more: ret
    .section .gljmp$y,"dr"
    .symidx after_call
    .section .gehcont$y,"dr"
    .symidx target
    .symidx more
    .section .gfids$y,"dr"
    .symidx api
"""


def test_places_of_longjmp_and_of_exceptions(tmp_path: Path) -> None:
    sources = {"a.s": TABLES, "b.c": "int outside(void) { return 1; }"}
    original = kit.library(tmp_path, X64, sources, "-O1")
    out, made = kit.strip(original, X64, ("api",))
    kit.check(original, out, X64, made)
    counts = []
    for library in (original, out):
        program = _program(tmp_path, X64, library, ("api",), "/guard:cf,longjmp,ehcont")
        said = tool([kit.llvm("readobj"), "--coff-load-config", program])
        counts.append(re.findall(r"Guard(?:LongJump|EHContinuation)\w*Count: (\d+)", said))
    assert counts == [["1", "2"], ["1", "2"]]


def _features(library: Path) -> int:
    said = tool([kit.llvm("readobj"), "--symbols", kit.first_object(library)])
    found = re.search(r"Name: @feat\.00\n    Value: (\d+)", said)
    return int(found[1]) if found else 0


def test_one_member_with_tables_is_enough(tmp_path: Path) -> None:
    objects = kit.compile(tmp_path, X64, {"user.c": USER}, "-O1", *GUARD)
    objects += kit.compile(tmp_path, X64, {"owner.c": OWNER}, "-O1")
    original = kit.archive(tmp_path / "t.lib", X64, objects)
    assert _features(kit.strip(original, X64, API)[0]) & 0x800
    plain = kit.compile(tmp_path, X64, {"plain.c": OWNER}, "-O1")
    original = kit.archive(tmp_path / "p.lib", X64, plain)
    assert not _features(kit.strip(original, X64, ("api_own",))[0]) & 0x800


def test_handlers_beside_a_member_that_is_not_fit(tmp_path: Path) -> None:
    target = "i686-pc-windows-msvc"
    handled = """
    int risky(int x);
    int api_try(int x) { __try { return risky(x); } __except (1) { return -1; } }
    """
    sources = {
        "try.c": handled,
        "risky.c": "int risky(int x) { return 100 / x; } int _except_handler3(void) { return 1; }",
        "user.c": "int assembled(int); int api_user(int x) { return assembled(x); }",
        "unfit.s": ".globl _assembled\n.text\n_assembled: movl 4(%esp),%eax\n ret\n",
    }
    original = kit.library(tmp_path, target, sources, "-O1", *SECTIONS, "-fms-extensions")
    fit = ("api_try",)
    handlers = []
    for which, api in (("all", ("api_try", "api_user")), ("fit", fit)):
        out, made = kit.strip(original, target, api, Strip.NONE)
        kit.check(original, out, target, made, Strip.NONE)
        warned = [w for w in made.warnings if "/SAFESEH" in w]
        assert bool(warned) == (which == "all")
        assert all("unfit.o" in w for w in warned)
        if which == "fit":
            for library in (original, out):
                handlers.append(_tables(_program(tmp_path, target, library, api, "/safeseh")))
        assert ".sxdata" in [s["name"] for s in kit.sections(kit.first_object(out))]
    assert handlers[0] == handlers[1]
    assert "__except_handler3" in handlers[0]["SEHTable"]
