"""Weights from checkpoint files, read lazily: one tensor at a time, never a pickle that runs code.

safetensors: the header (8 bytes of length, then JSON) says where each tensor lies; the file is mapped, and the
pages of a tensor are let go after it. torch files: ``torch.load(weights_only=True, mmap=True)``. Sharded
checkpoints: the index file. Where the model is on meta, the tensors are measured and not kept.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from initlint.errors import ProbeError
from initlint.facts import TensorStats
from initlint.probe.dependencies import unwatched
from initlint.probe.measure import measure
from initlint.probe.submodules import submodule

# https://github.com/huggingface/safetensors#format
_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# A header larger than this is no header (the format's own limit).
_HEADER_LIMIT = 100_000_000
# Where training scripts put the state dict in what they save.
_NESTED = ("state_dict", "model_state_dict", "model", "net", "module", "params", "weights")
# What wrappers put before the names.
_PREFIXES = ("module.", "_orig_mod.", "model.")


def load_into(
    model: nn.Module, files: tuple[str, ...], directory: str, measured: dict[str, TensorStats] | None = None
) -> list[str]:
    """Copy the checkpoint's tensors into the model; returns notes about what did not fit.

    Args:
        measured: where the statistics go of tensors that the model has on meta; these are not copied.

    Raises:
        ProbeError: a file cannot be read, or nothing in it fits the model.
    """
    targets: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
    targets |= dict(model.named_buffers(remove_duplicate=False))
    missing, unexpected, shapes = set(targets), [], []
    for name, tensor in _tensors(files, directory):
        own = _own_name(name, targets)
        if own is None:
            unexpected.append(name)
            continue
        if tuple(targets[own].shape) != tuple(tensor.shape):
            shapes.append(own)
            continue
        missing.discard(own)
        if not targets[own].is_meta:
            with torch.no_grad():
                targets[own].copy_(tensor)
        elif measured is not None and (stats := measure(tensor, _groups(model, own))) is not None:
            measured[own] = stats
    if len(missing) == len(targets):
        raise ProbeError("no tensor of the checkpoint fits the model", "Is --weights the checkpoint of this model?")
    persistent = set(model.state_dict())
    groups = (
        ("are not in the checkpoint", sorted(missing & persistent)),
        ("have another shape there", shapes),
        ("of the checkpoint are not in the model", unexpected),
    )
    return [f"{len(names)} tensors {what}: {_listed(names)}" for what, names in groups if names]


def _groups(model: nn.Module, name: str) -> int:
    """Groups of the convolution that owns a weight."""
    groups = getattr(submodule(model, name.rpartition(".")[0]), "groups", 1)
    return groups if isinstance(groups, int) and groups > 0 else 1


def _own_name(name: str, targets: Mapping[str, torch.Tensor]) -> str | None:
    """The model's name for a tensor of the checkpoint: the same, or without (or with) a wrapper's prefix."""
    if name in targets:
        return name
    for prefix in _PREFIXES:
        if name.startswith(prefix) and name[len(prefix) :] in targets:
            return name[len(prefix) :]
        if prefix + name in targets:
            return prefix + name
    return None


def _tensors(files: tuple[str, ...], directory: str) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        path = os.path.normpath(os.path.join(directory, os.path.expanduser(file)))
        try:
            if os.path.isdir(path):
                path = _in_folder(path, file)
            if path.endswith(".index.json"):
                yield from _sharded(path)
            elif path.endswith(".safetensors"):
                yield from _safetensors(path)
            else:
                yield from _torch_file(path)
        except OSError as error:
            raise ProbeError(f"the weights {file} cannot be read: {error.strerror or error}") from error


def _in_folder(path: str, file: str) -> str:
    """The checkpoint in a folder as model hubs lay it out: the index of its shards, else the one file of weights.

    Raises:
        ProbeError: there is none, or several.
    """
    names = sorted(os.listdir(path))
    for ending in (".safetensors.index.json", ".index.json", ".safetensors", (".bin", ".pt", ".pth", ".ckpt")):
        found = [name for name in names if name.endswith(ending)]
        if len(found) == 1:
            return os.path.join(path, found[0])
        if found:
            raise ProbeError(f"{file} holds several checkpoints: {', '.join(found[:4])}", "Name one of these files.")
    raise ProbeError(f"the folder {file} holds no checkpoint", "Name a .safetensors, .pt or .index.json file.")


def _sharded(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    with open(path, encoding="utf-8") as file:
        shards = sorted(set(json.load(file).get("weight_map", {}).values()))
    for shard in shards:
        yield from _tensors((os.path.join(os.path.dirname(path), shard),), "")


def _safetensors(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    size = os.path.getsize(path)
    with unwatched():  # its size and time of change are in the cache's key; hashing it would take longer than the check
        file = open(path, "rb")  # noqa: SIM115
    with file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, _HEADER_LIMIT):
            raise ProbeError(f"{os.path.basename(path)} is no safetensors file: its header does not fit into it")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise ProbeError(f"{os.path.basename(path)} is no safetensors file: its header is no JSON") from error
        yield from _mapped(file.fileno(), header, 8 + length, size, os.path.basename(path))


def _mapped(
    descriptor: int, header: Mapping[str, Any], start: int, size: int, file: str
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a header, each mapped from the file while the caller looks at it."""
    for name, entry in header.items():
        dtype = None if name == "__metadata__" else _DTYPES.get(entry.get("dtype", ""))
        if dtype is None:
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        if not start <= begin <= end <= size or end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise ProbeError(f"{file} is damaged: {name} does not lie inside it", "Download or save it again.")
        if begin == end:
            yield name, torch.empty(entry["shape"], dtype=dtype)
            continue
        page = begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        # Copy on write: torch wants memory that may be written, and the file stays as it is.
        mapped = mmap.mmap(descriptor, end - page, access=mmap.ACCESS_COPY, offset=page)
        raw = torch.frombuffer(mapped, dtype=torch.uint8, count=end - begin, offset=begin - page)
        # A view of another dtype must start at a multiple of its size; headers of odd length need a copy.
        aligned = raw if begin % dtype.itemsize == 0 else raw.clone()
        yield name, aligned.view(dtype).reshape(entry["shape"])
        del raw, aligned
        with contextlib.suppress(BufferError):  # the caller has kept the tensor: it is unmapped with that
            mapped.close()


def _torch_file(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        with unwatched():
            try:
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # written before torch 1.6: no zip file, cannot be mapped
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise ProbeError(
            f"{os.path.basename(path)} cannot be read with weights_only: {text}",
            "Save the state dict alone: torch.save(model.state_dict(), file).",
        ) from error
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise ProbeError(f"{os.path.basename(path)} holds a {type(loaded).__name__}, no state dict")
    yield from ((str(name), value) for name, value in loaded.items() if isinstance(value, torch.Tensor))


def _listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
