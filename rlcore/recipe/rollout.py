"""The section `rollout`: which engine samples attempts, where, and how it gets weights."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from rlcore.entries import ENGINES, Engine
from rlcore.recipe.section import Fraction, Positive, Seconds, Section, Text


class VllmConfig(Section):
    """The vLLM engine (see rlcore/rollout/README.md)."""

    tensor_parallel: Positive = Field(1, description="GPUs, or ranks in process, that share one copy of the weights")
    data_parallel: Positive = Field(1, description="copies of the weights in each server that rlcore starts")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="share of a GPU's memory for weights and KV cache; 0.9 suits the GPUs of a server"
    )
    quantization: str | None = Field(None, description="of the sampler's weights, while the learner keeps its own: fp8")
    merge_adapters: bool = Field(False, description="publish LoRA adapters merged into the weights, as QLoRA's are")
    sleep_level: Literal[0, 1, 2] = Field(
        2,
        description="what is given up during the update: 0 nothing, 1 the KV cache (weights wait on the host), 2 both",
    )
    deadline: Seconds = Field(600.0, description="seconds for a server's start, a request, a phase of a publication")
    args: dict[str, Any] = Field(default_factory=dict, description="further engine arguments: {kv_cache_dtype: fp8}")
    command: str = Field("", description='starts a server, like "vllm serve"; left out: the vLLM of this environment')
    gpus: list[str] = Field(default_factory=list, description='CUDA devices of each server that rlcore starts: ["0,1"]')
    transfer: Literal["files", "nccl", "ipc"] = Field(
        "files", description="how servers get weights: files in weights_folder, NCCL, or CUDA IPC on GPUs they share"
    )
    weights_folder: str = Field("/dev/shm", description="where servers find the weights; a shared one across machines")


class RolloutConfig(Section):
    """How attempts are sampled."""

    engine: Annotated[str, ENGINES] = "torch"
    mode: Literal["in_process", "servers"] = Field(
        "in_process", description="of vllm: an engine in each rank's process, or servers that all ranks share"
    )
    servers: list[str] = Field(default_factory=list, description="URLs of running vLLM servers")
    start_servers: NonNegativeInt = Field(0, description="servers that rlcore starts, watches and stops")
    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = Field(0, description="0: all tokens")
    min_p: Fraction = Field(0.0, description="only tokens that are at least so many times as likely as the likeliest")
    stop: list[Text] = Field(
        default_factory=list, description="texts that end a reply, as stop tokens do; rewards read what comes before"
    )
    slots: Positive = Field(512, description="sequences decoded at once by each engine, in process or a server")
    kv_memory: PositiveFloat | None = Field(
        None, description="GiB of the torch engine's KV cache, at most; left out: half of what is free as it samples"
    )
    deadline: Seconds = Field(
        1800.0, description="seconds in which no conversation ends and no engine works, until sampling is given up"
    )
    vllm: VllmConfig = VllmConfig()

    @property
    def truncated(self) -> list[str]:
        """The settings that leave tokens out, as `top_p 0.9`."""
        left_out = {"top_p": self.top_p < 1, "top_k": self.top_k > 0, "min_p": self.min_p > 0}
        return [f"{name} {getattr(self, name):g}" for name, wanted in left_out.items() if wanted]

    @property
    def entry(self) -> Engine:
        """The engine that is named, in the mode that is asked for."""
        entry = ENGINES[self.engine]
        return entry.servers if self.mode == "servers" and entry.servers else entry

    @model_validator(mode="after")
    def _fits_together(self) -> "RolloutConfig":
        given = bool(self.servers) + bool(self.start_servers)
        if self.mode == "servers" and ENGINES[self.engine].servers is None:
            raise ValueError(f"mode servers needs engine vllm, or another that can be shared: not {self.engine}")
        if self.mode == "servers" and given != 1:
            raise ValueError("mode servers needs one of servers (URLs) and start_servers (a number)")
        if self.mode == "in_process" and given:
            raise ValueError("servers and start_servers need mode servers")
        if wrong := next((url for url in self.servers if not url.startswith(("http://", "https://"))), None):
            raise ValueError(f"servers: {wrong} is no URL: give it as http://HOST:PORT")
        if len({url.rstrip("/") for url in self.servers}) < len(self.servers):
            raise ValueError("servers names one of them twice")
        if self.vllm.gpus and len(self.vllm.gpus) != self.start_servers:
            raise ValueError(f"vllm.gpus names the devices of {len(self.vllm.gpus)} servers, not {self.start_servers}")
        if self.mode == "in_process" and self.vllm.data_parallel > 1:
            raise ValueError("vllm.data_parallel needs mode servers")
        return self
