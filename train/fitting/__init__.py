"""Training. What its libraries read of the environment once, when they are loaded, is set here, before they are."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# oneDNN keeps a thousand kernels by default, each for one shape, and most are not met again: several GB in an hour.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
# GNU's OpenMP has threads turn round 300,000 times before they sleep, even where what they wait for waits for its core:
# with one of two cores taken by another program a model of 4M weights was trained at 1,600 tokens/s, and is at 3,400
# with this; where all cores are free it is no slower.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
