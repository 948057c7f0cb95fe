"""Problems, prompts, rewards, benchmarks (`config.train_data`, `eval_data`, `prompt`, `reward`)."""
