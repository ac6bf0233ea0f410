"""What a command says: lines for people on stderr, JSON for programs on stdout."""

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
    from cargo_strip_hook.pipeline.sharing import SetOutcome
    from cargo_strip_hook.pipeline.strip import Outcome, Plan

SHOWN = 10  # lines of a list without -v


class Unwritable(OSError):
    """Stdout cannot be written."""


def write(text: str) -> None:
    """Write to stdout. Raises `Unwritable`, or `BrokenPipeError` where the reader is gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise Unwritable(e.errno, e.strerror) from e


@dataclass(frozen=True, slots=True)
class Console:
    """Both outputs of a command; `json` is whether the second one is wanted."""

    shell: Shell
    json: bool = False

    def send(self, messages: Iterable[dict[str, Any]]) -> None:
        """Write messages to stdout, one a line, where JSON was asked for."""
        if not self.json:
            return
        encoding = sys.stdout.encoding or "utf-8"
        write("".join(json_line(message, encoding) + "\n" for message in messages))

    def table(self, text: str) -> None:
        """Write lines for people to stdout; names in them must have no control characters."""
        write(fit(text, sys.stdout.encoding or "utf-8"))

    def warning(self, text: str) -> None:
        """Say a warning that is not part of another message."""
        self.shell.warning(text)
        if self.json:
            from cargo_strip_hook.present import messages

            self.send([messages.warning(text)])

    def outcome(self, outcome: Outcome) -> None:
        """Say that a library is done."""
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
        """Say what a run would do, for --dry-run."""
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

    def shared(self, outcome: SetOutcome, *, dry: bool) -> None:
        """A set that is done, or what --dry-run says of it."""
        from cargo_strip_hook.present import text

        for part in outcome.parts:
            if outcome.fresh:
                self.shell.status("Fresh", part.job.shown)
                continue
            said = text.would_share(part) if dry else text.shared(part)
            self.shell.status("Would share" if dry else "Sharing", said)
            for line in () if dry else text.shared_with(part):
                self.shell.detail("Shared", line)
            say = self.shell.status if dry else self.shell.detail
            for line in self.shown(text.not_shared(part)):
                say("Keeping", line)
            for warning in part.warnings:
                self.shell.warning(warning)
        if not dry:
            said = text.common(outcome)
            self.shell.status("Fresh" if outcome.fresh else "Common", said)
        if self.json:
            from cargo_strip_hook.present import messages

            self.send(messages.shared(outcome, dry=dry))

    def joined(self, outcome: SetOutcome) -> None:
        """Libraries that became one."""
        from cargo_strip_hook.present import text

        self.shell.status("Joining", text.joined(outcome))
        for warning in dict.fromkeys(w for part in outcome.parts for w in part.warnings):
            self.shell.warning(warning)
        if self.json:
            from cargo_strip_hook.present import messages

            self.send([messages.joined(outcome)])

    def problem(self, problem: StripHookError) -> None:
        """Say an error with all its details."""
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
        """The lines, or without -v the first of them and how many more there are."""
        if self.shell.is_verbose or len(lines) <= SHOWN:
            return list(lines)
        return [*lines[:SHOWN], f"… and {len(lines) - SHOWN} more (-v lists them)"]

    def _sources(self, exports: ExportSet, *, detail: bool = False) -> None:
        say = self.shell.detail if detail else self.shell.status
        if exports.source:
            say("Exporting", exports.source)
        if exports.keep:
            say("Keeping", f"{len(exports.keep)} more symbols global")
