"""Freed memory stays with the process."""

import platform
import resource

import pytest
import torch

from surpass.training.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")
def test_a_buffer_that_is_freed_and_made_again_costs_no_page_faults() -> None:
    assert keep_freed_memory()
    size = 4_000_000  # 16 MB: above glibc's own threshold for handing memory back

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    torch.zeros(size)
    before = faults()
    for _ in range(10):
        torch.ones(size)
    # Made anew, each of the ten faults; what other tests left on the heap may cost one or two.
    assert faults() - before < 3 * size * 4 // 4096
