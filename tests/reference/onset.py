"""The onset of overfitting in plain loops: the same definition, written without the package."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def line_through(x: list[float], y: list[float], weight: list[float], at: float) -> float:
    """Fit a weighted straight line by its normal equations, and read it off."""
    sw = sum(weight)
    mean_x = sum(w * v for w, v in zip(weight, x, strict=True)) / sw
    mean_y = sum(w * v for w, v in zip(weight, y, strict=True)) / sw
    sxy = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weight, x, y, strict=True))
    sxx = sum(w * (a - mean_x) ** 2 for w, a in zip(weight, x, strict=True))
    return mean_y + sxy / sxx * (at - mean_x)


def smooth(epochs: Array, loss: Array, bandwidth: float, leave_out: bool = False) -> Array:
    """Local-linear tricube smooth in log epoch; optionally each value from the other epochs alone."""
    trend = []
    for i, own in enumerate(epochs):
        distances = sorted(abs(math.log(e / own)) for j, e in enumerate(epochs) if j != i)
        reach = max(bandwidth, 1.5 * distances[1])
        x, y, w = [], [], []
        for j, e in enumerate(epochs):
            distance = abs(math.log(e / own))
            if distance < reach and not (leave_out and j == i):
                x.append(math.log(e))
                y.append(float(loss[j]))
                w.append((1 - (distance / reach) ** 3) ** 3)
        trend.append(line_through(x, y, w, math.log(own)))
    return np.array(trend)


def matrix(epochs: Array, bandwidth: float) -> Array:
    """The smoother as a matrix: what it makes of each unit vector."""
    unit = np.eye(len(epochs))
    return np.column_stack([smooth(epochs, unit[:, i], bandwidth) for i in range(len(epochs))])


def in_focus(loss: Array) -> list[bool]:
    low = min(loss)
    return [bool(v <= max(low + 0.3 * (loss[0] - low), sorted(loss)[7])) for v in loss]


def choose_bandwidth(epochs: Array, loss: Array) -> float:
    near = in_focus(loss)
    errors = {}
    for bandwidth in (0.15, 0.25, 0.4, 0.6, 0.9):
        predicted = smooth(epochs, loss, bandwidth, leave_out=True)
        errors[bandwidth] = sum((loss[t] - predicted[t]) ** 2 for t in range(len(loss)) if near[t])
    return min(errors, key=lambda bandwidth: errors[bandwidth])


def autocorrelation(epochs: Array, loss: Array, smoother: Array) -> float:
    near = in_focus(loss)
    count = len(epochs)
    take_off = (np.eye(count) - smoother) @ (np.eye(count) - smoother)
    pairs = [
        t
        for t in range(count - 1)
        if near[t] and near[t + 1] and smoother[t, t] < 0.3 and smoother[t + 1, t + 1] < 0.3
        if epochs[t + 1] - epochs[t] == 1
    ]
    if len(pairs) < 20:
        return 0.3

    def ratio(cov: Array) -> float:
        return float(sum(cov[t, t + 1] for t in pairs) / sum((cov[t, t] + cov[t + 1, t + 1]) / 2 for t in pairs))

    residual = take_off @ loss
    measured = ratio(np.array([[a * b for b in residual] for a in residual]))
    known = []
    for step in range(17):
        phi = 0.05 * step
        noise = np.array([[1.0 if a == b else phi ** abs(a - b) for b in epochs] for a in epochs])
        known.append((ratio(take_off @ noise @ take_off.T), phi))
    if measured <= known[0][0]:
        return 0.3
    for (low, low_phi), (high, high_phi) in pairwise(known):
        if low < measured <= high:
            return max(0.3, low_phi + (high_phi - low_phi) * (measured - low) / (high - low))
    return 0.8


def jitter_sd(epochs: Array, loss: Array, phi: float) -> Array:
    squares = []
    for t in range(1, len(loss) - 1):
        before, here, after = (math.log(epochs[k]) for k in (t - 1, t, t + 1))
        weights = [(after - here) / (after - before), -1.0, (here - before) / (after - before)]
        contrast = sum(w * loss[t - 1 + k] for k, w in enumerate(weights))
        of_unit_noise = sum(
            wi * wj * phi ** abs(epochs[t - 1 + i] - epochs[t - 1 + j])
            for i, wi in enumerate(weights)
            for j, wj in enumerate(weights)
        )
        squares.append(contrast**2 / of_unit_noise)
    squares = [squares[0], *squares, squares[-1]]
    windows = [squares[max(0, t - 5) : t + 6] for t in range(len(squares))]
    return np.array([math.sqrt(sum(window) / len(window)) for window in windows])


def noise_covariance(val_losses: Array, epochs: Array, smoother: Array) -> Array:
    count, n = val_losses.shape
    loss = val_losses.mean(axis=1)
    phi = autocorrelation(epochs, loss, smoother)
    sd = jitter_sd(epochs, loss, phi)
    covariance = np.zeros((count, count))
    for s in range(count):
        for t in range(count):
            sample = sum((val_losses[s] - loss[s]) * (val_losses[t] - loss[t])) / (n * (n - 1))
            covariance[s, t] = sample + sd[s] * sd[t] * phi ** abs(epochs[s] - epochs[t])
    return covariance


def pool_adjacent_violators(values: Array) -> Array:
    """Decreasing least-squares fit."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value)])
        while len(blocks) > 1 and np.mean(blocks[-2]) < np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    return np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])


