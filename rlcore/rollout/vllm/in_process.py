"""vLLM in the trainer's process: its scheduler, its worker and the learner share one process and one device.

Like the embedded engine it advances all requests one step at a time. Weights are copied from the learner's tensors
straight into the worker's: nothing is serialised, and there is no other process that could die.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlcore.errors import UserError, one_line
from rlcore.inside_vllm.plugin import ADAPTERS
from rlcore.ranks import present_ranks
from rlcore.recipe import schema
from rlcore.recipe.schema import LoraConfig
from rlcore.rollout.engine import RolloutEngine, Sample, Sampling, publication_metrics
from rlcore.rollout.sampling import mixed_seed
from rlcore.rollout.vllm.adapters import adapter_arguments, write_adapters
from rlcore.rollout.vllm.arguments import ENVIRONMENT, describe_model, engine_arguments, request_settings

OWN_ENVIRONMENT = {
    **ENVIRONMENT,
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine runs here, not in a child process
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""Set before vLLM is imported, unless the user has set them."""
CPU_LAUNCHER = "rlcore.inside_vllm.launcher.CpuLauncher"


class InProcessEngine(RolloutEngine):
    """Samples with vLLM from its own copy of `model`. Each rank has an engine of its own."""

    def __init__(
        self,
        section: schema.RolloutConfig,
        model: PreTrainedModel,
        path: str | None,
        stop_ids: Sequence[int],
        max_tokens: int,
        device: torch.device | None = None,
        lora: LoraConfig | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        """`path`: where `model` was loaded from; vLLM reads quantised weights there itself.

        `device`: where to sample, by default where the model lies. With `lora`, only the parameters of such adapters
        are published from here on. `tokenizer` is needed if `section.stop` has texts.

        Raises UserError if vLLM does not take the model or the settings.
        """
        for name, value in OWN_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.version = 0
        self._stop_ids = sorted(stop_ids)
        self._device = device or model.device
        self._lora = lora
        self._adapter: Any = None
        """vLLM's name for the adapters, once there are any."""
        # Publishing adapters brings back no other weights: those wait on the host.
        self._sleep_level = min(section.vllm.sleep_level, 1) if lora else section.vllm.sleep_level
        self._asleep = False
        self._metrics: dict[str, float] = {}
        self._salt = 0
        self._place = 0
        """This rank's place among those that share the engine."""
        self._requests = 0
        self._answers: dict[str, asyncio.Future[Sample]] = {}
        self._driver: asyncio.Task[None] | None = None
        quantised = getattr(model.config, "quantization_config", None) is not None
        with TemporaryDirectory(prefix="rlcore-") as folder, _own_threads():
            arguments = _engine_arguments(section, model, max_tokens, self._device, lora) | describe_model(
                model, path, Path(folder), tokenizer
            )
            self._engine = _start(arguments | section.vllm.args)
        # vLLM's own shutdown, which comes at the latest at the process's end, would end the learner's process group.
        self._engine.engine_core._finalizer.detach()
        if not quantised:
            self._load_weights((name, parameter.data) for name, parameter in model.named_parameters())

    def publish(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Copies the weights in, and wakes the engine. KV caches of earlier weights are never used again."""
        began = time.perf_counter()
        if self._asleep:
            self._engine.wake_up(["weights"])
        size = self._load_adapters(self._lora, weights) if self._lora else self._load_weights(weights)
        if self._asleep:
            self._engine.wake_up(["kv_cache"])
        self._metrics = publication_metrics(size, time.perf_counter() - began)
        self._asleep = False
        self.version = version
        self._salt += 1

    def sleep(self) -> None:
        """Frees as much memory as `sleep_level` says until weights are published. No request may be running."""
        if self._sleep_level:
            self._engine.sleep(self._sleep_level)
            self._asleep = True

    def metrics(self) -> dict[str, float]:
        return self._metrics

    def close(self) -> None:
        from vllm.distributed.parallel_state import destroy_model_parallel

        core = self._engine.engine_core.engine_core
        core.model_executor.shutdown()
        core.scheduler.shutdown()
        destroy_model_parallel()

    def _load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> int:
        """Returns the weights' bytes."""
        from rlcore.inside_vllm.loading import load_weights

        size = 0

        def counted() -> Iterator[tuple[str, torch.Tensor]]:
            nonlocal size
            for name, weight in weights:
                size += weight.nbytes
                yield name, weight

        self._engine.collective_rpc(load_weights, args=(counted(),))
        return size

    def _load_adapters(self, lora: LoraConfig, weights: Iterable[tuple[str, torch.Tensor]]) -> int:
        """Hands adapters over in a temporary folder, as vLLM's own loader wants them. Returns their bytes."""
        from vllm.lora.request import LoRARequest

        with TemporaryDirectory(prefix="rlcore-") as folder:
            size = write_adapters(Path(folder), lora, weights)
            self._engine.add_lora(LoRARequest(ADAPTERS, 1, folder, load_inplace=True))
            self._adapter = LoRARequest(ADAPTERS, 1, folder)
        return size

    async def sample(self, ids: Sequence[int], sampling: Sampling, *, key: int, last: bool) -> Sample:
        self._requests += 1
        request = f"{self._place}-{self._requests}"
        answer: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        # Every request draws from a seed of its own: that of its conversation and its place in it.
        seed = mixed_seed(sampling.seed, key, len(ids))
        self._submit(request, ids, request_settings(sampling, self._stop_ids, seed))
        self._answers[request] = answer
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await answer

    def _submit(self, name: str, ids: Sequence[int], settings: dict[str, Any]) -> None:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        prompt = tokens_input(list(ids), cache_salt=str(self._salt))
        parameters = SamplingParams(**settings, output_kind=RequestOutputKind.FINAL_ONLY)
        self._engine.add_request(name, prompt, parameters, lora_request=self._adapter)

    async def _drive(self) -> None:
        """Advances all requests until none is left; a failure is raised to all who wait."""
        try:
            with self._uncompiled():
                while self._engine.has_unfinished_requests():
                    self.steps += 1
                    for output in self._engine.step():
                        self._finish(output)
                    await asyncio.sleep(0)
        except BaseException as error:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(error)
            raise
        finally:
            self._engine.abort_request(list(self._answers))
            self._answers = {}

    def _finish(self, output: Any) -> None:
        (completion,) = output.outputs
        if completion.finish_reason not in ("stop", "length"):
            raise RuntimeError(f"vLLM ended a request with {completion.finish_reason!r}")
        ids = tuple(completion.token_ids)
        logprobs = tuple(entry[token].logprob for token, entry in zip(ids, completion.logprobs, strict=True))
        answer = self._answers.pop(output.request_id)
        if not answer.done():
            answer.set_result(Sample(ids, logprobs, completion.finish_reason, (self.version,) * len(ids)))

    @contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """On the CPU, vLLM's few compiled functions run as they are: compiling them takes seconds and a compiler."""
        if self._device.type != "cpu":
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            yield


def _engine_arguments(
    section: schema.RolloutConfig,
    model: PreTrainedModel,
    max_tokens: int,
    device: torch.device,
    lora: LoraConfig | None,
) -> dict[str, Any]:
    ranks = present_ranks(device).world
    size, on_cpu = section.vllm.tensor_parallel, device.type == "cpu"
    if ranks % size:
        raise UserError(f"rollout.vllm.tensor_parallel {size} does not divide {ranks} rank{'s' * (ranks > 1)}")
    return {
        **engine_arguments(section, model.config, model.dtype, max_tokens, on_cpu=on_cpu),
        "tensor_parallel_size": size,
        "distributed_executor_backend": (CPU_LAUNCHER if on_cpu else "external_launcher") if ranks > 1 else None,
        **({"enable_sleep_mode": section.vllm.sleep_level > 0} if device.type == "cuda" else {}),
        **(adapter_arguments(lora) if lora else {}),
    }


def _start(arguments: dict[str, Any]) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments))
    except (TypeError, ValueError) as error:
        raise UserError(f"rollout.vllm: vLLM does not start: {one_line(error)}") from None


@contextmanager
def _own_threads() -> Iterator[None]:
    """vLLM's CPU worker forbids the whole process to set its number of threads; the learner may still do so."""
    allowed = torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = allowed
