"""Parts of one's own, each tried by the tests; see docs/own.md and docs/new_algorithm.md."""
