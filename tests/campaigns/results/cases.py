"""Small libraries for each format and several machines, and what the engine makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from cargo_strip_hook.archive import write_universal
from cargo_strip_hook.core.errors import StripHookError, VerifyError
from cargo_strip_hook.core.requests import (
    Compression,
    Granularity,
    PrelinkRequest,
    PrelinkResult,
    Slice,
    Strip,
)
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.engines import engine
from cargo_strip_hook.engines.native import NativeEngine
from cargo_strip_hook.formats.slices import slices_of
from cargo_strip_hook.verify import Expectation, Reading, read_ahead, verify, verify_universal
from tests.campaigns import seeds
from tests.campaigns.records import archive_members
from tests.formats.native_kit import tool
from tests.tools import need

MARKER = b'{"format":1}\n'
NAMES = (*seeds.NAMES, "api_cxx", "own_sum", "own_table")
# what the seeds lack: commons of several sizes with references that have addends, priorities,
# pointers into everything
OWN = """
int pool_a[3]; char pool_b; long long pool_c[5];
struct big { char c[40]; } pool_d __attribute__((aligned(64)));
extern int outside(int);
static int counted[7] = {1, 2, 3, 4, 5, 6, 7};
static const int fixed[4] = {9, 8, 7, 6};
static int twice(int a) { return outside(a) * 2; }
static int thrice(int a) { return outside(a) * 3; }
int *const own_table[] = {pool_a + 1, pool_a + 2, counted + 3, (int *)fixed + 2, (int *)&pool_c[2]};
static int (*const calls[])(int) = {twice, thrice, outside, twice};
int own_sum(int i) {
  pool_c[i] += pool_a[2] + pool_b;
  return pool_a[i] + pool_d.c[i + 9] + *own_table[i & 3] + calls[i & 3](i) + counted[i] + fixed[i];
}
__attribute__((constructor)) static void early(void) { pool_b = outside(3); }
__attribute__((destructor)) static void late(void) { pool_b = outside(4); }
"""
# element sets, notes, what linkers keep or place by itself
OWN_ELF = """
extern int outside(int);
extern int *__start_elements[], *__stop_elements[];
static int numbers[3];
__attribute__((section("elements"), used, retain)) static int *one = numbers + 1;
__attribute__((section("elements"), used, retain)) static int *two = numbers + 2;
__attribute__((section(".note.own"), used)) static const int note[] = {4, 4, 1, 0x6e776f, 7};
__attribute__((constructor(203))) static void first(void) { numbers[0] = outside(8); }
__attribute__((constructor(301))) static void second(void) { numbers[0] = outside(9); }
__attribute__((cold, noinline)) static int rare(int a) { return outside(a) + 1; }
int own_count(int a) {
  int sum = a ? 0 : rare(a);
  for (int **p = __start_elements; p != __stop_elements; p++) sum += **p;
  return sum;
}
"""


def target_of(build: seeds.Build) -> Target:
    """As rustc calls what clang calls otherwise."""
    arch, _, rest = build.target.partition("-")
    system = next((s for s in ("macos", "ios") if s in rest), "")
    if system:
        arch = arch.replace("arm64", "aarch64")
        return Target.parse(f"{arch}-apple-{'darwin' if system == 'macos' else system}")
    return Target.parse(f"{arch}-{rest.replace('w64', 'pc')}")


@dataclass(frozen=True)
class Case:
    """One library, and how it is stripped. `library` may be a universal one."""

    name: str
    folder: Path
    library: Path
    target: Target
    exports: tuple[str, ...]
    strip: Strip
    granularity: Granularity
    compress: Compression = Compression.NONE
    clang: str = ""  # what clang calls the target
    engine: str = "native"

    @property
    def format(self) -> str:
        return self.target.object_format

    def request(self, output: Path, part: Path | Slice | None = None) -> PrelinkRequest:
        return PrelinkRequest(
            part or self.library,
            output,
            self.target,
            self.exports,
            self.strip,
            self.granularity,
            MARKER,
            compress_debug=self.compress,
            folder=self.folder if self.engine != "native" else None,
        )

    def expectation(self, made: PrelinkResult) -> Expectation:
        return Expectation(
            self.target,
            self.exports,
            self.strip,
            made.link_map,
            MARKER,
            (),
            made.import_members,
            made.covers_debug,
            self.compress,
            self.granularity if made.covers_debug else None,
        )

    def made(self, output: Path) -> PrelinkResult:
        """What the engine makes, bugs or not."""
        return engine(self.engine).prelink(self.request(output))

    @cached_property
    def good(self) -> Good:
        output = self.folder / "good.a"
        made = self.made(output)
        expectation = self.expectation(made)
        rows = made.link_map
        members = sorted(set(rows["member"].tolist())) if rows is not None else []
        ahead = read_ahead(self.library, members)
        return Good(output.read_bytes(), expectation, ahead[0] if ahead else None)

    def by_system(self) -> Case | None:
        """The same library by the system's linker; None where there is none for the target."""
        folder = self.folder / "system"
        folder.mkdir(exist_ok=True)
        if self.format != "elf" or self.compress is not Compression.NONE:
            return None
        other = replace(self, name=f"{self.name} system", folder=folder, engine="system")
        try:
            found = other.findings(other.good.data)
            assert not found, found
        except StripHookError:
            return None
        return other

    def without_map(self) -> Case:
        """The same result of an engine that does not say where things went."""
        other = replace(self, name=f"{self.name} without a link map")
        expectation = replace(self.good.expectation, link_map=None, covers_debug=False)
        other.__dict__["good"] = Good(self.good.data, expectation, None)
        return other

    def findings(self, data: bytes, claimed: Expectation | None = None) -> str:
        """What the verifier finds in a result, "" for nothing; how it failed otherwise."""
        candidate = self.folder / "candidate.a"
        candidate.write_bytes(data)
        try:
            ahead = self.good.ahead if claimed is None else None
            verify(self.library, candidate, claimed or self.good.expectation, ahead)
        except VerifyError as e:
            return "\n".join(e.findings) or str(e)
        except StripHookError as e:
            return f"{type(e).__name__}: {e}"
        except Exception as e:  # as the command line would tell of a defect
            return f"CRASH {type(e).__name__}: {e}"
        return ""


