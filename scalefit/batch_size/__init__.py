"""What a batch size costs: steps against examples, the critical batch, schedules, and the rate over the batch."""
