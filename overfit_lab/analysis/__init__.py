"""Reading loss curves: where overfitting begins, stopping rules to compare with, and the generalisation gap.

Pure functions on arrays. Row t of every array here is the epoch after t + 1 completed passes; the untrained
network, epoch 0, takes no part.
"""
