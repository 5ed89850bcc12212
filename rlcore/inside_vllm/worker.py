"""Takes weights over from a mapped file (see `shared_weights`), inside vLLM's worker processes.

vLLM finds it through the plugin entry point `rlcore`, as the weight-transfer backend of that name.
"""

from dataclasses import asdict, dataclass
from typing import Any

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.mtp_validation import disable_mtp_completeness_check

from rlcore.inside_vllm.loading import Replacement
from rlcore.inside_vllm.mapped_files import MappedFiles


@dataclass
class SharedWeightsInit(WeightTransferInitInfo):
    """There is nothing to set up."""


@dataclass
class SharedWeightsUpdate(WeightTransferUpdateInfo):
    """A part that `SharedWeights.write` gives."""

    path: str
    size: int
    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    offsets: list[int]
    last: bool


class SharedWeightsEngine(WeightTransferEngine[SharedWeightsInit, SharedWeightsUpdate]):
    """Loads weights part by part, while the parts to come are still being written."""

    init_info_cls = SharedWeightsInit
    update_info_cls = SharedWeightsUpdate

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._files = MappedFiles()

    def init_transfer_engine(self, init_info: SharedWeightsInit) -> None:
        pass

    def start_weight_update(self) -> None:
        self._replacement = Replacement(self.model, self.model_config)

    def receive_weights(self, update_info: SharedWeightsUpdate) -> None:
        """Raises ValueError for a file that is not as announced, and with the last part for missing weights."""
        part = asdict(update_info)
        last = part.pop("last")
        with disable_mtp_completeness_check():
            self._replacement.load(self._files.tensors(**part), lasting=True)
        if last:
            self._replacement.finish()

    def finish_weight_update(self) -> None:
        pass

    def shutdown(self) -> None:
        pass
