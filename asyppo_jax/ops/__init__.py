"""The mathematics of AsyPPO as pure functions of arrays, without a model and without state."""
