import logging

# peft imports bitsandbytes where it is installed, which warns of a missing kernel for inference on a CPU.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
