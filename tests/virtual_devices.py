"""Several devices on one CPU, for tests in processes of their own."""

from __future__ import annotations


def virtual_devices(count: int, *flags: str) -> dict[str, str]:
    """Return the environment of a process with `count` CPU devices and more flags of XLA's."""
    # Scheduled for concurrency (the default), the devices come to the many gathers of a split
    # state in different orders, and with all workers waiting the program hangs.
    schedule = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
    every = (f"--xla_force_host_platform_device_count={count}", schedule, *flags)
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(every)}
