"""JUnit XML: one test suite for each model; a case for each finding, each sound layer and each open question."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from initlint.emit.common import Options, clean, place, relative
from initlint.emit.style import Style
from initlint.emit.text_findings import finding_lines
from initlint.emit.view import OK, UNDETERMINED, findings_of, listing, outcomes, undetermined_reasons, unplaced
from initlint.findings import Finding, ModelReport, Run, Severity

# Everything that is no Char of XML 1.0, section 2.2.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(run: Run, options: Options) -> str:
    """The document. Findings at or above ``fail_on`` are failures; below it they pass and are told in system-out."""
    root = ET.Element("testsuites", name="initlint", time=f"{run.seconds:.3f}")
    for report in run.models:
        _suite(root, run, report, options)
    loose = unplaced(run)
    if loose:
        suite = _new_suite(root, "initlint", "")
        for finding in loose:
            _finding(suite, finding, run.fail_on, options)
    for entry in run.not_analysed:
        if not entry.harmless:
            suite = _new_suite(root, entry.target, entry.file)
            case = _case(suite, "not analysed", entry.target)
            kind = "error" if entry.named else "skipped"
            ET.SubElement(case, kind, message=_legal(f"{entry.reason} {entry.hint}".strip()))
    _count(root)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(root: ET.Element, run: Run, report: ModelReport, options: Options) -> None:
    facts = report.facts
    suite = _new_suite(root, facts.target, facts.file)
    suite.set("time", f"{facts.seconds:.3f}")
    findings = findings_of(run, report)
    for finding in findings:
        _finding(suite, finding, run.fail_on, options)
    states = outcomes(report, findings)
    for row in report.rows:
        if states[row.name][0] == OK:
            _case(suite, f"layer {row.name}", facts.target)
        elif states[row.name][0] == UNDETERMINED:
            case = _case(suite, f"layer {row.name}", facts.target)
            ET.SubElement(case, "skipped", message=_legal(f"undetermined: {row.undetermined}"))
    for reason, codes, count in undetermined_reasons(report.undetermined):
        case = _case(suite, f"{', '.join(codes)} undetermined: {reason}", facts.target)
        ET.SubElement(case, "skipped", message=_legal(f"{reason} ({count})"))
    if facts.status == "failed":
        case = _case(suite, "analysis", facts.target)
        ET.SubElement(case, "error", message=_legal(facts.reason))


def _finding(suite: ET.Element, finding: Finding, fail_on: Severity | None, options: Options) -> None:
    what = listing(finding.layers or finding.parameters, 2)
    case = _case(suite, f"{finding.code} {finding.name}: {what}".rstrip(": "), finding.model)
    if finding.site is not None and finding.site.file:
        case.set("file", _legal(relative(finding.site.file)))
        case.set("line", str(finding.site.line))
    plain = Options(width=options.width, sources=options.sources)
    text = _legal("\n".join(finding_lines(finding, plain, Style())))
    if fail_on is not None and finding.severity >= fail_on:
        message = f"{place(finding)}: {finding.severity.label} {finding.code} {clean(finding.message)}"
        failure = ET.SubElement(case, "failure", message=_legal(message), type=_legal(finding.code))
        failure.text = text
    else:
        ET.SubElement(case, "system-out").text = text


def _new_suite(root: ET.Element, name: str, file: str) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", name=_legal(name))
    if file:
        suite.set("file", _legal(relative(file)))
    return suite


def _case(suite: ET.Element, name: str, model: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", name=_legal(name), classname=_legal(model or "initlint"))


def _count(root: ET.Element) -> None:
    for element in (*root, root):
        element.set("tests", str(len(list(element.iter("testcase")))))
        for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            element.set(attribute, str(len(list(element.iter(tag)))))


def _legal(text: str) -> str:
    """The text without what XML forbids or what would act in a terminal."""
    return _ILLEGAL.sub("\ufffd", "\n".join(map(clean, text.split("\n"))))
