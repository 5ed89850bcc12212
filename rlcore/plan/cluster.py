"""A cluster as a small YAML file: see recipes/clusters."""

from typing import Annotated, ClassVar

from pydantic import Field, PositiveFloat

from rlcore.recipe.section import NonNegative, Positive, Section

Share = Annotated[float, Field(gt=0, le=1)]


class Cluster(Section):
    """GPUs that are all alike. Peaks are the vendor's; the shares say how much of them training and sampling reach."""

    called: ClassVar[str] = "cluster"
    name: str = "cluster"
    gpus: Positive = Field(8, description="each runs one process that samples and trains")
    gpus_per_node: Positive = 8
    memory_gib: PositiveFloat = Field(80, description="of each GPU")
    reserved_gib: NonNegative = Field(3, description="of each GPU that is not available: CUDA, NCCL, fragments")
    host_memory_gib: PositiveFloat = Field(1000, description="of each node")
    tflops: PositiveFloat = Field(989, description="peak of each GPU in the model's dtype")
    memory_gb_per_s: PositiveFloat = Field(3350, description="peak of each GPU's memory")
    link_gb_per_s: PositiveFloat = Field(450, description="of each GPU to the others of its node, one way")
    network_gb_per_s: PositiveFloat = Field(50, description="of each GPU to other nodes, one way")
    compute_share: Share = Field(0.35, description="of tflops that the learner reaches (its model FLOPs utilisation)")
    memory_share: Share = Field(0.5, description="of memory_gb_per_s that decoding reaches")
    token_overhead_ms: NonNegative = Field(
        5, description="of every decoding step, whatever its size: launching kernels, scheduling, drawing tokens"
    )

    @property
    def ring_gb_per_s(self) -> float:
        """The slowest link that a collective over all GPUs passes."""
        return self.link_gb_per_s if self.gpus <= self.gpus_per_node else self.network_gb_per_s
