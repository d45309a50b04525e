"""Networks that train as slowly as a test needs them to, whatever the machine."""

from __future__ import annotations

# A file `hold` beside it makes them wait as long as it is there. What it says: nothing, and all wait after 10 steps;
# 5, and those of hidden size 5 wait from the start; slowly, and after 10 steps each takes half a second. Those that
# wait leave a file `held-` with their hidden size. Where there is a file `slow`, it takes long to import them.
HOLDING = """
import time
from pathlib import Path
from torch import nn

FOLDER = Path(__file__).parent
if (FOLDER / "slow").exists():
    time.sleep(5)

class Holding(nn.Module):
    steps = 0

    def __init__(self, inputs, outputs, hidden):
        super().__init__()
        self.hidden = hidden
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Dropout(0.2), nn.Linear(hidden, outputs))

    def forward(self, x):
        # Two rows are no training yet, but a try whether the network can be stacked.
        if self.training and len(x) > 2:
            Holding.steps += 1
            begun = time.monotonic()
            while self.held(time.monotonic() - begun):
                (FOLDER / f"held-{self.hidden}").touch()
                time.sleep(0.01)
        return self.layers(x)

    def held(self, seconds):
        try:
            how = (FOLDER / "hold").read_text()
        except FileNotFoundError:
            return False
        if how == "5":
            return self.hidden == 5
        return Holding.steps > 10 and (how != "slowly" or seconds < 0.5)
"""

# 3 folds of 3 steps; what is held must be long enough to outlast a test that is not.
NETWORK = (
    *("model=custom", "model._target_=holding.Holding", "data=iris", "split.folds=3", "study.report=false"),
    "training.epochs=300",
)
