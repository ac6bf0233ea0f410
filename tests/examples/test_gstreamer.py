"""Two published GStreamer plugins, each stripped by the workspace's preset."""

from __future__ import annotations

from pathlib import Path

from tests import fixtures
from tests.examples.kit import defined, example, need_heavy
from tests.tools import need


def test_plugins(tmp_path: Path) -> None:
    need("pkg-config")
    need_heavy("cargo-cbuild")
    here = example("gstreamer", tmp_path)
    # The crates are fetched; the registry of plugins is not the developer's own.
    registry = {"GST_REGISTRY": str(tmp_path / "registry.bin"), "GST_REGISTRY_FORK": "no"}
    environment = {"CARGO_NET_OFFLINE": "false", **registry}
    said = here.follow(environment)
    assert said.count("the pipeline ended with eos\n") == 2
    for name in ("fallbackswitch", "togglerecord"):
        library = here.folder / f"build/{fixtures.host()}/release/libgst{name}.a"
        assert defined(library) == {
            f"gst_plugin_{name}_get_desc",
            f"gst_plugin_{name}_register",
        }
        assert library.stat().st_size < 4_000_000, library.stat().st_size
    # the same plugins as a set; cargo-c builds them again, since the libraries have changed
    alone = sum(p.stat().st_size for p in here.folder.glob("build/*/release/libgst*.a"))
    said = here.follow(environment, number=1)
    assert said.count("the pipeline ended with eos\n") == 2
    plugins = sorted((here.folder / "stage/lib/gstreamer-1.0").glob("*.a"))
    common = here.folder / "stage/lib/libgstrust.a"  # not among plugins
    assert [p.name for p in plugins] == ["libgstfallbackswitch.a", "libgsttogglerecord.a"]
    assert sum(p.stat().st_size for p in (*plugins, common)) < alone
    text = (here.folder / "stage/lib/pkgconfig/gstrust.pc").read_text()
    assert "Requires.private: gstreamer-1.0, gstreamer-base-1.0" in text