@dataclass(frozen=True)
class Good:
    """A right result: the archive, what was asked for, and what was read of the original."""

    data: bytes
    expectation: Expectation
    ahead: Reading | None

    @cached_property
    def object(self) -> tuple[int, int]:
        """Offset and size of the object in the archive; names before it are left out."""
        for at, start, size in archive_members(self.data):
            name = self.data[at : at + 16].rstrip()
            skip = int(name[3:]) if name.startswith(b"#1/") else 0
            title = self.data[start : start + skip] if skip else name
            if not title.startswith((b"/ ", b"__.SYMDEF")) and title not in (
                b"/",
                b"//",
                b"/SYM64/",
            ):
                return start + skip, size - skip
        raise AssertionError("no object")


class Universal(Case):
    """A universal library of the slices of two others."""

    @cached_property
    def good(self) -> Good:
        parts = []
        for n, (part, target) in enumerate(slices_of(self.library, self.target)):
            out = self.folder / f"{n}.a"
            one = replace(Case(**{**self.__dict__, "target": target}), target=target)
            NativeEngine().prelink(one.request(out, part))
            parts.append(Slice(out))
        with (self.folder / "good.a").open("wb") as file:
            write_universal(file, self.library, parts)
        self.__dict__["parts"] = parts
        return Good((self.folder / "good.a").read_bytes(), None, None)  # type: ignore[arg-type]

    def findings(self, data: bytes, claimed: Expectation | None = None) -> str:  # noqa: ARG002
        candidate = self.folder / "candidate.a"
        candidate.write_bytes(data)
        try:
            verify_universal(self.library, candidate, self.__dict__["parts"])
        except VerifyError as e:
            return "\n".join(e.findings)
        return ""


