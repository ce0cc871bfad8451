"""What surrounds a training loop: configuration, logs, decisions, evaluation."""
