"""What the jobs of this machine are forked from: imported in that process, which does nothing else, and only there."""

import os
import signal

import drrepro.experiments.job  # noqa: F401  what every job needs, imported once

os.setsid()  # what is sent to the sweep's process group is for the sweep, which stops its jobs
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when the sweep has; without it nobody hears of the jobs
