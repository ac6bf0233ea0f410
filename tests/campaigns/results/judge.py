"""What LLVM's linkers make of a result: two are the same program where they make the same of both.

A library is linked whole, and once more by the names of its exports and without what nothing needs.
What is compared is what is loaded, what unwinds it, what it exports, and its debug information.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cargo_strip_hook.core.requests import Strip
from tests.campaigns.results.cases import Case
from tests.formats.darwin_kit import linker as ld64
from tests.formats.native_kit import tool
from tests.tools import need

_SUPPLY = """
_Thread_local int elsewhere = 4;
#ifndef _MSC_VER  /* there it comes from a DLL */
int outside(int a) { return a + 1; }
#endif
#ifdef _WIN32
unsigned _tls_index;
#endif
"""
_ELF_MACHINES = {"i686": "elf_i386", "armv7": "armelf_linux_eabi", "x86_64": "elf_x86_64"}
_ELF_MACHINES |= {"aarch64": "aarch64linux", "riscv64": "elf64lriscv", "s390x": "elf64_s390"}
_ELF_MACHINES |= {"powerpc64le": "elf64lppc", "loongarch64": "elf64loongarch"}


@dataclass(frozen=True)
class Program:
    """What a linker makes: its parts by name, None where it refuses. `said`: its messages."""

    parts: dict[str, bytes] | None
    said: str

    def differs(self, other: Program) -> str:
        """In what another one is not the same program; "" for nothing."""
        if self.parts is None or other.parts is None:
            return "" if self.parts is other.parts else f"refused: {other.said or self.said}"
        wrong = [
            name
            for name in sorted(self.parts.keys() | other.parts.keys())
            if self.parts.get(name) != other.parts.get(name)
        ]
        if not wrong and self.said != other.said:
            return f"warned: {other.said}"
        return ", ".join(wrong)


class Judge:
    """Links one case's results; the good one's programs are kept."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.folder = case.folder / "judged"
        self.folder.mkdir(exist_ok=True)
        self.supply = self._supply()
        self.good = [self._link(case.good.data, n) for n in range(len(self._ways()))]
        if case.engine == "system":  # what GNU ld joined lld does not always take
            linked = [p for p in self.good if p.parts is not None]
            self.good = linked if self.good[0].parts is not None else self.good
        assert all(p.parts is not None for p in self.good), [(case.name, p.said) for p in self.good]

    def _supply(self) -> Path:
        """What the consumer has to have; linkers are told not to mind that the rest is missing."""
        source = self.folder / "supply.c"
        source.write_text(_SUPPLY)
        out = source.with_suffix(".o")
        clang = need("clang-22", "clang")
        words = (clang, f"--target={self.case.clang}", "-ffreestanding", "-O1", "-c", "-o", out)
        tool([*words, source])
        return out

    def harm(self, data: bytes) -> str:
        """In which way a result is another program than the good one; "" for none."""
        if data == self.case.good.data:
            return ""
        for number, good in enumerate(self.good):
            found = good.differs(self._link(data, number))
            if found:
                return found[:300]
        if self.case.format == "macho" and self.case.strip is Strip.NONE:
            mine, theirs = (self._debug(d) for d in (self.case.good.data, data))
            return "" if mine == theirs else "debug information"
        return ""

    def _ways(self) -> list[Sequence[str | Path]]:
        case, target = self.case, self.case.target
        if case.format == "elf":
            arch = target.arch
            plain = (need("ld.lld-22", "ld.lld"), "-m", _ELF_MACHINES[arch], "--build-id=none")
            plain += ("--unresolved-symbols=ignore-all", "--eh-frame-hdr", "--discard-all")
            named = [word for name in case.exports for word in ("-u", name)]
            whole = (
                *plain,
                "-pie",
                "--export-dynamic",
                "-z",
                "notext",
                "-e",
                "0",
                "--whole-archive",
                "{}",
                "--no-whole-archive",
            )
            return [whole, (*plain, "--gc-sections", "-e", "0", *named, "{}")]
        if case.format == "macho":
            arch = target.arch.replace("aarch64", "arm64")
            system = "ios" if target.system == "ios" else "macos"
            plain = (ld64(), "-arch", arch, "-platform_version", system, "15.0", "15.0", "-dylib")
            plain += ("-undefined", "dynamic_lookup", "-no_uuid", "-no_adhoc_codesign", "-x", "-S")
            named = [word for name in case.exports for word in ("-u", name)]
            return [(*plain, "-all_load", "{}"), (*plain, "-dead_strip", *named, "{}")]
        machine = {"x86_64": "x64", "i686": "x86", "aarch64": "arm64"}[target.arch]
        plain = (need("lld-link-22", "lld-link"), f"/machine:{machine}", "/dll", "/noentry")
        plain += ("/nodefaultlib", "/force:unresolved", "/Brepro", "/safeseh:no", "/lldignoreenv")
        if target.is_msvc:
            plain += ("/debug",) if case.strip is Strip.NONE else ()
        else:
            plain += ("/debug:dwarf", "/lldmingw")
        shown = [f"/export:{name.removeprefix(target.symbol_prefix)}" for name in case.exports]
        return [
            (*plain, *shown, "/opt:noref", "/wholearchive:{}"),
            (*plain, *shown, "/opt:ref,noicf", "/guard:cf", "{}"),
        ]

    def _link(self, data: bytes, way: int) -> Program:
        file, out = self.folder / "lib.a", self.folder / "out"
        file.write_bytes(data)
        out.unlink(missing_ok=True)
        (self.folder / "out.pdb").unlink(missing_ok=True)
        words = [str(w).replace("{}", str(file)) for w in self._ways()[way]]
        words += [str(self.supply)]
        words += [f"/out:{out}"] if self.case.format == "coff" else ["-o", str(out)]
        try:
            done = subprocess.run(words, capture_output=True, check=False, timeout=60)
        except subprocess.TimeoutExpired:
            return Program(None, "it does not end")
        said = (done.stdout + done.stderr).decode("utf-8", "replace").replace(str(self.folder), "")
        said = "\n".join(sorted(set(re.findall(r"(?:error|warning): .*", said))))
        said = said if done.returncode == 0 or said else f"exit code {done.returncode}"
        if done.returncode or not out.exists():
            return Program(None, said)
        parts = {"elf": _elf, "macho": _macho, "coff": _coff}[self.case.format](out.read_bytes())
        pdb = self.folder / "out.pdb"
        if self.case.format == "coff" and pdb.exists():
            parts["pdb"] = _pdb(pdb)
        return Program(parts, said)

    def _debug(self, data: bytes) -> dict[str, str]:
        """What a debugger finds in the object itself: linkers for Apple leave it there."""
        file = self.folder / "debug.o"
        start, size = self.case.good.object
        file.write_bytes(data[start : start + size])
        words = (need("llvm-dwarfdump-22", "llvm-dwarfdump"), "--all", "--verbose", file)
        done = subprocess.run(words, capture_output=True, check=False, timeout=60)
        return {"dump": (done.stdout + done.stderr).decode("utf-8", "replace")}


