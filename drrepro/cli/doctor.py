"""drrepro doctor: what is here, what is missing, and the remedy."""

import json
from dataclasses import asdict

import typer

from drrepro.cli.lazy import lazily
from drrepro.cli.options import Output

with lazily():
    from drrepro import doctor as library


def doctor(out: Output) -> None:
    """Say what this machine has: versions, device, threads, memory, disk, data sets, extras; with the remedy if not.

    Exits with 1 if something is bad; what is absent is only needed by those who ask for it.

    Example: drrepro doctor
    """
    findings = library.examine()
    if out.as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            line = f"{finding.name:{width}}  {finding.state:6}  {finding.found}{remedy}"
            typer.secho(line, fg={"bad": "red", "absent": "yellow"}.get(finding.state))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
