"""The tests."""

HANG = 600  # seconds after which what has not ended never will, however slow and busy the machine
