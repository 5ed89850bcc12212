"""How vLLM starts in processes that torchrun started, where there is no GPU. vLLM imports it by its name."""

import os

from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher


class CpuLauncher(ExecutorWithExternalLauncher):
    """Ranks that share an engine on the CPU speak by gloo.

    Else they speak through memory whose name is the same for all engines of a machine, and which a process that is
    killed leaves behind: the next one then does not start. vLLM takes it only where ranks agree on the name.
    """

    def _distributed_args(self) -> tuple[str, int, int]:
        _, rank, local_rank = super()._distributed_args()
        return f"env://:{os.getpid()}", rank, local_rank
