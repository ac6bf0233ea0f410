"""Replacing a library: links, modes, locks, and what is refused."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cargo_strip_hook.core.errors import ReplaceError
from cargo_strip_hook.replace import (
    library_lock,
    real_library,
    remove_litter,
    staging,
    staging_path,
)
from cargo_strip_hook.replace.lock import cache_folder, lock_path

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX file modes and links")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    folder.mkdir()
    path = folder / "libdemo.a"
    path.write_bytes(b"old")
    return path


def replace(library: Path, data: bytes = b"new", **where: Path) -> None:
    with staging(library, **where) as staged:
        staged.path.write_bytes(data)
        staged.commit()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_replaced_and_nothing_left(library: Path) -> None:
    replace(library)
    assert library.read_bytes() == b"new"
    assert names(library.parent) == ["libdemo.a"]


def test_not_committed(library: Path) -> None:
    with staging(library) as staged:
        staged.path.write_bytes(b"new")
        assert library.read_bytes() == b"old"
    assert library.read_bytes() == b"old"
    assert names(library.parent) == ["libdemo.a"]


def test_failure_in_the_body(library: Path) -> None:
    with pytest.raises(KeyError), staging(library) as staged:
        staged.path.write_bytes(b"new")
        raise KeyError
    assert library.read_bytes() == b"old"
    assert names(library.parent) == ["libdemo.a"]


def test_system_error_in_the_body(library: Path) -> None:
    with pytest.raises(ReplaceError, match="No space left") as caught, staging(library):
        raise OSError(errno.ENOSPC, "disk full")
    assert caught.value.help == ("the disk is full",)


@posix
def test_hard_link_is_broken(library: Path) -> None:
    """Cargo's copy in `deps/` must stay what Cargo made."""
    deps = library.with_name("deps.a")
    os.link(library, deps)
    replace(library)
    assert deps.read_bytes() == b"old"
    assert library.stat().st_nlink == deps.stat().st_nlink == 1


@posix
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o444])
def test_mode_is_kept(library: Path, mode: int) -> None:
    library.chmod(mode)
    replace(library)
    assert library.stat().st_mode & 0o7777 == mode


@posix
def test_unreadable_for_others_while_it_grows(library: Path) -> None:
    library.chmod(0o644)
    with staging(library) as staged:
        assert staged.path.stat().st_mode & 0o7777 == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_owner_is_kept(library: Path) -> None:
    os.chown(library, 12, 34)
    library.chmod(0o6755)
    replace(library)
    facts = library.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (12, 34, 0o6755)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="extended attributes of Linux")
def test_attributes_are_kept(library: Path) -> None:
    try:
        os.setxattr(library, "user.note", b"x")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    replace(library)
    assert os.getxattr(library, "user.note") == b"x"


# ---- output


def test_output_leaves_the_input_alone(library: Path, tmp_path: Path) -> None:
    before = library.stat()
    out = tmp_path / "out.a"
    replace(library, output=out)
    assert (library.read_bytes(), out.read_bytes()) == (b"old", b"new")
    after = library.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert names(library.parent) == ["libdemo.a"]
    assert staging_path(out) not in list(tmp_path.iterdir())


@posix
def test_output_mode(library: Path, tmp_path: Path) -> None:
    library.chmod(0o640)
    replace(library, output=tmp_path / "new.a")
    assert (tmp_path / "new.a").stat().st_mode & 0o7777 == 0o640
    (tmp_path / "there.a").write_bytes(b"x")
    (tmp_path / "there.a").chmod(0o604)
    replace(library, output=tmp_path / "there.a")
    assert (tmp_path / "there.a").stat().st_mode & 0o7777 == 0o604


def test_output_into_a_folder_that_is_not_there(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ReplaceError, match=r"there is no folder .*no$"):
        replace(library, output=tmp_path / "no" / "out.a")


def test_output_that_is_a_folder(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ReplaceError, match="not a regular file"):
        replace(library, output=tmp_path)


@posix
@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_output_that_is_a_device(library: Path) -> None:
    with pytest.raises(ReplaceError, match="not a regular file"):
        replace(library, output=Path("/dev/null"))


# ---- symbolic links


@posix
def test_link_within_the_tree(library: Path) -> None:
    link = library.with_name("link.a")
    link.symlink_to("libdemo.a")
    replace(link)
    assert link.is_symlink()
    assert library.read_bytes() == b"new"
    assert names(library.parent) == ["libdemo.a", "link.a"]


@posix
def test_link_out_of_the_tree(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    link = folder / "link.a"
    link.symlink_to(library)
    with pytest.raises(ReplaceError, match="outside of"):
        replace(link)
    assert library.read_bytes() == b"old"
    # a wider root allows it
    replace(link, root=tmp_path)
    assert library.read_bytes() == b"new"
    assert link.is_symlink()


@posix
def test_folder_that_is_a_link(library: Path, tmp_path: Path) -> None:
    """A target folder on another disk is common."""
    (tmp_path / "elsewhere").symlink_to(library.parent)
    replace(tmp_path / "elsewhere" / library.name)
    assert library.read_bytes() == b"new"


@posix
def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ReplaceError):
        replace(tmp_path / "a")


