"""What processes of tests would each load or work out again, for the process that they are forked from."""

import os

import torch
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

if not torch.cuda.is_available():  # DeepSpeed settles at import what accelerator it drives
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: F401
get_checkpoint_conversion_mapping("qwen2")  # compiles hundreds of patterns, once a process
