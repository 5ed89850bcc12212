"""Where a run is seen while it runs: JSONL files, the console, Weights & Biases, and alarms in plain words."""

from rlcore.track.tracker import Tracker
