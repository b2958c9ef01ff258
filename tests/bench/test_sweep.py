import json

import pytest
from typer.testing import CliRunner

from drrepro.cli import app


@pytest.mark.long
def test_the_overhead_is_the_sweep_without_the_runs(environment):
    given = ["bench", "sweep", "--runs", "1", "--json", "--quiet"]
    rows = json.loads(CliRunner().invoke(app, given, catch_exceptions=False).stdout)
    bare, swept, overhead = (row["seconds"] for row in rows)
    assert bare > 0
    assert overhead == pytest.approx(swept - bare)
    assert not environment.exists()  # it works in a folder of its own