def test_library_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ReplaceError, match="No such file"):
        replace(tmp_path / "none.a")


def test_real_library_of_a_plain_file(library: Path) -> None:
    assert real_library(library, None) == library.resolve()


# ---- changes by others


def test_library_changed_meanwhile(library: Path) -> None:
    with pytest.raises(ReplaceError, match="was changed while"), staging(library) as staged:
        staged.path.write_bytes(b"new")
        library.write_bytes(b"newer build")
        staged.commit()
    assert library.read_bytes() == b"newer build"
    assert names(library.parent) == ["libdemo.a"]


def test_library_of_the_same_size_and_time(library: Path) -> None:
    facts = library.stat()
    with pytest.raises(ReplaceError, match="was changed while"), staging(library) as staged:
        other = library.with_name("other")
        other.write_bytes(b"OLD")
        os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        other.replace(library)
        staged.commit()


def test_library_removed_meanwhile(library: Path) -> None:
    with pytest.raises(ReplaceError, match="was changed while"), staging(library) as staged:
        library.unlink()
        staged.commit()
    assert names(library.parent) == []


def test_input_changed_meanwhile_with_output(library: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ReplaceError, match="was changed while"),
        staging(library, output=tmp_path / "out.a") as staged,
    ):
        library.write_bytes(b"newer build")
        staged.commit()
    assert not (tmp_path / "out.a").exists()


# ---- litter


def test_litter_of_a_killed_run(library: Path) -> None:
    staging_path(library).write_bytes(b"half")
    replace(library)
    assert names(library.parent) == ["libdemo.a"]
    staging_path(library).write_bytes(b"half")
    remove_litter(library)
    assert names(library.parent) == ["libdemo.a"]
    remove_litter(library)


@posix
def test_planted_link_is_not_followed(library: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    staging_path(library).symlink_to(victim)
    replace(library)
    assert victim.read_bytes() == b"precious"


def test_long_name(tmp_path: Path) -> None:
    path = tmp_path / ("l" * 253 + ".a")
    path.write_bytes(b"old")
    replace(path)
    assert path.read_bytes() == b"new"
    assert staging_path(path) == staging_path(path)
    assert staging_path(path) != staging_path(path.with_name("m" * 253 + ".a"))


# ---- locks


def test_lock_lies_in_the_cache(library: Path, cache: Path) -> None:
    with library_lock(library):
        assert names(library.parent) == ["libdemo.a"]
        assert [p.suffix for p in (cache / "cargo-strip-hook" / "locks").iterdir()] == [".lock"]


HOLD = """
import sys, time
from pathlib import Path
from cargo_strip_hook.replace import library_lock
with library_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock until it is told to end."""
    argv = [sys.executable, "-c", HOLD, str(path)]
    other = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def test_second_run_waits(library: Path) -> None:
    with hold(library) as other:
        with (
            pytest.raises(ReplaceError, match="by another process"),
            library_lock(library, timeout=0.1),
        ):
            pass
        with library_lock(library.with_name("other.a"), timeout=0.1):
            pass
        other.communicate("\n")
    with library_lock(library, timeout=0.1):
        pass


@posix
def test_lock_by_any_path(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = library.with_name("link.a")
    link.symlink_to(library)
    monkeypatch.chdir(library.parent)
    cache = cache_folder()
    paths = [library, link, Path("libdemo.a"), library.parent / ".." / "lib" / "libdemo.a"]
    assert len({lock_path(p, cache) for p in paths}) == 1


def test_killed_holder_leaves_no_lock(library: Path) -> None:
    with hold(library) as other:
        other.kill()
        other.wait()
        begin = time.monotonic()
        with library_lock(library, timeout=5):
            assert time.monotonic() - begin < 4


@posix
def test_no_home(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build systems set HOME to a folder that cannot be made."""
    blocker = tmp_path / "file"
    blocker.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocker / "cache"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with library_lock(library):
        assert [p.name for p in temporary.iterdir()] == [f"cargo-strip-hook-{os.getuid()}"]
    monkeypatch.setattr("tempfile.tempdir", str(blocker))
    with pytest.raises(ReplaceError, match="no lock") as caught, library_lock(library):
        pass
    assert "XDG_CACHE_HOME" in caught.value.help[0]


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"HOME": "/h"}, "/h/.cache/cargo-strip-hook"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/cargo-strip-hook"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "c"}, "/h/.cache/cargo-strip-hook"),
        ("darwin", {"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/h/Library/Caches/cargo-strip-hook"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/cargo-strip-hook/Cache"),
    ],
)
@posix
def test_cache_folder(platform: str, environment: dict[str, str], expected: str) -> None:
    assert cache_folder(environment, platform) == Path(expected)
