"""drrepro doctor: what is here, what is missing, and the remedy."""

import json
from dataclasses import asdict

import typer

from drrepro.cli.options import Debug, Json


def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say what this machine has: versions, device, threads, memory, disk, data sets, extras; with the remedy if not.

    Exits with 1 if something is bad; what is absent is only needed by those who ask for it.

    Example: drrepro doctor
    """
    from drrepro.doctor import examine

    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            line = f"{finding.name:{width}}  {finding.state:6}  {finding.found}{remedy}"
            typer.secho(line, fg={"bad": "red", "absent": "yellow"}.get(finding.state))
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
