"""Reading loss curves: where overfitting begins and stopping rules to compare with.

Pure functions on arrays. Row t of every array here is the epoch after t + 1 completed passes; the untrained
network, epoch 0, takes no part.
"""