def _elf(data: bytes) -> dict[str, bytes]:
    """What is loaded, how, and what debuggers read; not the table of symbols."""
    wide = data[4] == 2
    order, word = "<" if data[5] == 1 else ">", 8 if wide else 4
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 24 + 2 * word)
    size, count, names = struct.unpack_from(order + "HHH", data, 24 + 3 * word + 10)
    form = order + ("IIQQQQIIQQ" if wide else "10I")
    rows = [struct.unpack_from(form, data, table + n * size) for n in range(count)]
    found = {"header": data[16 : 24 + word] + data[24 + 3 * word : 28 + 3 * word]}
    segments, phentsize, phnum = (
        struct.unpack_from(order + ("Q" if wide else "I"), data, 24 + word)[0],
        *struct.unpack_from(order + "HH", data, 24 + 3 * word + 6),
    )
    for at in range(segments, segments + phentsize * phnum, phentsize):
        # not where in the file, which the table of sections decides, too
        head = data[at : at + (8 if wide else 4)]
        found.setdefault("segments", b"")
        found["segments"] += head + data[at + (16 if wide else 8) : at + phentsize]
    for n, row in enumerate(rows):
        name = data[rows[names][4] + row[0] :].partition(b"\0")[0].decode("utf-8", "replace")
        body = b"" if row[1] in (0, 8) else data[row[4] : row[4] + row[5]]
        if name in (".symtab", ".strtab", ".shstrtab", ".comment", ""):
            continue
        loaded = bool(row[2] & 2)
        facts = struct.pack("<6Q", row[1], row[2], row[3] if loaded else 0, row[5], 0, row[9])
        found[f"{name}[{n}]" if loaded else name] = facts + body
    return found


