"""Several devices on one CPU, for tests in processes of their own."""

from __future__ import annotations


def virtual_devices(count: int, *flags: str) -> dict[str, str]:
    """Return the environment of a process with `count` CPU devices and more flags of XLA's."""
    every = (f"--xla_force_host_platform_device_count={count}", *flags)
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(every)}
