"""Weights from checkpoint files, read lazily: one tensor at a time, never a pickle that runs code.

safetensors: the header (8 bytes of length, then JSON) says where each tensor lies; it is mapped, not
read. torch files: ``torch.load(weights_only=True, mmap=True)``. Sharded checkpoints: the index file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from initlint.errors import ProbeError
from initlint.probe.dependencies import unwatched

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


def load_into(model: nn.Module, files: tuple[str, ...], directory: str) -> list[str]:
    """Copy the checkpoint's tensors into the model; returns notes about what did not fit.

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
        _copy(model, own, targets[own], tensor)
    if len(missing) == len(targets):
        raise ProbeError("no tensor of the checkpoint fits the model", "Is --weights the checkpoint of this model?")
    persistent = set(model.state_dict())
    groups = (
        ("are not in the checkpoint", sorted(missing & persistent)),
        ("have another shape there", shapes),
        ("of the checkpoint are not in the model", unexpected),
    )
    return [f"{len(names)} tensors {what}: {_listed(names)}" for what, names in groups if names]


def _copy(model: nn.Module, name: str, target: torch.Tensor, tensor: torch.Tensor) -> None:
    with torch.no_grad():
        if not target.is_meta:
            target.copy_(tensor)
            return
        path, _, local = name.rpartition(".")
        owner = model.get_submodule(path)
        if isinstance(target, nn.Parameter):
            owner.register_parameter(local, nn.Parameter(tensor, requires_grad=target.requires_grad))
        else:
            owner.register_buffer(local, tensor)


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
            if path.endswith(".index.json"):
                yield from _sharded(path)
            elif path.endswith(".safetensors"):
                yield from _safetensors(path)
            else:
                yield from _torch_file(path)
        except OSError as error:
            raise ProbeError(f"the weights {file} cannot be read: {error.strerror or error}") from error


def _sharded(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    with open(path, encoding="utf-8") as file:
        shards = sorted(set(json.load(file).get("weight_map", {}).values()))
    for shard in shards:
        yield from _tensors((os.path.join(os.path.dirname(path), shard),), "")


def _safetensors(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, _HEADER_LIMIT):
            raise ProbeError(f"{os.path.basename(path)} is no safetensors file: its header does not fit into it")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except ValueError as error:
            raise ProbeError(f"{os.path.basename(path)} is no safetensors file: its header is no JSON") from error
    with unwatched():
        data = torch.from_file(path, shared=False, size=size, dtype=torch.uint8)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        # A view of another dtype must start at a multiple of its size; headers of odd length need a copy.
        aligned = raw if (8 + length + begin) % dtype.itemsize == 0 else raw.clone()
        yield name, aligned.view(dtype).reshape(entry["shape"])


def _torch_file(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    try:
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
