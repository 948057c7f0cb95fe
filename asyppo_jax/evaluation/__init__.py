"""Results on held-out problems and on benchmarks (`config.evaluation`)."""
