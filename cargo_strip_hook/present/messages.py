"""The results of a run as JSON: one object a line, each with a `reason`. Schema: schema.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cargo_strip_hook.core.errors import StripHookError, ToolError, VerifyError
from cargo_strip_hook.core.requests import Export, ExportSet

if TYPE_CHECKING:
    from cargo_strip_hook.analysis.check import Inspection
    from cargo_strip_hook.pipeline.sharing import SetOutcome
    from cargo_strip_hook.pipeline.strip import Job, Outcome, Plan

Message = dict[str, Any]


def stripped(outcome: Outcome) -> Message:
    """A library that is done; `fresh` where it was done before."""
    seconds = {name: round(value, 6) for name, value in asdict(outcome.seconds).items()}
    message: Message = {
        "reason": "stripped",
        **_job(outcome.job),
        "output": str(outcome.output),
        "fresh": outcome.fresh,
        "before": outcome.before,
        "after": outcome.after,
        **_public(outcome.exports),
        "undefined": list(outcome.undefined),
        "statistics": asdict(outcome.statistics),
        "seconds": seconds,
        "warnings": list(outcome.warnings),
    }
    if outcome.slices:
        message["slices"] = [
            {
                "architecture": one.architecture,
                "target": one.target.triple,
                "fresh": one.fresh,
                "before": one.before,
                "after": one.after,
                "exports": [e.name for e in one.exports.exports],
                "undefined": list(one.undefined),
                "statistics": asdict(one.statistics),
            }
            for one in outcome.slices
        ]
    return message


def planned(plan: Plan) -> Message:
    """What --dry-run would have done."""
    message: Message = {
        "reason": "planned",
        **_job(plan.job),
        "output": str(plan.job.output or plan.job.library),
        "fresh": plan.fresh,
        "before": plan.before,
        **_public(plan.exports),
        "warnings": list(plan.warnings),
    }
    slices = [
        {
            "architecture": one.slice.architecture,
            "target": one.target.triple,
            "fresh": one.fresh,
            "before": one.slice.size or 0,
            "exports": [e.name for e in one.exports.exports],
        }
        for one in plan.slices
        if one.slice.architecture
    ]
    return {**message, "slices": slices} if slices else message


def shared(outcome: SetOutcome, *, dry: bool) -> list[Message]:
    """Each library of a set, and the common one; of a dry run what would be shared."""
    found: list[Message] = []
    for part in outcome.parts:
        parts = part.parts
        message: Message = {
            "reason": "shareable" if dry else "shared",
            "library": str(part.job.library),
            "target": part.job.target.triple,
            "strip": part.job.strip.value,
            "granularity": part.job.granularity.value,
            "output": str(part.output),
            "common": str(outcome.job.common),
            "fresh": outcome.fresh,
            "before": part.before,
            "exports": list(part.exports),
            "with": [{"others": n, "size": size} for n, size in (parts.shared if parts else ())],
            "kept": [asdict(one) for one in (parts.kept if parts else ())],
            "warnings": list(part.warnings),
        }
        if not dry:
            message |= {"after": part.after, "undefined": list(part.undefined)}
        found.append(message)
    if not dry:
        found.append(
            {
                "reason": "common",
                "output": str(outcome.job.common),
                "fresh": outcome.fresh,
                "size": outcome.common,
                "seconds": round(outcome.seconds, 6),
            }
        )
    return found


def joined(outcome: SetOutcome) -> Message:
    """Libraries that became one."""
    parts = outcome.parts
    return {
        "reason": "joined",
        "libraries": [str(part.job.library) for part in parts],
        "target": outcome.job.target.triple,
        "strip": outcome.job.strip.value,
        "granularity": outcome.job.granularity.value,
        "output": str(outcome.job.common),
        "before": sum(part.before for part in parts),
        "after": outcome.common,
        "exports": sorted(name for part in parts for name in part.exports),
        "undefined": sorted({name for part in parts for name in part.undefined}),
        "warnings": list(dict.fromkeys(w for part in parts for w in part.warnings)),
        "seconds": round(outcome.seconds, 6),
    }


def exports(library: str, decided: ExportSet, architecture: str = "") -> list[Message]:
    """Each public symbol of a library, or of a slice of it, and why it is public."""

    def message(export: Export, state: str) -> Message:
        return {
            "reason": "export",
            "library": library,
            **_slice(architecture),
            "symbol": export.name,
            "state": state,
            "origins": [{"kind": o.kind, "where": o.where} for o in export.origins],
        }

    return [
        *(message(e, "export") for e in decided.exports),
        *(message(e, "keep") for e in decided.keep),
        *(message(e, "missing") for e in decided.missing),
    ]


def checked(inspection: Inspection) -> list[Message]:
    """What `check` found, one message for each, and one that sums up."""
    library = str(inspection.library)
    messages: list[Message] = [
        {
            "reason": "finding",
            "library": library,
            **_slice(inspection.architecture),
            "kind": finding.kind,
            "severity": finding.severity,
            "message": finding.message,
            "symbols": list(finding.symbols),
        }
        for finding in inspection.all()
    ]
    messages.append(
        {
            "reason": "checked",
            "library": library,
            **_slice(inspection.architecture),
            "target": inspection.target.triple,
            "findings": len(inspection.findings),
            "notes": len(inspection.notes),
        }
    )
    return messages


def warning(text: str) -> Message:
    """A warning that is not part of another message."""
    return {"reason": "warning", "message": text}


def error(problem: StripHookError) -> Message:
    """A failure, with the output of an external program."""
    message: Message = {
        "reason": "error",
        "kind": type(problem).__name__,
        "message": problem.what,
        "help": list(problem.help),
    }
    if isinstance(problem, VerifyError):
        message["findings"] = list(problem.findings)
    if isinstance(problem, ToolError):
        failure = problem.failure
        message["tool"] = {
            "argv": list(failure.argv),
            "exit-code": failure.exit_code,
            "stdout": failure.stdout,
            "stderr": failure.stderr,
        }
    return message


def finished(exit_code: int) -> Message:
    """The last line of every run."""
    return {"reason": "finished", "success": exit_code == 0}


def _slice(architecture: str) -> Message:
    """The architecture, where a slice of a universal library is meant."""
    return {"architecture": architecture} if architecture else {}


def _public(exports: ExportSet) -> Message:
    return {
        "source": exports.source,
        "exports": [e.name for e in exports.exports],
        "keep": [e.name for e in exports.keep],
        "missing": [e.name for e in exports.missing],
    }


def _job(job: Job) -> Message:
    return {
        "library": str(job.library),
        "target": job.target.triple,
        "engine": job.engine,
        "strip": job.strip.value,
        "granularity": job.granularity.value,
        "compress-debug": job.compress_debug.value,
    }
