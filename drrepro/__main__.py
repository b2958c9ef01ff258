"""Entry point: run the command line and turn errors into one line and an exit code."""

import sys


def main() -> None:
    """Run `drrepro`; exit 0 when done, 1 when something failed while running, 2 for wrong usage or input."""
    from drrepro.cli import app, line
    from drrepro.errors import RunError, UsageError

    try:
        app()
    except (UsageError, RunError, OSError) as error:
        if line.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of a KeyboardInterrupt
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        raise
    except Exception as error:
        if line.debug:
            raise
        print(f"error: {type(error).__name__}: {error} (a bug; --debug shows where)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
