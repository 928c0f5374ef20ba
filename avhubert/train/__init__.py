"""Pre-training and fine-tuning: one loop, two tasks, several devices."""
