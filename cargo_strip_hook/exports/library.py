"""What is public in an open library: its index and its objects answer what the sources ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.requests import DefinedSymbol, ExportSet
from cargo_strip_hook.exports.decide import ExportRequest, Index, decide
from cargo_strip_hook.formats.detect import with_lowest


def decide_exports(archive: Archive, request: ExportRequest) -> ExportSet:
    """What is public in an open archive; its objects are only read where the request needs it."""

    def defined() -> Mapping[str, DefinedSymbol]:
        from cargo_strip_hook.formats.summary import defined_symbols

        return defined_symbols(archive)

    if request.headers:
        request = replace(request, target=with_lowest(archive, request.target))

    def listed() -> Collection[str] | None:
        from cargo_strip_hook.formats.indexed import indexed_names

        return indexed_names(archive)

    def confirmed(names: Collection[str]) -> bool:
        from cargo_strip_hook.formats import indexed

        return indexed.confirmed(archive, names)

    names = archive.symbols()
    index = None if names is None else Index(lambda: _Names(names), listed, confirmed)
    return decide(request, defined, index)


class _Names:
    """An archive's index, asked for names; it has far more of them than are ever asked for."""

    def __init__(self, index: Mapping[bytes, int]) -> None:
        self._index = index

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.encode(errors="surrogateescape") in self._index
