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
    said = here.follow({"CARGO_NET_OFFLINE": "false", **registry})
    assert said.count("the pipeline ended with eos\n") == 2
    for name in ("fallbackswitch", "togglerecord"):
        library = here.folder / f"build/{fixtures.host()}/release/libgst{name}.a"
        assert defined(library) == {
            f"gst_plugin_{name}_get_desc",
            f"gst_plugin_{name}_register",
        }
        assert library.stat().st_size < 4_000_000, library.stat().st_size
