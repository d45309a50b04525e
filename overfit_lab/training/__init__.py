"""Training: one LightningModule that trains a cohort, and the history of its curves."""