def _macho(data: bytes) -> dict[str, bytes]:
    """The load commands and what they tell of; not the table of local symbols."""
    found: dict[str, bytes] = {"header": data[4:16] + data[24:28]}
    at = 32
    for n in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        found[f"command {n} {command:#x}"] = data[at : at + size]
        if command == 0x19:
            for k in range(struct.unpack_from("<I", data, at + 64)[0]):
                section = at + 72 + 80 * k
                length, offset = struct.unpack_from("<QI", data, section + 40)
                zeros = data[section + 64] in (1, 0xC, 0x12)
                name = data[section : section + 32].replace(b"\0", b" ").decode("latin-1")
                found[f"section {name}"] = b"" if zeros else data[offset : offset + length]
        elif command in (0x22, 0x80000022):
            for k in range(5):
                offset, length = struct.unpack_from("<II", data, at + 8 + 8 * k)
                found[f"dyld info {k}"] = data[offset : offset + length]
        elif command in (0x80000033, 0x80000034, 0x26, 0x29):
            offset, length = struct.unpack_from("<II", data, at + 8)
            found[f"link-edit {command:#x}"] = data[offset : offset + length]
        at += size
    return found


def _coff(data: bytes) -> dict[str, bytes]:
    """Headers without the time, which is a hash, and sections."""
    (start,) = struct.unpack_from("<I", data, 0x3C)
    machine, count, _, _, _, optional, flags = struct.unpack_from("<HHIIIHH", data, start + 4)
    header = bytearray(data[start + 24 : start + 24 + optional])
    found = {"header": struct.pack("<HHH", machine, count, flags) + bytes(header)}
    stamp = data[start + 8 : start + 12]
    for n in range(count):
        at = start + 24 + optional + 40 * n
        name = data[at : at + 8].rstrip(b"\0").decode("latin-1")
        _, _, size, offset = struct.unpack_from("<IIII", data, at + 8)
        body = data[offset : offset + size]
        if name == ".buildid" or b"RSDS" in body:
            body = re.sub(rb"RSDS.{20}", b"RSDS", body, flags=re.DOTALL)
        found[f"{name}[{n}]"] = data[at : at + 40] + body.replace(stamp, bytes(4))
    return found


def _pdb(path: Path) -> bytes:
    words = (need("llvm-pdbutil-22", "llvm-pdbutil"), "dump", "--types", "--ids", "--symbols")
    words += ("--globals", "--publics", "--l", "--modules", "--section-contribs", path)
    done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    text = done.stdout + done.stderr
    return b"\n".join(_plain(text.splitlines()))


def _plain(lines: Sequence[bytes]) -> Iterator[bytes]:
    for line in lines:
        if b"GUID" not in line and b"Age" not in line and b"File Size" not in line:
            yield line


__all__ = ["Judge"]
