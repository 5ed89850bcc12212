"""Memory of each rank by part.

ZeRO's partition of the state follows Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion
Parameter Models", section 5. Adam's two moments and the master weights are float32: 12 bytes a parameter. The tests
compare these figures with what DeepSpeed and the embedded engine allocate on one and two processes.
"""

from dataclasses import dataclass

from rlcore.learner.token_head import CHUNK_ELEMENTS
from rlcore.plan.lengths import longest_conversation
from rlcore.plan.shapes import Shapes
from rlcore.recipe import Recipe
from rlcore.recipe.schema import RolloutConfig
from rlcore.rollout.embedded.bands import MOST_WASTE
from rlcore.rollout.embedded.engine import FREE_SHARE
from rlcore.rollout.embedded.products import MOST_MERGED
from rlcore.rollout.embedded.slots import SMALL

GIB = 1 << 30
REDUCE_BUCKET = 500_000_000
LIVE_PARAMETERS = 1_000_000_000
"""Most elements that ZeRO-3 keeps gathered at once (stage3_max_live_parameters)."""
NF4_BYTES = (4 + 0.127) / 8
"""Bytes of a weight in four bits, with its share of the doubly quantized scales: QLoRA, arXiv 2305.14314, section 3."""
HEAD_BUFFERS = 4
"""Float32 matrices, each a chunk of logits, that the backward pass of the output head holds at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes on one rank's device while it samples and while it learns, and in the host's memory."""

    name: str
    sampling: int
    learning: int
    host: int = 0


def memory_parts(recipe: Recipe, shapes: Shapes, ranks: int, gpu_bytes: int) -> list[Part]:
    """The parts of what learns, then of the sampler, without empty ones."""
    if recipe.sft:
        learning = sft_parts(recipe, shapes, ranks)
    elif recipe.stages or not recipe.adapt:
        learning = learner_parts(recipe, shapes, ranks)
    else:
        learning = adapt_parts(recipe, shapes)
    parts = [*learning, *sampler_parts(recipe, shapes, gpu_bytes)]
    return [part for part in parts if part.sampling or part.learning or part.host]


def peak(parts: list[Part]) -> int:
    """Bytes in use in the phase that takes more."""
    return max(sum(part.sampling for part in parts), sum(part.learning for part in parts))


def host_bytes(parts: list[Part]) -> int:
    """Bytes in the host's memory for one rank."""
    return sum(part.host for part in parts)


