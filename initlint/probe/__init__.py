"""Build, trace and measure models; the only package that imports torch (and only in the worker's processes)."""
