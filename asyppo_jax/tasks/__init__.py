"""Problems, prompts, rewards and benchmarks (`config.train_data`, `prompt`, `reward`)."""
