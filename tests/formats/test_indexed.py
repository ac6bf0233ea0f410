"""What the index of an archive says of its definitions, compared with nm and the linkers' rules."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cargo_strip_hook.archive import open_archive
from cargo_strip_hook.archive.universal import read_slices
from cargo_strip_hook.core.target import Target
from cargo_strip_hook.exports.decide import ExportRequest
from cargo_strip_hook.exports.library import decide_exports
from cargo_strip_hook.formats.indexed import confirmed, indexed_names
from tests.fixtures import library
from tests.tools import need

HOST = Target.parse("x86_64-unknown-linux-gnu")


def names(path: Path) -> set[str] | None:
    with open_archive(read_slices(path)[0]) as archive:
        found = indexed_names(archive)
        return None if found is None else set(found)


def nm(path: Path) -> set[str]:
    done = subprocess.run(
        [need("llvm-nm-22"), "--defined-only", "--extern-only", "--format=just-symbols", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {line for line in done.stdout.splitlines() if line and not line.endswith(":")}


@pytest.mark.parametrize("profile", ["release", "dev"])
@pytest.mark.parametrize("name", ["imagequant-sys", "dolby_vision", "gst-plugin-fallbackswitch"])
def test_the_index_has_every_definition(name: str, profile: str) -> None:
    built = library(name, profile)
    assert names(built.library) == nm(built.library)


TEXTS = {
    "a": "int api_a(void) { return 1; } __attribute__((weak)) int api_weak(void) { return 2; }",
    "b": 'int api_common; __attribute__((visibility("hidden"))) int api_hidden(void) { return 3; }',
    "c": "static int local(void) { return 4; } extern int api_a(void);"
    " static int (*volatile used)(void) __attribute__((used)) = local;"
    " static int (*volatile other)(void) __attribute__((used)) = api_a;",
    "d": "int api_d(void) { return 5; }",
}
MODELS = {
    "64": ["--target=x86_64-linux-gnu"],
    "32": ["--target=i686-linux-gnu"],
    "big": ["--target=s390x-linux-gnu"],
    "32 big": ["--target=powerpc-linux-gnu"],
}


def objects(folder: Path, *options: str) -> dict[str, Path]:
    made = {}
    for name, text in TEXTS.items():
        (folder / f"{name}.c").write_text(text)
        made[name] = folder / f"{name}.o"
        subprocess.run(
            [need("clang-22"), *options, "-ffreestanding", "-fcommon", "-c", folder / f"{name}.c",
             "-o", made[name]],
            check=True,
        )  # fmt: skip
    return made


def append(archive: Path, member: Path) -> None:
    """Add a member behind the others, and leave the index as it was: `ar` would drop it."""
    data = member.read_bytes()
    head = f"{member.name + '/':<16}{0:<12}{0:<6}{0:<6}{644:<8}{len(data):<10}`\n"
    with archive.open("ab") as file:
        file.write(head.encode() + data + b"\n" * (len(data) % 2))


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("ar", ["ar", "llvm-ar-22"])
def test_each_kind_of_definition_and_members_without_one(
    model: str, ar: str, tmp_path: Path
) -> None:
    made = objects(tmp_path, *MODELS[model])
    archive = tmp_path / "lib.a"
    foreign = ar == "ar" and model not in ("64", "32")  # GNU ar writes no index for those
    tool = need("llvm-ar-22" if foreign else ar)
    subprocess.run([tool, "rcs", archive, made["a"], made["b"], made["c"]], check=True)
    expected = {"api_a", "api_weak", "api_common", "api_hidden"}
    assert names(archive) == expected == nm(archive)
    # what was added without a new index is not to be lost
    append(archive, made["d"])
    assert names(archive) is None


@pytest.mark.parametrize("model", list(MODELS))
def test_an_index_that_names_what_no_object_defines(model: str, tmp_path: Path) -> None:
    """Of patterns that it answers wrongly the objects are asked, as without an index."""
    made = objects(tmp_path, *MODELS[model])
    archive = tmp_path / "lib.a"
    subprocess.run([need("llvm-ar-22"), "rcs", archive, made["a"], made["d"]], check=True)
    with open_archive(read_slices(archive)[0]) as opened:
        assert confirmed(opened, ["api_a", "api_weak", "api_d"])
        assert not confirmed(opened, ["api_a", "api_common"])
    data = archive.read_bytes()
    at = data.index(b"api_d\0")
    archive.write_bytes(data[:at] + b"api_e\0" + data[at + 6 :])  # in the index alone
    with open_archive(read_slices(archive)[0]) as opened:
        assert not confirmed(opened, ["api_a", "api_e"])
        request = ExportRequest(HOST, named={"export": ("api_*",)})
        assert decide_exports(opened, request).names() == ("api_a", "api_d", "api_weak")


@pytest.mark.parametrize(("at", "size"), [(32, 4), (40, 8), (48, 2), (60, 2)])
@pytest.mark.parametrize("model", ["64", "32"])
def test_what_the_index_does_not_have_is_damaged(
    model: str, at: int, size: int, tmp_path: Path
) -> None:
    made = objects(tmp_path, *MODELS[model])
    archive = tmp_path / "lib.a"
    subprocess.run([need("ar"), "rcs", archive, made["a"]], check=True)
    data = bytearray(made["d"].read_bytes())
    data[at : at + size] = b"\xf7" * size
    made["d"].write_bytes(data)
    append(archive, made["d"])
    found = names(archive)
    assert found is None or found == {"api_a", "api_weak"}
    with open_archive(read_slices(archive)[0]) as opened:
        assert confirmed(opened, ["api_a"])


def test_other_formats_and_no_index(tmp_path: Path) -> None:
    for target in ("arm64-apple-macos", "x86_64-pc-windows-gnu"):
        folder = tmp_path / target
        folder.mkdir()
        made = objects(folder, f"--target={target}")
        subprocess.run([need("llvm-ar-22"), "rcs", folder / "lib.a", made["a"]], check=True)
        assert names(folder / "lib.a") is None
    made = objects(tmp_path)
    subprocess.run([need("llvm-ar-22"), "rcS", tmp_path / "lib.a", made["a"]], check=True)
    assert names(tmp_path / "lib.a") is None
