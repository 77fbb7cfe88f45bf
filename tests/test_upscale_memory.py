"""Memory: what is there, what tile it allows, and that the height of an image costs none."""

import tracemalloc

import jax
import numpy as np
import pytest
from test_tiles import NOISY, make_noisy

from flowsr_jax import memory
from flowsr_jax.drawing import Sampler, image_strips
from flowsr_jax.drawing import sampler as sampler_module
from flowsr_jax.models import FAMILIES

KEY = jax.random.key(7)


@pytest.fixture(autouse=True)
def noisy():
    with FAMILIES.using("noisy", NOISY):
        yield


@pytest.fixture
def free(monkeypatch):
    """Set the memory that there seems to be: of the device, of the computer."""

    def set_free(device, host=1 << 40):
        monkeypatch.setattr(memory, "device_memory", lambda: int(device))
        monkeypatch.setattr(memory, "host_memory", lambda: int(host))

    return set_free


def test_tile_is_chosen_from_the_memory(free, monkeypatch):
    params, used = make_noisy(), []
    compile_ = sampler_module._compile

    def record(tree, avals, shape, group, *rest):
        used.append((shape, group))
        return compile_(tree, avals, shape, group, *rest)

    monkeypatch.setattr(sampler_module, "_compile", record)

    def window(size, tile="auto", **options):
        used.clear()
        sampler = Sampler(params, tile=tile, **options)
        return sampler.window(*size)

    free(1 << 40)
    assert window((300, 400)) == (320, 448, 1)
    assert used == [((320, 448), 1)]  # looked at as a whole: no compilation is wasted
    assert window((20, 100)) == (128, 128, 1) and not used
    assert window((2000, 3000), tile=0) == (2048, 3072, 1)
    assert window((2000, 3000), tile=200) == (240, 240, 1)
    assert window((50, 3000), tile=200) == (64, 240, 1)
    assert window((2000, 3000))[:2] == (1024, 1024)  # MAX_PIXELS
    assert used == [((256, 256), 1)]
    assert window((300, 400), num_samples=5) == (320, 448, 5)

    per_pixel = Sampler(params)._bytes_per_pixel(1, (256, 256))
    free(2 * per_pixel * 200**2)  # half of it may be used
    assert window((150, 160)) == (192, 192, 1)
    assert window((300, 400)) == (192, 192, 1)
    assert window((8, 30000)) == (32, 192, 1)
    assert window((300, 400), num_samples=5) == (192, 192, 1)  # rather one by one than tiny
    assert window((100, 100), num_samples=5)[2] == 1
    free(2 * per_pixel * 600**2 * 3)
    assert window((2000, 2000), num_samples=3)[2] == 3
    free(1)
    assert window((300, 400)) == (64, 64, 1)
    free(1 << 40, host=4 * 12 * 11 * 2**2 * 2000 * 150)
    assert window((2000, 2000)) == (128, 1024, 1)  # a strip has to fit too
    free(1 << 40, host=1)
    assert window((100, 2000)) == (64, 2048, 1)


def test_after_memory_ran_out(free):
    free(1 << 30)
    sampler = Sampler(make_noisy())
    assert sampler.shrink() and sampler.budget == 1 << 28
    assert sum(sampler.shrink() for _ in range(20)) < 10
    assert not Sampler(make_noisy(), tile=64).shrink()


def test_free_memory_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUPS", ((tmp_path, ("max", "current")),))
    assert memory.host_memory() == memory.FALLBACK
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert memory.host_memory() == 8000 << 10
    (tmp_path / "max").write_text("max\n")
    (tmp_path / "current").write_text("5000\n")
    assert memory.host_memory() == 8000 << 10
    (tmp_path / "max").write_text("7000\n")
    assert memory.host_memory() == 2000
    (tmp_path / "memory.stat").write_text("anon 4000\ninactive_file 600\n")
    assert memory.host_memory() == 2600

    class Device:
        def memory_stats(self):
            return {"bytes_limit": 900, "bytes_in_use": 200}

    monkeypatch.setattr(memory.jax, "local_devices", lambda: [Device()])
    assert memory.device_memory() == 700


def test_memory_does_not_grow_with_the_height():
    """Of the arrays on the host; on the device there is one window at a time."""
    params, peaks = make_noisy(), []
    for height in (100, 400, 1600):
        rgb = np.broadcast_to(np.uint8(100), (height, 150, 3))
        sampler = Sampler(params, tile=64, num_samples=2)
        for strip in image_strips(sampler, rgb[:100], KEY):
            del strip
        tracemalloc.start()
        for strip in image_strips(sampler, rgb, KEY):
            del strip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    print("peaks in MB:", [round(p / 2**20, 2) for p in peaks])
    assert peaks[2] < 1.1 * peaks[1] < 1.6 * peaks[0]
