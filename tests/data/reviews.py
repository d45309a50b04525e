"""A folder of made-up reviews, laid out as the hub's copy of IMDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

GOOD = ("wonderful", "moving", "brilliant", "funny", "superb")
BAD = ("dull", "awful", "wooden", "boring", "worst")
NEUTRAL = tuple(f"{first}{second}{third}" for first in "bdkmt" for second in "aeiou" for third in "lnrst")


def reviews(rows: int, seed: int) -> pl.DataFrame:
    """Reviews with twenty words that mean nothing and a few that mostly tell what somebody thought."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % 2)
    texts = []
    for label in labels:
        telling = [str(rng.choice(GOOD if label ^ (rng.random() < 0.25) else BAD)) for _ in range(3)]
        words = rng.permutation([*telling, *rng.choice(NEUTRAL, 20)])
        texts.append("A film. " + " ".join(str(word) for word in words).capitalize() + "!<br />7/10")
    return pl.DataFrame({"text": texts, "label": labels.astype(np.int64)})


def write_reviews(folder: Path, *, train: int = 80, test: int = 40) -> Path:
    """Write both halves as parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (("train", reviews(train, 0)), ("test", reviews(test, 1))):
        frame.write_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder
