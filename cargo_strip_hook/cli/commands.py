"""What each command does: arguments in, exit code out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cargo_strip_hook.cli import options
from cargo_strip_hook.cli.console import Console, write
from cargo_strip_hook.core.errors import (
    ExportsError,
    StripHookError,
    ToolError,
    ToolFailure,
    UsageError,
)
from cargo_strip_hook.present.plain import plain

if TYPE_CHECKING:
    from cargo_strip_hook.analysis.sizes import Difference, Sizes
    from cargo_strip_hook.cargo.discover import Artefact
    from cargo_strip_hook.cargo.selection import Selection
    from cargo_strip_hook.core.requests import ExportSet, Slice
    from cargo_strip_hook.core.target import Target
    from cargo_strip_hook.exports.decide import ExportRequest


def strip(args: argparse.Namespace, console: Console) -> int:
    """`strip LIB…`."""
    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.cli.batch import run_jobs, unchanged
    from cargo_strip_hook.pipeline.outputs import File

    if args.output is not None and len(args.library) > 1:
        raise UsageError("--output takes the result of one library, and there are several")
    if args.output is not None and options.is_xcframework(args.library[0]):
        raise UsageError(
            "--output takes the result of one library, and an xcframework has several",
            help="copy the xcframework, and strip the copy",
        )
    jobs = []
    failed: list[tuple[options.Subject, StripHookError]] = []
    inputs = []
    for subject in options.subjects(args):
        try:
            target = target_of(subject.library, args.target)
        except StripHookError as e:
            failed.append((subject, e))
            continue
        jobs.append(options.job_for_file(args, subject, target))
        if subject.root is not None:
            inputs.append(File(subject.root / "Info.plist", "the list"))
    exit_code = 0
    for subject, problem in failed:
        if subject.root is not None:
            console.shell.status("Failed", str(subject.library.relative_to(subject.root)))
        console.problem(problem)
        exit_code = max(exit_code, problem.exit_code)
    # of an xcframework all libraries are replaced, or none
    bundles = {subject.root for subject, _ in failed} - {None}
    left = [job for job in jobs if job.bundle not in bundles]
    unchanged([job for job in jobs if job not in left], console)
    done = run_jobs(left, console, at_a_time=args.jobs, dry=args.dry_run, inputs=inputs)
    return max(exit_code, done)


def bare(args: argparse.Namespace, console: Console) -> int:
    """No command: what cargo-c built, or installed, for the selected packages."""
    return _strip_selection(args, options.selection_of(args), console)


def wrap(
    command: Literal["cbuild", "cinstall"],
    args: argparse.Namespace,
    cargo_args: Sequence[str],
    console: Console,
) -> int:
    """Run cargo-c, then strip what it built. A failure of cargo-c is a `ToolError`."""
    import shlex

    from cargo_strip_hook.cargo.wrap import wrap as wrapped_command
    from cargo_strip_hook.core.run import run

    wrapped = wrapped_command(command, cargo_args)
    shown = shlex.join([f"cargo-{command}", *wrapped.argv[1:]])
    if args.dry_run:
        console.shell.status("Would run", shown)
        return 0
    console.shell.detail("Running", shown)
    done = run(
        wrapped.argv,
        accept=(),
        passthrough=True,
        help="cargo-c is installed with `cargo install cargo-c`",
    )
    if done.exit_code:
        failure = ToolFailure(done.argv, done.exit_code, "", "")
        raise ToolError(f"`{shown}` failed, nothing was stripped", failure)
    selection = wrapped.selection
    if selection is None:  # it only printed something
        return 0
    if selection.library_types and "staticlib" not in selection.library_types:
        console.shell.status("Skipping", "no static library was asked for: nothing to strip")
        return 0
    return _strip_selection(args, selection, console)


def setup(args: argparse.Namespace, console: Console) -> int:
    """`setup`: with --check, exit code 1 where the hook is not active."""
    import os

    from cargo_strip_hook.cargo import setup as hook
    from cargo_strip_hook.cargo.metadata import load_workspace
    from cargo_strip_hook.cargo.selection import Selection

    workspace = load_workspace(Selection(manifest_path=args.manifest_path))
    packages = hook.hooked_packages(workspace)
    names = ", ".join(p.name for p in packages)
    if args.check:
        wrappers = hook.wrappers(workspace.root, os.environ)
        active, why = hook.state(wrappers, os.environ)
        if active:
            console.shell.status("Active", f"{why}, for {names or 'no package'}")
            return 0
        console.shell.status("Not active", why)
        return 1
    path = hook.turn_off(workspace) if args.undo else hook.turn_on(workspace, os.environ)
    if path is None:
        console.shell.status("Unchanged", str(hook.config_file(workspace.root)))
        return 0
    hook.build_again(workspace, packages)
    console.shell.status("Wrote", str(path))
    if args.undo:
        console.shell.status("Turned off", f"for {names or 'no package'}")
        return 0
    console.shell.status("Turned on", f"for {names or 'no package'}")
    sets = hook.left_alone(workspace, packages)
    for name, some in sets.items():
        console.shell.note(
            f"{', '.join(some)}: of the set `{name}`, which the hook leaves to `cargo strip-hook`"
        )
    if not packages:
        console.warning("no package of this workspace makes a static library")
    console.shell.note(
        f"a machine where `{hook.WRAPPER}` is not on PATH cannot build this workspace: to leave it "
        f"to each user, put the line into $CARGO_HOME/config.toml instead of {path}"
    )
    return 0


def check(args: argparse.Namespace, console: Console) -> int:
    """`check`: exit code 1 where there is a finding."""
    from cargo_strip_hook.analysis.check import decide_or_remember, inspect
    from cargo_strip_hook.archive import open_archive
    from cargo_strip_hook.formats.slices import about
    from cargo_strip_hook.present import messages

    exit_code = 0
    for slice_, target, request in _subjects(args, console):
        try:
            with about(slice_), open_archive(slice_) as archive:
                exports = decide_or_remember(archive, request)
                inspection = inspect(slice_, target, exports, tuple(args.against or ()))
        except StripHookError as e:
            console.problem(e)
            exit_code = max(exit_code, e.exit_code)
            continue
        console.shell.status("Checking", f"{slice_.name} ({exports.source})")
        for warning in exports.warnings:
            console.warning(warning)
        for finding in inspection.findings:
            console.shell.warning(f"{slice_.name}: {finding.message}")
            _list_symbols(finding.symbols, console)
        for note in inspection.notes:
            console.shell.note(f"{slice_.name}: {note.message}")
            if console.shell.is_verbose:
                _list_symbols(note.symbols, console)
        if console.json:
            console.send(messages.checked(inspection))
        if inspection.findings:
            exit_code = max(exit_code, 1)
    return exit_code


def _list_symbols(symbols: Sequence[str], console: Console) -> None:
    if not symbols or console.shell.is_quiet:
        return
    from cargo_strip_hook.demangle import demangle

    # demangle only the names that are shown: there may be many
    known = ((name, demangle(name)) for name in console.shown(symbols))
    console.shell.block("symbols:", [n if n == text else f"{n} ({text})" for n, text in known])


def exports(args: argparse.Namespace, console: Console) -> int:
    """`exports`: the list on stdout."""
    from cargo_strip_hook.analysis.check import decide_or_remember
    from cargo_strip_hook.archive import open_archive
    from cargo_strip_hook.formats.slices import about
    from cargo_strip_hook.present import messages

    exit_code = 0
    for slice_, _, request in _subjects(args, console):
        try:
            with about(slice_), open_archive(slice_) as archive:
                decided = decide_or_remember(archive, request)
        except StripHookError as e:
            console.problem(e)
            exit_code = max(exit_code, e.exit_code)
            continue
        console.shell.status("Exporting", f"{decided.source} ({slice_.name})")
        for warning in decided.warnings:
            console.warning(warning)
        if console.json:
            console.send(messages.exports(str(slice_.path), decided, slice_.architecture))
        else:
            _print_exports(decided, slice_.architecture, console)
    return exit_code


def report(args: argparse.Namespace, console: Console) -> int:
    """`report`: tables on stdout."""
    from cargo_strip_hook.analysis.sizes import compare_libraries, measure_library
    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.cli.progress import progress
    from cargo_strip_hook.cli.sets import survey
    from cargo_strip_hook.present import sizes as present

    if args.markdown and args.html is not None:
        raise UsageError("--markdown and --html cannot be used together")
    if args.share_with and args.other is not None:
        raise UsageError("--share-with is for a report about one library, and there are two")
    if args.html is not None:
        _must_be_free(args)
    target = target_of(args.library, args.target)
    reports: list[tuple[str, list[present.Table], present.Message]] = []
    differences: tuple[Difference, ...] = ()
    if args.other is None:
        with progress(console, "Measuring", args.library):
            sizes = measure_library(args.library, target)
            part = survey(args) if args.share_with else None
        for one in sizes:
            tables = present.tables(one, args.top)
            tables += present.shared_tables(part, args.top) if part else []
            reports.append((present.headline(one), tables, present.message(one, part)))
    else:
        other = target_of(args.other, args.target)
        with progress(console, "Measuring", args.other):
            differences = compare_libraries(args.library, target, args.other, other)
        sizes = tuple(two.after for two in differences)
        for two in differences:
            title, tables = (
                present.difference_headline(two),
                present.difference_tables(two, args.top),
            )
            reports.append((title, tables, present.difference_message(two)))
    if args.html is not None:
        _write_page(args, console, sizes, differences)
    for title, tables, message in reports:
        if console.json:
            console.send([message])
        elif args.markdown:
            console.table(present.markdown(title, tables))
        elif args.html is None:
            present.show(title, tables, color=None if args.color is None else console.shell.color)
    return 0


def _must_be_free(args: argparse.Namespace) -> None:
    """Raise `UsageError` where the page would be written over a file that is read."""
    from cargo_strip_hook.cli.options import named_of
    from cargo_strip_hook.exports.sources import named_files
    from cargo_strip_hook.pipeline.outputs import File, must_differ

    read = [(p, "a library") for p in (args.library, args.other, args.cdylib) if p is not None]
    read += [(p, "a header") for p in args.header or ()]
    read += named_files(named_of(args)).items()
    must_differ([File(args.html, "`--html`")], [File(*one) for one in read])


def _write_page(
    args: argparse.Namespace,
    console: Console,
    sizes: Sequence[Sizes],
    differences: Sequence[Difference],
) -> None:
    """Write the page of `report --html`, with the public symbols where they can be decided."""
    from itertools import zip_longest

    from cargo_strip_hook.analysis.check import decide_or_remember
    from cargo_strip_hook.archive import open_archive
    from cargo_strip_hook.formats.slices import about, slices_of
    from cargo_strip_hook.present.html import Subject, page

    library = args.other or args.library
    decided: list[ExportSet | None] = []
    for slice_, target in slices_of(library, sizes[0].target):
        request = options.request_for_file(args, options.Subject(library), target)
        try:
            with about(slice_), open_archive(slice_) as archive:
                decided.append(decide_or_remember(archive, request))
        except ExportsError as e:
            console.warning(f"the page has no public symbols: {e.what}")
            decided.append(None)
    triples = zip_longest(sizes, decided, differences)
    args.html.write_text(page([Subject(*three) for three in triples]), encoding="utf-8")
    console.shell.status("Wrote", str(args.html))


def completions(args: argparse.Namespace, console: Console) -> int:
    """`completions`: a script for a shell on stdout."""
    from cargo_strip_hook.cli.completions import script

    _write(script(args.shell), console)
    return 0


def man(_: argparse.Namespace, console: Console) -> int:
    """`man`: the page on stdout."""
    from cargo_strip_hook.cli.manual import page

    _write(page(), console)
    return 0


def _write(text: str, console: Console) -> None:
    if console.json:
        raise UsageError("this command writes no JSON")
    write(text)


def why(args: argparse.Namespace, console: Console) -> int:
    """`why`: the chain on stdout."""
    from cargo_strip_hook.analysis.why import explain_library
    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.cli.progress import progress
    from cargo_strip_hook.present import why as present

    target = target_of(args.library, args.target)
    request = options.request_for_file(args, options.Subject(args.library), target)
    with progress(console, "Resolving", args.library):
        reasons = explain_library(
            args.library, args.what, request, all_roots=args.all_roots, crate=args.crate
        )
    for reason in reasons:
        if console.json:
            console.send([present.message(reason)])
        else:
            console.table(present.text(reason))
    return 0


def _print_exports(decided: ExportSet, architecture: str, console: Console) -> None:
    """A table for people, tab-separated lines for programs; with the architecture of a slice."""
    rows = []
    for state, entries in (
        ("", decided.exports),
        ("keep", decided.keep),
        ("missing", decided.missing),
    ):
        for export in entries:
            where = ", ".join(f"{o.kind} {o.where}".strip() for o in export.origins)
            more = ", ".join(filter(None, (architecture, state)))
            rows.append((plain(export.name), plain(f"{where} ({more})" if more else where)))
    if not sys.stdout.isatty():
        console.table("".join(f"{name}\t{where}\n" for name, where in rows))
        return
    from rich.console import Console as RichConsole
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("symbol", no_wrap=True)
    table.add_column("origin", overflow="fold")
    for name, where in rows:
        table.add_row(name, where)
    RichConsole(markup=False, emoji=False, highlight=False).print(table)


def _subjects(
    args: argparse.Namespace, console: Console
) -> list[tuple[Slice, Target, ExportRequest]]:
    """The libraries of `check` and `exports`: files, or those of packages; each slice of them."""
    from dataclasses import replace

    from cargo_strip_hook.api import target_of
    from cargo_strip_hook.formats.slices import slices_of

    libraries: list[tuple[Path, Target, ExportRequest]] = []
    if args.library:
        for one in options.subjects(args):
            target = target_of(one.library, args.target)
            libraries.append((one.library, target, options.request_for_file(args, one, target)))
    else:
        for a in _find(options.selection_of(args), console):
            libraries.append((a.library, a.target, options.request_for_artefact(args, a)))
    return [
        (slice_, target, replace(request, target=target))
        for library, named, request in libraries
        for slice_, target in slices_of(library, named)
    ]


def _strip_selection(args: argparse.Namespace, selection: Selection, console: Console) -> int:
    from cargo_strip_hook.cargo.sharing import sets_of
    from cargo_strip_hook.cli.batch import run_jobs
    from cargo_strip_hook.pipeline.outputs import File

    artefacts = _find(selection, console)
    sets, alone = sets_of(artefacts, args.share, selection)
    inputs = [
        File(a.settings.baseline, "the baseline")
        for a in artefacts
        if a.settings.baseline is not None
    ]
    done = 0
    if alone:
        jobs = [options.job_for_artefact(args, artefact) for artefact in alone]
        done = run_jobs(jobs, console, at_a_time=args.jobs, dry=args.dry_run, inputs=inputs)
    if sets:
        from cargo_strip_hook.cli.sets import share_artefacts

        done = max(done, share_artefacts(args, sets, console, inputs))
    # a library that failed is as large as before
    return done if done or args.dry_run else _check_budgets(artefacts, console)


def _check_budgets(artefacts: Sequence[Artefact], console: Console) -> int:
    """Report libraries that are larger than their packages allow: 1 where there are any."""
    exit_code = 0
    for artefact in artefacts:
        settings = artefact.settings
        if settings.max_size is None and settings.max_growth is None:
            continue
        from cargo_strip_hook.analysis.budget import Budget, check_budget

        budget = Budget(settings.max_size, settings.max_growth, settings.baseline)
        try:
            check_budget(artefact.library, artefact.target, budget)
        except StripHookError as e:
            console.problem(e)
            exit_code = max(exit_code, e.exit_code)
    return exit_code


def _find(selection: Selection, console: Console) -> Sequence[Artefact]:
    from cargo_strip_hook.cargo.discover import find_libraries

    artefacts = find_libraries(selection)
    for artefact in artefacts:
        for warning in artefact.warnings:
            console.warning(warning)
        if artefact.header_expected and not artefact.headers:
            console.warning(f"package `{artefact.package}` has no header where cargo-c puts it")
    return artefacts
