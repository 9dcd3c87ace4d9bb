"""Ways to reach a solver, one file each, and a simulated one behind a real socket."""

# The response header by which a simulated server owns up, so that every table can label its figures.
SIMULATED = "x-edgedc-simulated"
SIMULATED_MODEL = "simulated-solver"  # what the one of `edgedc simulate` is asked for
