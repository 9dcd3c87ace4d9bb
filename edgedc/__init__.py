"""Small decomposers on the device, large solvers elsewhere."""

__version__ = "0.1.0"
