"""What the tests share that run real models beside the predictions."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Small tensors: threads only wait for each other."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
