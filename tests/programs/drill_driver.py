# Drills as lastcall does, and says what happens: `drill_driver.py SLOW_S COMMAND...`. It is ended
# in the middle by whoever started it.
from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from lastcall.drill import presets
from lastcall.drill.experiment import drill
from lastcall.drill.plan import Plan

if TYPE_CHECKING:
    from lastcall.drill.result import Moment

slow_s, *command = sys.argv[1:]


def tell(moment: Moment) -> None:
    print(moment.code, moment.what, flush=True)


scenario = presets.scenario(presets.probe_paths(float(slow_s)), 4)
asyncio.run(drill(Plan(tuple(command), scenario=scenario), tell))
