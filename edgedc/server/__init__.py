"""The OpenAI-compatible endpoint of `edgedc serve`: a decomposer here, and a solver behind it."""
