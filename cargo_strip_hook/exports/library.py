"""What is public in an open library, by its index and its objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from cargo_strip_hook.archive import Archive
from cargo_strip_hook.core.requests import DefinedSymbol, ExportSet
from cargo_strip_hook.exports.decide import ExportRequest, Index, decide
from cargo_strip_hook.formats.detect import with_lowest


def decide_exports(archive: Archive, request: ExportRequest) -> ExportSet:
    """What is public in an open archive. Objects are read only where the request needs them."""

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
    """A test for names in an archive's index, which has far more names than are tested."""

    def __init__(self, index: Mapping[bytes, int]) -> None:
        self._index = index

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.encode(errors="surrogateescape") in self._index
