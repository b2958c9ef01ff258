"""The two ways a command can fail; each message is one line that names the file or key and the remedy."""


class UsageError(Exception):
    """Wrong arguments, configuration or input, found before any work: exit code 2."""


class RunError(Exception):
    """Something failed while running; what was computed before is kept: exit code 1."""
