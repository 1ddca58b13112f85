"""Batch: what a critical batch size is good for: runs adjusted to it, warm-ups along it, the best batch of a law."""

from scalefit.batch.adjustment import adjust_batch
from scalefit.batch.ramp import batch_schedule
from scalefit.batch.schedule import BatchSchedule
from scalefit.batch.token_split import BestBatch, best_batch

__all__ = ["BatchSchedule", "BestBatch", "adjust_batch", "batch_schedule", "best_batch"]
