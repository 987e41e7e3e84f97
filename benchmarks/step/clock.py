"""Clock and memory of a device."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import memory


class Meter:
    """Measures calls on ``device``, 'cpu' or 'cuda'."""

    def __init__(self, device: str) -> None:
        self.device = device

    def seconds(self, run: Callable[[], Any]) -> float:
        """How long a call takes; on a GPU, until its last kernel ends."""
        if self.device == 'cpu':
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()  # nothing waits before the first event
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000

    def peak(self, run: Callable[[], Any]) -> int:
        """Bytes that a call needs at most, beside what is there."""
        gc.collect()
        if self.device == 'cuda':
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            return torch.cuda.max_memory_allocated() - before
        ctypes.CDLL('libc.so.6').malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5', 'utf-8')  # resets VmHWM
        before = memory('VmRSS')
        run()
        return memory('VmHWM') - before


def ratio_to(times: list[float], others: list[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))
