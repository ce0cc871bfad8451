"""The process: MPI, TensorFlow's set-up, options, random streams, files, errors."""
