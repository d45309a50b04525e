"""Programs that train the same grid as `scripts/bench sweep`, each in the way of its own tool."""
