"""What is done with runs: reading, plotting, sweeping. No TensorFlow here."""
