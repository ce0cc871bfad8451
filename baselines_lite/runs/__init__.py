"""What is done with runs: reading, plotting, sweeping."""
