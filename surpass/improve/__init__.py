"""The main job: `surpass.improve(logs)` takes logs to a verdict.

The room is also the call: `surpass.improve(...)` and `import surpass.improve.job` both work.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *args: Any, **named: Any) -> Any:
        from surpass.improve.job import improve

        return improve(*args, **named)


sys.modules[__name__].__class__ = _Room
