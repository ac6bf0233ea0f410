"""Where a command says what it does: lines for people on stderr, JSON for programs on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cargo_strip_hook.core.errors import StripHookError, ToolError, VerifyError
from cargo_strip_hook.present.plain import fit, json_line
from cargo_strip_hook.present.terminal import Shell

if TYPE_CHECKING:
    from cargo_strip_hook.core.requests import ExportSet
    from cargo_strip_hook.pipeline.strip import Outcome, Plan

SHOWN = 10  # lines of a list without -v


class Unwritable(OSError):
    """Stdout takes no more."""


def write(text: str) -> None:
    """Write to stdout. Raises `Unwritable`, or `BrokenPipeError` where nobody reads any more."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise Unwritable(e.errno, e.strerror) from e


@dataclass(frozen=True, slots=True)
class Console:
    """Both audiences of a command; `json` is whether the second one listens."""

    shell: Shell
    json: bool = False

    def send(self, messages: Iterable[dict[str, Any]]) -> None:
        """Write messages to stdout, one a line, where they were asked for."""
        if not self.json:
            return
        encoding = sys.stdout.encoding or "utf-8"
        write("".join(json_line(message, encoding) + "\n" for message in messages))

    def table(self, text: str) -> None:
        """Lines for people on stdout; no name in them has a control character any more."""
        write(fit(text, sys.stdout.encoding or "utf-8"))

    def warning(self, text: str) -> None:
        """A warning that belongs to no library's own message."""
        self.shell.warning(text)
        if self.json:
            from cargo_strip_hook.present import messages

            self.send([messages.warning(text)])

    def outcome(self, outcome: Outcome) -> None:
        """A library that is done."""
        from cargo_strip_hook.present import text

        if outcome.fresh:
            self.shell.status("Fresh", outcome.job.shown)
            self._sources(outcome.exports, detail=True)
        else:
            self._sources(outcome.exports)
            self.shell.status("Stripping", text.stripped(outcome))
            for line in text.slices(outcome):
                self.shell.detail("Slice", line)
            self.shell.detail("Finished", f"{outcome.output}: {text.details(outcome)}")
        for warning in outcome.warnings:
            self.shell.warning(warning)
        if self.json:
            from cargo_strip_hook.present import messages

            self.send([messages.stripped(outcome)])

    def plan(self, plan: Plan) -> None:
        """What --dry-run says of a library."""
        from cargo_strip_hook.present import text

        if plan.fresh:
            self.shell.status("Fresh", plan.job.shown)
        else:
            self.shell.status("Would strip", text.planned(plan))
        for export in plan.exports.exports:
            self.shell.detail("Exporting", export.name)
        for warning in plan.warnings:
            self.shell.warning(warning)
        if self.json:
            from cargo_strip_hook.present import messages

            self.send([messages.planned(plan)])

    def problem(self, problem: StripHookError) -> None:
        """``error:`` with all there is to it."""
        self.shell.error(problem.head)
        self.shell.more(self.shown(problem.lines))
        if isinstance(problem, VerifyError):
            self.shell.block("found:", problem.findings)
        if isinstance(problem, ToolError):
            import shlex

            from cargo_strip_hook.present import text

            failure = problem.failure
            self.shell.block("command:", [shlex.join(failure.argv)])
            if failure.exit_code is not None:
                self.shell.block(f"exit code: {failure.exit_code}", ())
            said = text.tail(failure)
            if said:
                self.shell.block("output:", said)
        self.shell.helps(problem.help)
        if self.json:
            from cargo_strip_hook.present import messages

            self.send([messages.error(problem)])

    def shown(self, lines: Sequence[str]) -> list[str]:
        """A list, cut unless -v wants all of it; what is left out is counted."""
        if self.shell.is_verbose or len(lines) <= SHOWN:
            return list(lines)
        return [*lines[:SHOWN], f"… and {len(lines) - SHOWN} more (-v lists them)"]

    def _sources(self, exports: ExportSet, *, detail: bool = False) -> None:
        say = self.shell.detail if detail else self.shell.status
        if exports.source:
            say("Exporting", exports.source)
        if exports.keep:
            say("Keeping", f"{len(exports.keep)} more symbols global")
