"""Not a test: one worker of a training, in a process of its own, with a blow of fate if wanted.

Usage: worker_run.py RECORD.npz SIGNAL@STEP|- FLEXSEG_ARGUMENTS...

The signal (TERM or KILL) comes to this process from itself when it is about to do the step.
"""

import os
import signal
import sys

import recorded_run

from train import loop


def main(record, fate, arguments):
    """Runs the command as `recorded_run` does."""
    name, _, step = fate.partition("@")
    taught = loop.Steps.train

    def train(self, iterator, first_step, count):
        if step and first_step == int(step):
            os.kill(os.getpid(), getattr(signal, f"SIG{name}"))
        return taught(self, iterator, first_step, count)

    loop.Steps.train = train
    return recorded_run.main(record, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
