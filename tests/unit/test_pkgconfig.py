"""The .pc files of sets: what is read of them, and what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cargo_strip_hook.cargo.discover import Artefact
from cargo_strip_hook.cargo.pkgconfig import (
    PkgConfigMember,
    PkgConfigSet,
    field,
    requiring,
    union,
)
from cargo_strip_hook.cargo.selection import Selection
from cargo_strip_hook.cargo.settings import Settings
from cargo_strip_hook.cargo.sharing import sets_of
from cargo_strip_hook.core.errors import DiscoveryError, UsageError
from cargo_strip_hook.core.requests import Strip
from cargo_strip_hook.core.target import Target

PC = """\
prefix=/usr
libdir=${prefix}/lib

Name: one
Version: 1.0
Libs: -L${libdir} -lone
Libs.private: -lm -lc
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "Requires.private: it"),
        ("Requires.private:", "Requires.private: it"),
        ("Requires.private: a >= 1.0, b", "Requires.private: a >= 1.0, b, it"),
        ("Requires.private: it-2", "Requires.private: it-2, it"),
        ("Requires.private: a it >= 2, b", "Requires.private: a it >= 2, b"),
        ("Requires: it", "Requires: it"),
    ],
)
def test_a_file_requires_the_common_library_once(before: str, after: str) -> None:
    text = requiring(f"{PC}{before}\n" if before else PC, "it")
    assert text == f"{PC}{after}\n"
    assert requiring(text, "it") == text


def test_a_file_without_a_last_line_end() -> None:
    assert requiring("Name: one", "it") == "Name: one\nRequires.private: it\n"


def test_what_libraries_need_is_joined_in_an_order_for_linkers() -> None:
    assert union(["-lz -lm -lc", "-lpthread -lm -lc", ""]) == "-lz -lpthread -lm -lc"
    mac = ["-framework Security -lc", "-framework Foundation -framework Security"]
    assert union(mac) == "-lc -framework Foundation -framework Security"


def pc_set(folder: Path, **private: str) -> PkgConfigSet:
    members = []
    for name, value in private.items():
        path = folder / f"{name}.pc"
        path.write_text(PC.replace("one", name).replace("-lm -lc", value))
        members.append(PkgConfigMember(path, name, Path(f"lib{name}.a")))
    return PkgConfigSet(tuple(members), folder / "it.pc", "it", "1.2")


def test_the_file_of_the_common_library(tmp_path: Path) -> None:
    one = pc_set(tmp_path, one="-lz -lc\nRequires.private: two, glib-2.0 >= 2.56", two="-lm -lc")
    (path, text), *members = one.texts()
    assert path == tmp_path / "it.pc"
    assert text.startswith("prefix=/usr\nlibdir=${prefix}/lib\n\nName: it\n")
    assert "one, two" in field(text, "Description")
    assert field(text, "Version") == "1.2"
    assert field(text, "Libs") == "-L${libdir} -lit"
    assert field(text, "Libs.private") == "-lz -lm -lc"
    assert (
        field(text, "Requires.private") == "glib-2.0 >= 2.56"
    )  # no member: that would be a circle
    assert [p.name for p, _ in members] == ["one.pc", "two.pc"]
    for path, text in one.texts():
        path.write_text(text)
    assert [path.read_text() for path in one.files] == [text for _, text in one.texts()]


def test_a_file_that_names_no_libraries(tmp_path: Path) -> None:
    one = pc_set(tmp_path, one="-lc", two="")
    needs = {Path("libone.a"): ("write",), Path("libtwo.a"): ("memcpy", "one_call")}
    one.must_tell(needs, {"one_call"})
    with pytest.raises(DiscoveryError, match=r"two\.pc names no libraries") as caught:
        one.must_tell(needs, set())
    assert caught.value.lines == ("undefined: one_call",)
    assert any("cargo clean -p one -p two" in help for help in caught.value.help)


def artefact(name: str, share: str | None = None, subfolder: str = "") -> Artefact:
    return Artefact(
        package=name,
        version="1.10.0" if name == "a" else "1.9.0",
        library=Path("/usr/lib", subfolder, f"lib{name}.a"),
        target=Target.parse("x86_64-unknown-linux-gnu"),
        headers=(),
        header_expected=False,
        cdylib=None,
        crate_name=name,
        defines={},
        active_defines=(),
        settings=Settings(share=share),
        strip_default=Strip.NONE,
        warnings=(),
        is_installed=True,
        folder=Path("/usr/lib"),
        pkg_config=(Path(f"/usr/lib/pkgconfig/{name}.pc"),),
    )


def test_which_packages_are_in_which_set() -> None:
    some = [artefact("a", "x", "plugins"), artefact("b", ""), artefact("c", "x"), artefact("d")]
    (one,), alone = sets_of(some, None, Selection())
    assert [a.package for a in one.artefacts] == ["a", "c"]
    assert [a.package for a in alone] == ["b", "d"]
    assert one.common == Path("/usr/lib/libx.a")  # not among plugins
    (files,) = one.pkg_config
    assert (files.common, files.version) == (Path("/usr/lib/pkgconfig/x.pc"), "1.10.0")
    (all_of_them,), alone = sets_of(some, "y", Selection())
    assert (len(all_of_them.artefacts), alone) == (4, [])


@pytest.mark.parametrize(
    ("triple", "meson_paths", "name"),
    [
        ("x86_64-pc-windows-msvc", False, "x.lib"),
        ("x86_64-pc-windows-msvc", True, "libx.a"),
        ("x86_64-pc-windows-gnu", False, "libx.a"),
        ("aarch64-apple-darwin", False, "libx.a"),
    ],
)
def test_the_common_library_has_the_name_that_the_target_gives_it(
    triple: str, meson_paths: bool, name: str
) -> None:
    some = [replace(artefact(n), target=Target.parse(triple)) for n in "ab"]
    (one,), _ = sets_of(some, "x", Selection(meson_paths=meson_paths))
    assert one.common == Path("/usr/lib", name)


def test_sets_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="package `a` has nothing to share with"):
        sets_of([artefact("a", "x"), artefact("b")], None, Selection())
    with pytest.raises(UsageError, match=r"package `b` makes /usr/lib/libb\.a"):
        sets_of([artefact("a"), artefact("b")], "b", Selection())
    other = replace(artefact("b"), pkg_config=(Path("/usr/lib/pkgconfig/x.pc"),))
    with pytest.raises(UsageError, match=r"package `b` has the file .*x\.pc"):
        sets_of([artefact("a"), other], "x", Selection())


def test_files_of_a_build_are_two_sets() -> None:
    some = [
        replace(
            artefact(name),
            pkg_config=(Path(f"/b/{name}.pc"), Path(f"/b/{name}-uninstalled.pc")),
        )
        for name in "ab"
    ]
    (one,), _ = sets_of(some, "x", Selection())
    assert [files.common.name for files in one.pkg_config] == ["x.pc", "x-uninstalled.pc"]
    assert {files.name for files in one.pkg_config} == {"x"}