def widened(epochs: Array, first: int, last: int) -> tuple[float, float]:
    """All epochs strictly between the measured ones on either side."""
    return (epochs[first - 1] + 1 if first > 0 else 1, epochs[last + 1] - 1 if last + 1 < len(epochs) else epochs[last])


def largest_rise(curve: Array, unit: Array) -> float:
    return max(float((curve[t] - curve[s]) / unit[s, t]) for t in range(1, len(curve)) for s in range(t))


def spikes(loss: Array, train_loss: Array) -> list[int]:
    """Rows at which both losses leap and are back within two epochs."""
    inner = range(2, len(loss) - 2)
    middle, train_middle = ({t: sorted(curve[t - 2 : t + 3])[2] for t in inner} for curve in (loss, train_loss))
    found = []
    for t in inner:
        nearby = [abs(loss[s] - middle[s]) for s in inner if abs(s - t) <= 5]
        leap, train_leap = loss[t] - middle[t], train_loss[t] - train_middle[t]
        large = 0.1 * abs(middle[t])
        if leap > 3 * float(np.median(nearby)) / 0.6745 and min(leap, train_leap) > large:
            found.append(t)
    return found


def onset(val_losses: Array, raw_noise: Array, epochs: Array, train_loss: Array) -> dict[str, Any]:
    """The definition for a train loss that never rises, given the noise curves before smoothing, [curves, epochs]."""
    slipped = spikes(val_losses.mean(axis=1), train_loss)
    set_aside = tuple(int(epochs[t]) for t in slipped)
    val_losses, epochs, train_loss = (np.delete(values, slipped, axis=0) for values in (val_losses, epochs, train_loss))
    loss = val_losses.mean(axis=1)
    bandwidth = choose_bandwidth(epochs, loss)
    smoother = matrix(epochs, bandwidth)
    trend = smooth(epochs, loss, bandwidth)
    covariance = smoother @ noise_covariance(val_losses, epochs, smoother) @ smoother.T
    count = len(epochs)
    se = np.zeros((count, count))
    for s in range(count):
        for t in range(count):
            if s != t:
                se[s, t] = math.sqrt(covariance[s, s] + covariance[t, t] - 2 * covariance[s, t])

    level = pool_adjacent_violators(trend)
    level = np.array([level[-1] if level[t] - level[-1] < 2 * se[t, -1] else level[t] for t in range(count)])
    noise = [smooth(epochs, curve, bandwidth) for curve in raw_noise]
    ranked = sorted(se[s, t] for t in range(count) for s in range(t))
    middle = (ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2
    unit = np.array([[se[s, t] + middle for t in range(count)] for s in range(count)])
    null = sorted((largest_rise(level + curve, unit) for curve in noise), reverse=True)
    observed = largest_rise(trend, unit)
    p_value = (1 + sum(z >= observed for z in null)) / (len(null) + 1)
    critical = null[math.floor(0.05 * (len(null) + 1)) - 1]
    result: dict[str, Any] = {
        "p_value": p_value,
        "best_epoch": epochs[int(np.argmin(trend))],
        "spikes": set_aside,
    }

    detected = None
    for t in range(count):
        for s in range(t):
            rise = trend[t] - trend[s]
            if detected is None and rise > critical * unit[s, t] and rise >= 0.01 * abs(trend[s]):
                detected = t
    if detected is None:
        train = smooth(epochs, train_loss, bandwidth)
        late = next(t for t in range(count) if epochs[t] >= 0.9 * epochs[-1])
        learns = train[late] - train[-1] > 0.01 * min(trend)
        return result | {
            "verdict": "underfit" if learns and result["best_epoch"] >= 0.95 * epochs[-1] else "not_reached"
        }
    start = int(np.argmin(trend[: detected + 1]))

    peak, falls_again = start, False
    for t in range(start, count):
        if trend[t] > trend[peak]:
            peak = t
        fall = trend[peak] - trend[t]
        if t > detected and fall > critical * unit[peak, t] and fall >= 0.01 * abs(trend[peak]):
            falls_again = True
            break
    minima = sorted(int(np.argmin((trend + curve)[: peak + 1])) for curve in noise)
    low = minima[math.ceil(0.025 * len(minima)) - 1]
    high = minima[math.ceil(0.975 * len(minima)) - 1]
    return result | {
        "verdict": "overfit",
        "epoch": epochs[start],
        "detected_at": epochs[detected],
        "ci": widened(epochs, min(low, start), max(high, start)),
        "second_descent": falls_again,
    }
