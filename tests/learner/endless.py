"""One rank of several that train without end; says each step. Argument: seconds a phase may take."""

import sys

from tiny import random_batch, tiny_learner

from rlcore.ranks import start_distributed
from rlcore.watchdog import enter_phase

start_distributed("cpu", float(sys.argv[1]))
learner = tiny_learner(kl_used=False)
step = 0
while True:
    step += 1
    enter_phase(f"learner of step {step}")
    learner.update(random_batch())
    print(f"step {step}", flush=True)
