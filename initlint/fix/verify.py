"""Verify edits by analysing the edited file again, and apply those that hold.

An edit holds when its findings are gone from a copy of the file that has it, all models of the file can still be
analysed, and nothing at warning level or above is there that was not there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from initlint.errors import InitlintError
from initlint.files import write_atomically
from initlint.findings import Edit, Finding, Fix, Run, Severity
from initlint.fix.copies import Trial, copies, parts
from initlint.fix.edit import EditError, clashes, edited, require_libcst, unified
from initlint.fix.plan import plan_fixes

#: Analyses targets as this run did, without the cache: gets their texts, gives the run.
Recheck = Callable[[Sequence[str]], Run]


@dataclass(slots=True)
class Proposal:
    """The edits for one or more findings that they mend together (an init function that several models share)."""

    edits: tuple[Edit, ...]
    findings: list[Finding]
    safe: bool
    refused: str = "not checked"  # why it is not applied; "" when it was verified

    @property
    def file(self) -> str:
        """The file that it changes."""
        return self.edits[0].file


def apply_fixes(
    run: Run,
    *,
    write: bool,
    unsafe: bool,
    diff: TextIO | None,
    recheck: Recheck | None = None,
    targets: Sequence[str] = (),
) -> Run:
    """Verify the planned edits, show them and apply them.

    Args:
        run: with planned edits (see ``plan_fixes``).
        write: apply what is verified; otherwise the files stay as they are.
        unsafe: apply also what changes training.
        diff: where a unified diff goes; ``None`` for none.
        recheck: analyses the edited copies; without it nothing counts as verified.
        targets: the targets of the run, analysed again after files were written.

    Returns:
        the run with its edits marked as verified or not; after writing, that of the files as they are now.

    Raises:
        UsageError: LibCST is not installed, or a file cannot be written.
    """
    require_libcst()
    proposals = _proposals(run)
    contents = _read(proposals)
    if recheck is not None:
        verify(run, proposals, contents, recheck)
    run = _marked(run, proposals)
    if diff is not None:
        _show(proposals, contents, unsafe, diff)
    if not write:
        return run
    chosen = [p for p in proposals if not p.refused and (p.safe or unsafe)]
    done = _write(run, chosen, contents, recheck)
    notes = _notes(done, proposals, unsafe)
    if done and recheck is not None and targets:
        after = plan_fixes(recheck(targets))
        run = replace(after, seconds=run.seconds + after.seconds, command=run.command)
    elif done:
        fixed = {id(finding) for proposal in done for finding in proposal.findings}
        run = replace(run, findings=tuple(f for f in run.findings if id(f) not in fixed))
    return replace(run, notes=(*run.notes, *notes))


# -- verification --------------------------------------------------------------------------------


def verify(run: Run, proposals: Sequence[Proposal], contents: dict[str, bytes], recheck: Recheck) -> None:
    """Mark the proposals that hold: all of a file at once, and one by one where that does not work out."""
    files = dict.fromkeys(p.file for p in proposals)
    together = [_compatible(p for p in proposals if p.file == file) for file in files]
    _attempt(run, together, contents, recheck)
    tried = [group[0] for group in together if len(group) == 1]
    alone = [[p] for p in proposals if p.refused and p not in tried]
    _attempt(run, alone, contents, recheck)


def _attempt(run: Run, groups: Sequence[Sequence[Proposal]], contents: dict[str, bytes], recheck: Recheck) -> bool:
    """Analyse a copy for each group of proposals, all in one go, and note in the proposals what came of it."""
    trials = [Trial(group[0].file, tuple(edit for p in group for edit in p.edits)) for group in groups]
    after = Run()
    with copies(run, trials, contents):
        texts = [text for trial in trials for text in trial.models]
        try:
            after = recheck(texts) if texts else after
        except InitlintError as error:
            for trial in trials:
                trial.problem = trial.problem or error.message
    for trial, group in zip(trials, groups, strict=True):
        problem = trial.problem or _worse(run, after, trial)
        for proposal in group:
            proposal.refused = problem or _stays(after, trial, proposal)
    return all(not p.refused for group in groups for p in group)


def _worse(run: Run, after: Run, trial: Trial) -> str:
    """What is worse with the edits than in the original; "" for nothing."""
    now = {trial.models[r.facts.target]: r.facts for r in after.models if r.facts.target in trial.models}
    for report in run.models:
        facts = report.facts
        if facts.target not in trial.models.values() or facts.status != "analysed":
            continue
        if facts.target not in now or now[facts.target].status != "analysed":
            return f"{parts(facts.target)[1]} can no longer be analysed with it"
    before = (*run.findings, *run.suppressed)
    for finding in _found(after, trial):
        if finding.severity < Severity.WARNING:
            continue
        if not any(_same(old, finding) and old.severity >= finding.severity for old in before):
            return f"it brings a new finding: {finding.code} {finding.message}"
    return ""


def _stays(after: Run, trial: Trial, proposal: Proposal) -> str:
    found = list(_found(after, trial))
    still = next((f for f in proposal.findings if any(_same(f, other) for other in found)), None)
    return f"{still.code} stays with it" if still is not None else ""


def _found(after: Run, trial: Trial) -> Iterator[Finding]:
    """The findings of the copies, with the names of the original models."""
    for finding in (*after.findings, *after.suppressed):
        if finding.model in trial.models:
            yield replace(finding, model=trial.models[finding.model])


def _same(one: Finding, other: Finding) -> bool:
    """Whether two findings are about the same thing."""
    if one.code != other.code or one.model != other.model:
        return False
    if not one.parameters and not other.parameters:
        return one.message == other.message
    return bool(set(one.parameters) & set(other.parameters))


# -- proposals -----------------------------------------------------------------------------------


def _proposals(run: Run) -> list[Proposal]:
    """The planned edits, equal ones of several models joined; the gravest first."""
    found: dict[tuple[Edit, ...], Proposal] = {}
    for finding in sorted(run.findings, key=lambda f: -f.severity):
        fix = finding.fix
        if fix is None or not fix.edits or len({edit.file for edit in fix.edits}) != 1:
            continue
        proposal = found.setdefault(fix.edits, Proposal(fix.edits, [], fix.applicability == "safe"))
        proposal.findings.append(finding)
        proposal.safe = proposal.safe and fix.applicability == "safe"
    return list(found.values())


def _compatible(proposals: Iterable[Proposal]) -> list[Proposal]:
    """The proposals that can be applied together; the first of those that want the same lines."""
    chosen: list[Proposal] = []
    for proposal in proposals:
        if not any(clashes(proposal.edits, other.edits) for other in chosen):
            chosen.append(proposal)
    return chosen


def _read(proposals: Sequence[Proposal]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for file in {p.file for p in proposals}:
        with suppress(OSError):
            contents[file] = Path(file).read_bytes()
    for proposal in proposals:
        contents.setdefault(proposal.file, b"")
    return contents


def _marked(run: Run, proposals: Sequence[Proposal]) -> Run:
    """The run with the verdicts in its findings, which the proposals then hold too."""
    verdicts = {id(f): not p.refused for p in proposals for f in p.findings}
    marked: dict[int, Finding] = {}
    for finding in run.findings:
        fix: Fix | None = finding.fix
        if fix is not None and id(finding) in verdicts:
            marked[id(finding)] = replace(finding, fix=replace(fix, verified=verdicts[id(finding)]))
    for proposal in proposals:
        proposal.findings = [marked[id(f)] for f in proposal.findings]
    return replace(run, findings=tuple(marked.get(id(f), f) for f in run.findings))


# -- output --------------------------------------------------------------------------------------


def _show(proposals: Sequence[Proposal], contents: dict[str, bytes], unsafe: bool, stream: TextIO) -> None:
    """A diff of each file; edits that do not hold follow as comments, so that the whole can be given to ``patch``."""
    for file in dict.fromkeys(p.file for p in proposals):
        mine = [p for p in proposals if p.file == file]
        good = _compatible(p for p in mine if not p.refused)
        for proposal in good:
            for finding in proposal.findings:
                stream.write(f"# {_title(finding)} ({_status(proposal, unsafe)})\n")
        if good:
            edits = [edit for p in good for edit in p.edits]
            stream.writelines(unified(file, contents[file], edited(contents[file], edits)))
        for proposal in mine:
            if proposal not in good:
                reason = proposal.refused or "another fix changes the same lines"
                stream.writelines(f"# {_title(f)} (not applied: {reason})\n" for f in proposal.findings)
                with suppress(EditError):
                    new = edited(contents[file], proposal.edits)
                    stream.writelines(f"# {line}" for line in unified(file, contents[file], new))


def _title(finding: Finding) -> str:
    place = f"{finding.site.file}:{finding.site.line}" if finding.site else finding.model
    return f"{finding.code} {place} {finding.fix.title if finding.fix else ''}".rstrip()


def _status(proposal: Proposal, unsafe: bool) -> str:
    if proposal.safe:
        return "safe, verified"
    return "changes training, verified" + ("" if unsafe else "; --fix applies it with --unsafe-fixes")


def _write(run: Run, chosen: Sequence[Proposal], contents: dict[str, bytes], recheck: Recheck | None) -> list[Proposal]:
    """Write the files; what has changed meanwhile is left alone. Returns the proposals that were applied."""
    done: list[Proposal] = []
    for file in dict.fromkeys(p.file for p in chosen):
        mine = _compatible(p for p in chosen if p.file == file)
        # what held together or alone need not hold in this combination
        if len(mine) > 1 and recheck is not None and not _attempt(run, [mine], contents, recheck):
            mine = mine[:1]
            if not _attempt(run, [mine], contents, recheck):
                continue
        new = edited(contents[file], [edit for p in mine for edit in p.edits])
        if Path(file).read_bytes() != contents[file]:
            for proposal in mine:
                proposal.refused = f"{file} changed while it was checked"
            continue
        write_atomically(Path(file), new)
        done += mine
    return done


def _notes(done: Sequence[Proposal], proposals: Sequence[Proposal], unsafe: bool) -> list[str]:
    notes = [f"fixed {_title(f)}" for p in done for f in p.findings]
    held = sum(len(p.findings) for p in proposals if not p.refused and not p.safe and p not in done)
    if held and not unsafe:
        notes.append(f"{held} more verified, but changing training: apply with --unsafe-fixes")
    for proposal in proposals:
        if proposal.refused:
            notes += [f"not fixed: {_title(f)} ({proposal.refused})" for f in proposal.findings]
    return notes
