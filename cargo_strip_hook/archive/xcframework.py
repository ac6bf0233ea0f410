"""The libraries of an xcframework: a folder for each platform, listed in Info.plist.

Source: Xcode's documentation, "Creating a multiplatform binary framework bundle", and the keys
that `xcodebuild -create-xcframework` writes.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cargo_strip_hook.core.errors import InputError
from cargo_strip_hook.core.files import read_bytes

# what plistlib raises for damaged files, besides its own error and that of expat
_NO_PLIST = (
    *(ValueError, LookupError, OverflowError, AttributeError, RecursionError, TypeError),
    struct.error,
)
_OF_PLATFORMS = (
    "LibraryIdentifier",
    "SupportedArchitectures",
    "SupportedPlatform",
    "SupportedPlatformVariant",
)
_HEADERS = frozenset({".h", ".hh", ".hpp", ".hxx"})


@dataclass(frozen=True, slots=True)
class Variant:
    """The library for one platform, and the headers that come with it (sorted by path)."""

    identifier: str
    library: Path
    headers: tuple[Path, ...]


def is_xcframework(path: Path) -> bool:
    """Whether a path names the folder of an xcframework."""
    return path.is_dir() and (path.suffix == ".xcframework" or _plist(path).is_file())


def variants(folder: Path) -> tuple[Variant, ...]:
    """The variants in the order of Info.plist. Raises `InputError` where that is damaged."""
    import plistlib
    from xml.parsers.expat import ExpatError

    file = _plist(folder)
    try:
        # from memory: given a file, plistlib would allocate as much as a damaged size says
        content = plistlib.loads(read_bytes(file))
    except OSError as e:
        raise InputError(f"cannot be read: {e.strerror}", path=str(file)) from e
    except (*_NO_PLIST, ExpatError) as e:
        raise InputError(f"no property list: {e}", path=str(file)) from e
    listed = content.get("AvailableLibraries") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise InputError("it lists no libraries (AvailableLibraries)", path=str(file))
    try:
        return tuple(_variant(folder, file, entry) for entry in listed)
    except OSError as e:  # a name that is too long, or links in a circle
        raise InputError(
            f"a folder that it lists cannot be read: {e.strerror}", path=str(file)
        ) from e


def _plist(folder: Path) -> Path:
    return folder / "Info.plist"


def _variant(folder: Path, file: Path, entry: Any) -> Variant:
    def text(key: str) -> str | None:
        value = entry.get(key) if isinstance(entry, dict) else None
        if value is None:
            return None
        path = PurePosixPath(value if isinstance(value, str) else "/")
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise InputError(f"{key} is no path inside of the xcframework", path=str(file))
        return str(path)

    identifier, library = text("LibraryIdentifier"), text("LibraryPath")
    if identifier is None or library is None:
        raise InputError("a library has no LibraryIdentifier or no LibraryPath", path=str(file))
    variant_folder = folder / identifier
    binary = variant_folder / library
    if binary.suffix == ".framework":
        binary = variant_folder / (text("BinaryPath") or f"{library}/{binary.stem}")
        headers = variant_folder / library / "Headers"
    else:
        headers = variant_folder / (text("HeadersPath") or "Headers")
    _must_be_inside(headers, folder)
    header_files = sorted(p for p in headers.rglob("*") if p.suffix in _HEADERS and p.is_file())
    for header in header_files:
        _must_be_inside(header, folder)
    return Variant(identifier, binary, tuple(header_files))


def _must_be_inside(path: Path, folder: Path) -> None:
    try:
        real = path.resolve()
        if real.is_relative_to(folder.resolve()):
            return
    except (OSError, RuntimeError) as e:  # links in a circle
        raise InputError(f"cannot be found: {e}", path=str(path)) from e
    raise InputError(
        f"a symbolic link leads out of the xcframework, to {real}",
        path=str(path),
        help="copy what it links to into the xcframework",
    )


def signed(file: Path) -> Path | None:
    """The signed bundle that a file is in, whose signature a change of the file makes invalid.

    Source: Apple's technical note TN2206, "macOS Code Signing In Depth": what a bundle's signature
    says of its files is in `_CodeSignature/CodeResources`.
    """
    for path in (file.absolute(), file.resolve()):
        for folder in path.parents:
            if os.path.lexists(folder / "_CodeSignature"):
                return folder
    return None


def listing_like(folder: Path, library: str) -> bytes:
    """The Info.plist of an xcframework with one library of this name for each variant of `folder`.

    There are no headers. Raises `InputError` where that of `folder` is damaged.
    """
    import plistlib

    variants(folder)  # which is damaged, or has all that is asked for here
    content = plistlib.loads(read_bytes(_plist(folder)))
    entries = []
    for old in content["AvailableLibraries"]:
        entry = {key: old[key] for key in _OF_PLATFORMS if key in old}
        entries.append({**entry, "BinaryPath": library, "LibraryPath": library})
    made = {
        "AvailableLibraries": entries,
        "CFBundlePackageType": "XFWK",
        "XCFrameworkFormatVersion": "1.0",
    }
    return plistlib.dumps(made)
