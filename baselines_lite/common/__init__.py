"""What the algorithms share. Nothing here imports an algorithm."""
