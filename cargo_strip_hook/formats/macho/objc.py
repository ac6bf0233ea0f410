"""What the runtimes of Objective-C and Swift find by the names of sections, and nobody refers to.

A linker that is told `-ObjC`, as most that link such code are, loads each member that defines a
class or has a category or records of Swift's. Sources: ld(1), `-ObjC`; ld64, `archive_file.cpp`;
ld64.lld, `Driver.cpp` and `ObjC.cpp` (`hasObjCSection`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

from cargo_strip_hook.core.errors import LinkError
from cargo_strip_hook.formats.macho import layouts as mo
from cargo_strip_hook.formats.macho.commands import read_commands
from cargo_strip_hook.formats.macho.file import names_of
from cargo_strip_hook.link.model import Input
from cargo_strip_hook.link.reading import InputFile

CLASSES = (b"_OBJC_CLASS_$_", b".objc_c")  # the second ones are those of the first runtime
_CATEGORIES = b"__objc_catlist"  # and __objc_catlist2, of classes that Swift makes at run time
_SWIFT, _SWIFT_RECORDS = b"__swift", b"__swift5_"
IMAGE_INFO = b"__objc_imageinfo"
# lists that only the runtime reads
_LISTS = (
    _CATEGORIES,
    b"__objc_classlist",
    b"__objc_nlclslist",
    b"__objc_nlcatlist",
    b"__objc_protolist",
    b"__objc_stublist",
    IMAGE_INFO,
)


# flags of __objc_imageinfo (objc4, `objc-file.h` and `runtime.h`)
_CLASS_PROPERTIES = 1 << 6  # all categories have room for them
_SWIFT_ABI, _SWIFT_LANGUAGE = 0xFF << 8, 0xFFFF << 16


def loaded_always(inputs: Sequence[Input], entries: Iterable[tuple[bytes, int]]) -> list[int]:
    """The numbers of the members that `-ObjC` makes linkers load. Raises `ObjectError`."""
    there = {item.index for item in inputs}
    first: dict[bytes, int] = {}
    for name, number in entries:
        if name.startswith(CLASSES):
            first.setdefault(name, number)
    numbers = there & set(first.values())
    numbers |= {item.index for item in inputs if _has_records(item)}
    return sorted(numbers)


def _has_records(item: Input) -> bool:
    """Whether a member has categories or records of Swift's."""
    length = mo.HEADER.itemsize + int.from_bytes(item.data[20:24], "little")
    commands = bytes(item.data[:length])
    if _CATEGORIES not in commands and _SWIFT not in commands:
        return False  # nearly always: nothing has to be read
    return any(map(is_record, names_of(read_commands(InputFile(item.name, item.data)).sections)))


def is_record(name: tuple[bytes, bytes]) -> bool:
    """Whether a section of this (segment, name) makes `-ObjC` load its member."""
    segment, section = name
    if section.startswith(_CATEGORIES):
        return segment.startswith(b"__DATA")
    return section.startswith(_SWIFT_RECORDS if segment != b"__TEXT" else _SWIFT)


def is_list(name: tuple[bytes, bytes]) -> bool:
    """Whether all of a section is alive: the runtime walks over it from end to end."""
    segment, section = name
    return segment.startswith(b"__DATA") and section.startswith(_LISTS)


def merged_info(infos: Sequence[tuple[str, bytes]]) -> bytes:
    """The one `__objc_imageinfo` of members, each with its name, as linkers merge them.

    What all must be able to do is only said where all say it, of Swift's language versions the
    highest. Sources: ld64, `Resolver.cpp` and `passes/objc.cpp`; ld64.lld, `ObjCImageInfoSection`.
    Raises `LinkError` for Swift code of two ABIs.
    """
    flags = [int.from_bytes(data[4:8], "little") for _, data in infos]
    swift = {f & _SWIFT_ABI: name for f, (name, _) in zip(flags, infos, strict=True)}
    swift.pop(0, None)
    if len(swift) > 1:
        one, other = list(swift.values())[:2]
        raise LinkError(
            f"{one} and {other} hold Swift code of two versions, which cannot be in one program",
            help="build both with one compiler",
        )
    said = reduce(int.__or__, flags) & ~(_CLASS_PROPERTIES | _SWIFT_LANGUAGE)
    said |= reduce(int.__and__, flags) & _CLASS_PROPERTIES
    said |= max(f & _SWIFT_LANGUAGE for f in flags)
    return infos[0][1][:4] + said.to_bytes(4, "little")