_SECTION, _WHOLE, _CLASS = Granularity.SECTION, Granularity.WHOLE, Granularity.CLASS
_PIC = ("-fPIC", *seeds.SPLIT)
# build's name, how it is stripped, and flags that the seed's build lacks
CHOSEN: dict[str, tuple[tuple[str, Strip, Granularity], ...]] = {
    "elf": (
        ("elf-x86_64", Strip.SYMBOLS, _CLASS),
        ("elf-x86_64", Strip.NONE, _CLASS),
        ("elf-x86_64-dwarf4", Strip.NONE, _CLASS),
        ("elf-x86_64-zlib", Strip.NONE, _SECTION),
        ("elf-aarch64", Strip.DEBUGINFO, _CLASS),
        ("elf-i686", Strip.NONE, _CLASS),
        ("elf-armv7", Strip.DEBUGINFO, _CLASS),
        ("elf-riscv64", Strip.NONE, _CLASS),
        ("elf-ppc64le", Strip.SYMBOLS, _SECTION),
        ("elf-s390x-whole", Strip.NONE, _WHOLE),
        ("elf-loongarch64", Strip.SYMBOLS, _CLASS),
    ),
    "macho": (
        ("macho-arm64", Strip.SYMBOLS, _CLASS),
        ("macho-arm64", Strip.NONE, _CLASS),
        ("macho-arm64-dwarf5", Strip.NONE, _SECTION),
        ("macho-x86_64", Strip.DEBUGINFO, _CLASS),
        ("macho-x86_64", Strip.NONE, _WHOLE),
    ),
    "coff": (
        ("coff-x86_64-guard", Strip.SYMBOLS, _CLASS),
        ("coff-x86_64-msvc", Strip.NONE, _CLASS),
        ("coff-i686-msvc", Strip.DEBUGINFO, _CLASS),
        ("coff-aarch64-msvc", Strip.NONE, _SECTION),
        ("coff-x86_64-mingw", Strip.NONE, _CLASS),
        ("coff-i686-mingw", Strip.NONE, _CLASS),
    ),
}


def make(folder: Path, format: str, only: Sequence[str] = ()) -> list[Case]:
    """The cases of a format, always the same; those whose build is `only` if any is named."""
    if format == "universal":
        return [_universal(folder)]
    builds = {build.name: build for build in seeds.BUILDS}
    libraries: dict[str, Path] = {}
    cases = []
    for number, (name, strip, granularity) in enumerate(CHOSEN[format]):
        if only and name not in only:
            continue
        build = builds[name]
        if name not in libraries:
            libraries[name] = _library(folder / name, build)
        target = target_of(build)
        more = ("own_count",) if format == "elf" else ()
        chosen = (*NAMES, *more) if build.cxx else (*seeds.NAMES, *NAMES[5:], *more)
        exports = tuple(target.symbol_prefix + n for n in chosen)
        place = folder / f"{number}"
        place.mkdir()
        zlib = name.endswith("zlib")
        compress = Compression.ZLIB if zlib else Compression.NONE
        title = f"{name} {strip.value} {granularity.value}"
        cases.append(
            Case(
                title,
                place,
                libraries[name],
                target,
                exports,
                strip,
                granularity,
                compress,
                build.target,
            )
        )
    return cases


def _library(folder: Path, build: seeds.Build) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pooled = replace(build, flags=(*build.flags, "-fcommon", "-fasynchronous-unwind-tables"))
    more = [("own.c", OWN)]
    if build.name.startswith("elf"):
        more.append(("set.c", OWN_ELF))
    return seeds.archive(folder, pooled, more)


def _universal(folder: Path) -> Case:
    parts = []
    for build in seeds.BUILDS:
        if build.name in ("macho-arm64", "macho-x86_64"):
            parts.append(_library(folder / build.name, build))
    library = folder / "libfat.a"
    tool([need("llvm-lipo-22", "llvm-lipo"), "-create", *parts, "-output", library])
    target = Target.parse("aarch64-apple-darwin")
    exports = tuple(f"_{n}" for n in NAMES)
    place = folder / "universal"
    place.mkdir()
    return Universal("universal", place, library, target, exports, Strip.DEBUGINFO, _CLASS)
