"""What frameworks make public in the libraries that they load."""

from __future__ import annotations

# What the frameworks make public: gstreamer-rs `plugin_define!`, the Java Native Interface
# specification ("Resolving Native Method Names"), uniffi's scaffolding and its metadata.
PRESETS: dict[str, tuple[str, ...]] = {
    "gst": ("gst_plugin_*_get_desc", "gst_plugin_*_register"),
    "jni": ("Java_*", "JNI_OnLoad", "JNI_OnUnload", "JNI_OnLoad_*", "JNI_OnUnload_*"),
    "uniffi": ("uniffi_*", "ffi_*", "UNIFFI_META_*"),
}
