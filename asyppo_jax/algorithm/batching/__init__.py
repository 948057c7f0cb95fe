"""How sequences become minibatches, microbatches and packed rows (`config.batching`)."""
