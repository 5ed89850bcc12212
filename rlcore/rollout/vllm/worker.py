"""What runs inside vLLM's worker processes: takes weights over from a mapped file (see `shared_weights`).

vLLM finds it through the plugin entry point `rlcore`, as the weight-transfer backend of that name.
"""

from dataclasses import asdict, dataclass
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.lora.request import LoRARequest
from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

from rlcore.rollout.vllm.adapters import ADAPTERS
from rlcore.rollout.vllm.loading import replace_weights
from rlcore.rollout.vllm.shared_weights import mapped_weights


@dataclass
class SharedWeightsInit(WeightTransferInitInfo):
    """There is nothing to set up."""


@dataclass
class SharedWeightsUpdate(WeightTransferUpdateInfo):
    """What `SharedWeights.write` returns."""

    path: str
    size: int
    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    offsets: list[int]


class SharedWeightsEngine(WeightTransferEngine[SharedWeightsInit, SharedWeightsUpdate]):
    """Loads one whole file of weights in one update, so that no update can end halfway between two calls."""

    init_info_cls = SharedWeightsInit
    update_info_cls = SharedWeightsUpdate

    def init_transfer_engine(self, init_info: SharedWeightsInit) -> None:
        pass

    def start_weight_update(self) -> None:
        pass

    def receive_weights(self, update_info: SharedWeightsUpdate) -> None:
        """Raises ValueError for a file that is not whole, before anything is changed, and for missing weights."""
        weights = mapped_weights(**asdict(update_info))
        with disable_mtp_completeness_check():
            replace_weights(self.model, self.model_config, weights)

    def finish_weight_update(self) -> None:
        pass

    def shutdown(self) -> None:
        pass


class WorkerExtension:
    """What vLLM's workers can be asked for besides, as methods of theirs."""

    def load_adapters(self: Any, folder: str) -> None:
        """Replaces the adapters that the server was told of by those in `folder`, for running requests too.

        vLLM's own route for that would have each request load them again at each step. Raises ValueError where it was
        told of none, and for adapters that do not fit the model, before anything is changed.
        """
        (number,) = self.list_loras()
        self.add_lora(LoRARequest(ADAPTERS, number, folder, load_inplace=True))
