"""Weights through a file: what is read is what was written, and nothing half written is ever taken."""

import os

import pytest
import torch

from rlcore.rollout.vllm.shared_weights import SharedWeights, mapped_weights
from rlcore.types import UserError
from tests.rollout.servers.running import engine


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    made = torch.nn.Module()
    made.odd = torch.nn.Parameter(torch.randn(3, 5).bfloat16())
    made.scalar = torch.nn.Parameter(torch.tensor(2.0))
    made.last = torch.nn.Parameter(torch.randn(7))
    return made


def weights(made: torch.nn.Module):
    return [(name, parameter.data) for name, parameter in made.named_parameters()]


def test_each_version_is_read_as_written_while_the_one_before_stays_whole(tmp_path):
    made = model()
    shared = SharedWeights(tmp_path, made)
    versions = []
    for step in range(2):
        with torch.no_grad():
            made.last.fill_(step)
        versions.append((shared.write(weights(made)), [tensor.clone() for _, tensor in weights(made)]))
    for payload, expected in versions:
        found = mapped_weights(**payload)
        assert [name for name, _ in found] == ["odd", "scalar", "last"]
        for (_, tensor), wanted in zip(found, expected, strict=True):
            assert tensor.dtype == wanted.dtype
            assert torch.equal(tensor, wanted)
            assert tensor.data_ptr() % 64 == 0


def test_weights_that_are_not_the_models_are_refused(tmp_path):
    made = model()
    shared = SharedWeights(tmp_path, made)
    with pytest.raises(ValueError, match="2 of the model's weights were not published, last among them"):
        shared.write(weights(made)[:1])
    with pytest.raises(ValueError, match=r"weights odd \(2,\) are not"):
        shared.write([("odd", torch.zeros(2))])


def test_a_file_of_another_size_is_not_read(tmp_path):
    made = model()
    payload = SharedWeights(tmp_path, made).write(weights(made))
    os.truncate(payload["path"], payload["size"] - 1)
    with pytest.raises(ValueError, match="bytes, not"):
        mapped_weights(**payload)


def test_a_folder_that_cannot_hold_them_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"weights_folder .*absent cannot be used: No such file"):
        engine(tmp_path, weights_folder=str(tmp_path / "absent"), start_servers=1).__enter__()
