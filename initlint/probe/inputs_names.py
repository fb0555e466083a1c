"""Guesses from the field's customary names of arguments, where the structure says nothing."""

from __future__ import annotations

import re

import torch

from initlint.probe.inputs_spec import LENGTHS
from initlint.probe.inputs_wants import Guess, tokens

# The first pattern that matches wins.
_NAMED: tuple[tuple[str, str], ...] = (
    (LENGTHS, "lengths"),
    (r"(^|_)mask(s)?($|_)|padding", "mask"),
    (r"^(t|ts|time|times|timestep|timesteps|sigma|sigmas|noise_level|step|steps)$", "time"),
    (r"edge_(index|idx)|^edges$", "edges"),
    (r"^(adj|adjacency|a_hat|graph)(_?mat(rix)?)?$", "adjacency"),
    (r"^batch(_index|_idx)?$", "graphs"),
    (r"(^|_)(ids?|idx|index|indices|tokens?|labels?|src|tgt|words?|users?|items?|classes|y)($|_)", "ids"),
    (r"^(raw_?)?(wavs?|wave(form)?s?|audios?|speech(es)?)$", "wave"),
    (r"^(texts?|captions?|sentences?|prompts?|phonemes?|phones?|graphemes?)$", "ids"),
)
#: Samples of a waveform: a fifth of a second at 16 kHz, which holds several windows of a spectrogram.
WAVE = 3200
# One for each sample: also the id of a task, a speaker, a domain; of tokens one would say ids.
_SINGLE = re.compile("label|class|^y$|user|item|(?<!token)(?<!input)_id$")


def by_name(name: str, batch: int, high: int) -> Guess | None:
    """A guess for an argument, or for a key of one; ``high`` bounds its indices."""
    kind = next((kind for pattern, kind in _NAMED if re.search(pattern, name.lower())), "")
    length = tokens(batch)
    if kind == "lengths":
        # of sequences as long as we make them, all whole: packing wants none empty, and the longest first
        return Guess("lengths", (batch,), torch.int64, length + 1, fill="longest")
    if kind == "mask":
        return Guess("mask", (batch, length), torch.bool, fill="ones")
    if kind == "time":
        return Guess("time", (batch,), torch.float32)
    if kind == "edges":
        return Guess("edges", (2, 4 * batch), torch.int64, batch)
    if kind == "adjacency":
        return Guess("adjacency", (batch, batch))
    if kind == "graphs":  # which graph of a batch each node belongs to
        return Guess("graphs", (batch,), torch.int64, 2)
    if kind == "wave":
        return Guess("wave", (batch, WAVE))
    if kind == "ids":
        return Guess("ids", (batch,) if _SINGLE.search(name.lower()) else (batch, length), torch.int64, high)
    return None
