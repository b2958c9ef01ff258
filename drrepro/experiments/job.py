"""One run of a sweep, in a process of its own: python -m drrepro.experiments.job RUN_FOLDER DATA_FOLDER."""

import sys
from pathlib import Path

from drrepro.config import load_config
from drrepro.console import progress
from drrepro.distributed import rank
from drrepro.errors import RunError, UsageError
from drrepro.experiments.run import run
from drrepro.runs.folder import RunFolder
from drrepro.runs.states import write_error


def main(directory: Path, data_folder: Path) -> int:
    """Carry out the run that config.yaml in ``directory`` describes; return 0, 1 for failed, 130 for interrupted.

    The reason of a failure is left in status.json, where the sweep looks for it.
    """
    try:
        with progress(quiet=rank() > 0) as report:
            run(load_config(RunFolder(directory).config), directory.parent, data_folder, report)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        write_error(directory, error)
        if not isinstance(error, RunError | UsageError):
            raise  # its traceback belongs in the log
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
