"""Weights through a file: what is read is what was written, and nothing half written is ever taken."""

import json
import os

import pytest
import torch

from rlcore.errors import UserError
from rlcore.inside_vllm.mapped_files import MappedFiles
from rlcore.rollout.servers.shared_weights import SharedWeights
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


def read(files: MappedFiles, parts: list[dict]) -> list[tuple[str, torch.Tensor]]:
    assert [part["last"] for part in parts] == [False] * (len(parts) - 1) + [True]
    return [found for part in parts for found in files.tensors(**{k: v for k, v in part.items() if k != "last"})]


def test_each_version_is_read_as_written_while_the_one_before_stays_whole(tmp_path):
    made = model()
    shared, files = SharedWeights(tmp_path, made), MappedFiles()
    versions = []
    for step in range(4):
        with torch.no_grad():
            made.last.fill_(step)
        parts = json.loads(json.dumps(list(shared.write(weights(made), part_bytes=1))))
        versions.append((parts, [tensor.clone() for _, tensor in weights(made)]))
        for parts, expected in versions[-2:]:
            found = read(files, parts)
            assert [name for name, _ in found] == ["odd", "scalar", "last"]
            for (_, tensor), wanted in zip(found, expected, strict=True):
                assert tensor.dtype == wanted.dtype
                assert torch.equal(tensor, wanted)
                assert tensor.data_ptr() % 64 == 0


def test_a_part_can_be_read_before_the_next_is_written(tmp_path):
    made = model()
    parts = SharedWeights(tmp_path, made).write(weights(made), part_bytes=1)
    part = next(parts)
    assert not part.pop("last")
    ((name, tensor),) = MappedFiles().tensors(**part)
    assert name == "odd"
    assert torch.equal(tensor, made.odd)
    assert len(list(parts)) == 2


def test_a_folder_that_another_run_made_anew_is_mapped_anew(tmp_path):
    files, values = MappedFiles(), []
    for value in (1.0, 2.0):
        made = model()
        with torch.no_grad():
            made.last.fill_(value)
        for path in tmp_path.iterdir():
            path.unlink()
        values.append(read(files, list(SharedWeights(tmp_path, made).write(weights(made))))[-1][1][0].item())
    assert values == [1.0, 2.0]


def test_weights_that_are_not_the_models_are_refused(tmp_path):
    made = model()
    shared = SharedWeights(tmp_path, made)
    with pytest.raises(ValueError, match="2 of the model's weights were not published, last among them"):
        list(shared.write(weights(made)[:1]))
    with pytest.raises(ValueError, match=r"weights odd \(2,\) are not"):
        list(shared.write([("odd", torch.zeros(2))]))


def test_a_file_of_another_size_is_not_read(tmp_path):
    made = model()
    parts = list(SharedWeights(tmp_path, made).write(weights(made)))
    os.truncate(parts[0]["path"], parts[0]["size"] - 1)
    with pytest.raises(ValueError, match="bytes, not"):
        read(MappedFiles(), parts)


def test_a_folder_that_cannot_hold_them_ends_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"weights_folder .*absent cannot be used: No such file"):
        engine(tmp_path, weights_folder=str(tmp_path / "absent"), start_servers=1).__enter__()