def learner_ranks(recipe: Recipe, gpus: int) -> tuple[int, int]:
    """Numbers of learner ranks and samplers on `gpus`: they share all of them unless rlcore starts servers."""
    rollout = recipe.rollout
    if rollout.mode != "servers":
        return gpus, max(1, gpus // shared_by(rollout))
    copies = rollout.vllm.data_parallel * (rollout.start_servers or len(rollout.servers))
    return gpus - (copies * rollout.vllm.tensor_parallel if rollout.start_servers else 0), copies


def shared_by(rollout: RolloutConfig) -> int:
    """The number of GPUs that share one sampler."""
    return 1 if rollout.entry.weights == "learner" else rollout.vllm.tensor_parallel


def learner_parts(recipe: Recipe, shapes: Shapes, ranks: int) -> list[Part]:
    """Weights, gradients, optimizer, master weights, buckets, reference, activations and the output head."""
    section, lora, size = recipe.learner, recipe.model.lora, dtype_bytes(recipe)
    zero = max(section.zero, int(size == 2))
    trained = shapes.adapter_parameters if lora else shapes.parameters
    adapters = trained * size if lora else 0
    frozen = weight_bytes(recipe, shapes)
    split = ranks if zero == 3 else 1
    weights = (frozen + adapters) // split + (shapes.small_parameters * size if split > 1 else 0)
    gradients = 4 * trained // (ranks if zero >= 2 else 1)
    shared = ranks if zero else 1
    bucket = min(trained, REDUCE_BUCKET) * (4 if zero == 3 else size) if zero else 0
    gathered = min(shapes.parameters - shapes.small_parameters, LIVE_PARAMETERS) * size if split > 1 else 0
    copied = frozen // split if any(any(stage.kl) for stage in recipe.stages) and not lora else 0
    longest = -(-longest_conversation(recipe) // section.sequence_parallel)
    trajectories = -(-recipe.batch.problems * recipe.batch.group * section.sequence_parallel // ranks)
    tokens = max(longest, min(section.micro_batch_tokens, trajectories * longest))
    kept = activation_bytes(shapes, tokens, size)
    one_layer = kept // shapes.layers
    again = one_layer if section.activation_checkpointing else 0  # in the backward pass, where nothing is moved away
    if section.activation_checkpointing:
        kept = tokens * shapes.layers * shapes.hidden * size
    optimizer_away, activations_away = "optimizer" in section.offload, "activations" in section.offload
    # Where the optimizer is away, DeepSpeed 0.19 adds gradients up there too, but for half precision below ZeRO 3, and
    # copies them for the step. Below ZeRO 3 it stages the new weights there, and one parameter on both sides.
    summed_away = optimizer_away and (zero == 3 or size == 4)
    moved = (8 if summed_away else 4) * trained // shared if optimizer_away else 0
    staged = optimizer_away and zero < 3
    largest = size * shapes.embedding_parameters if staged and not lora else 0
    return [
        Part("weights", *_placed(weights, "parameters" in section.offload)),
        Part("master weights (float32)", *_placed(4 * trained // shared if zero else 0, optimizer_away)),
        Part("optimizer (Adam, float32)", *_placed(8 * trained // shared, optimizer_away)),
        Part("gradients (float32)", 0, 0 if summed_away else gradients, moved),
        Part("weights between host and device", largest, largest, largest + size * trained // shared if staged else 0),
        Part("reduce bucket", bucket, bucket),
        Part("gathered layers (ZeRO-3)", 0, gathered),
        Part("reference policy", copied, copied),
        Part(
            f"activations of {tokens:,} tokens",
            0,
            one_layer if activations_away else kept + again,
            kept if activations_away else 0,
        ),
        Part("output head: logits of a chunk", 0, HEAD_BUFFERS * 4 * min(CHUNK_ELEMENTS, tokens * shapes.vocabulary)),
        Part("output head: its gradient (float32)", 0, 0 if lora else 4 * shapes.head_parameters),
    ]


def sft_parts(recipe: Recipe, shapes: Shapes, ranks: int) -> list[Part]:
    """What supervised rounds hold, which make no learner: little between the rounds, and all weights on every rank."""
    assert recipe.sft
    size, longest, per_rank = dtype_bytes(recipe), longest_conversation(recipe), max(1, recipe.sft.batch // ranks)
    rows = max(1, min(recipe.learner.micro_batch_tokens // longest, per_rank))
    tokens, whole = rows * longest, size * shapes.parameters
    activations = activation_bytes(shapes, tokens, size)
    if rows < per_rank:
        activations = tokens * shapes.layers * shapes.hidden * size + activations // shapes.layers
    split = ranks if size == 2 else 1
    return [
        Part("weights", whole, whole),
        Part("gradients", 0, whole),
        Part("buckets of the gradients (DDP)", 0, whole if ranks > 1 else 0),
        Part("master weights, their gradients (float32)", 0, 8 * shapes.parameters // split if size == 2 else 0),
        Part("optimizer (Adam, float32)", 0, 8 * shapes.parameters // split),
        Part(f"activations of {tokens:,} tokens", 0, activations),
        Part("output head: logits of a chunk", 0, HEAD_BUFFERS * 4 * min(CHUNK_ELEMENTS, tokens * shapes.vocabulary)),
        Part("output head: its gradient (float32)", 0, 4 * shapes.head_parameters),
    ]


def adapt_parts(recipe: Recipe, shapes: Shapes) -> list[Part]:
    """The weights, and what `rlcore adapt` trains beside them: nothing of the learner is made."""
    section, size, longest = recipe.adapt, dtype_bytes(recipe), longest_conversation(recipe)
    weights = Part("weights", *_placed(weight_bytes(recipe, shapes), away=False))
    if section is None or not section.steps:
        return [weights]
    problems = 1 if section.shared else section.together
    rows = max(1, min(recipe.learner.micro_batch_tokens // longest, section.batch * problems))
    tokens, adapters = rows * longest, 4 * problems * shapes.adapter_parameters
    activations = activation_bytes(shapes, tokens, size)
    if problems > 1:  # each row has a copy of its problem's adapters
        activations += 4 * rows * shapes.adapter_parameters
    if size == 2:  # and a float32 one of each adapted layer's input, half of what goes in and out
        activations += 4 * tokens * shapes.adapter_parameters // (2 * section.lora.rank)
    return [
        weights,
        # When they learn: gradients and Adam's moments as well.
        Part(f"adapters of {problems} problems (float32)", adapters, 4 * adapters),
        Part(f"activations of {tokens:,} tokens", 0, activations),
        Part("output head: logits of a chunk", 0, HEAD_BUFFERS * 4 * min(CHUNK_ELEMENTS, tokens * shapes.vocabulary)),
    ]


def sampler_parts(recipe: Recipe, shapes: Shapes, gpu_bytes: int) -> list[Part]:
    """The sampler's weights and KV cache on the ranks; servers have GPUs of their own."""
    rollout, size = recipe.rollout, dtype_bytes(recipe)
    weights = shapes.parameters * size
    if rollout.entry.weights == "elsewhere":
        return []
    if rollout.entry.weights == "device":
        share, level = int(rollout.vllm.gpu_memory_utilization * gpu_bytes), rollout.vllm.sleep_level
        kept = 0 if level else share
        return [Part("vLLM: weights and KV cache", share, kept, weights // shared_by(rollout) if level == 1 else 0)]
    cache = kv_cache_bytes(shapes, rollout.slots, longest_conversation(recipe) + 1, size)
    limit = int(rollout.kv_memory * GIB) if rollout.kv_memory else int(FREE_SHARE * gpu_bytes)
    if cache > SMALL:
        cache = min(limit, int(MOST_WASTE * cache))
    copied = weights if recipe.learner.zero == 3 else 0
    return [
        Part("sampler's copy of the weights", copied + merged_bytes(recipe, shapes), copied),
        Part(f"KV cache of {rollout.slots:,} slots", cache, cache if cache <= SMALL else 0),
    ]


def merged_bytes(recipe: Recipe, shapes: Shapes) -> int:
    """Bytes of the weights that the embedded engine copies into merged products."""
    whole = shapes.linear_parameters * dtype_bytes(recipe)
    if recipe.model.lora or whole <= MOST_MERGED:
        return whole
    return shapes.projected_parameters * dtype_bytes(recipe)


def kv_cache_bytes(shapes: Shapes, slots: int, tokens: int, size: int) -> int:
    """Keys and values of every layer for `slots` sequences of `tokens`."""
    return 2 * shapes.layers * slots * tokens * shapes.kv_size * size


def activation_bytes(shapes: Shapes, tokens: int, size: int) -> int:
    """Bytes that Llama-like layers keep for the backward pass; attention keeps no matrix of scores.

    For each token and layer, in elements of the dtype: inputs, outputs and normalised values of both norms, queries,
    attention's output (8 hidden; 10 in half precision, whose norms compute in float32), keys and values (2), gate, up,
    their activation and product (4 intermediate), and a float32 for each head.
    """
    wide = 8 if size == 4 else 10
    elements = wide * shapes.hidden + 2 * shapes.kv_size + 4 * shapes.intermediate
    return tokens * shapes.layers * (elements * size + 4 * shapes.heads)


def dtype_bytes(recipe: Recipe) -> int:
    """Bytes of one parameter."""
    return 4 if recipe.model.dtype == "float32" else 2


def weight_bytes(recipe: Recipe, shapes: Shapes) -> int:
    """Bytes of the model's weights on one device, which QLoRA holds in four bits with scales for their blocks."""
    size, lora = dtype_bytes(recipe), recipe.model.lora
    if lora is None or lora.quantize == "none":
        return shapes.parameters * size
    return int(shapes.linear_parameters * NF4_BYTES) + (shapes.parameters - shapes.linear_parameters) * size


def _placed(size: int, away: bool) -> tuple[int, int, int]:
    return (0, 0, size) if away else (size, size, 0)
