"""What a small decomposer is trained on: generated word problems and questions, and variants of real ones.

    python -m train.corpus corpus.jsonl --count 200000 --gsm8k train_socratic.jsonl --strategyqa train.json

blocks.py and texts/*.txt hold the language of the word problems, stories.py puts them together, hops.py makes the
questions of general knowledge, vary.py makes variants of real rows, and mix.py mixes all of it and writes it.
"""

from .mix import CorpusSettings, Written, is_held_out, rows, write_corpus
from .stories import Problem, problems

__all__ = ["CorpusSettings", "Problem", "Written", "is_held_out", "problems", "rows", "write_corpus"]
