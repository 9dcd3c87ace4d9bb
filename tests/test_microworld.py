import itertools
import re

import pytest

from edgedc.errors import InputError
from edgedc.tasks import Example, Selection, load_examples
from edgedc.tasks.microworld import HELD_OUT, TRAINED, problems, score


@pytest.fixture(scope="module")
def train():
    return list(problems("train", 2000))


def test_the_same_seed_makes_the_same_problems(train):
    assert list(problems("train", 50)) == train[:50]
    assert [p.question for p in problems("train", 50, seed=1)] != [p.question for p in train[:50]]


def test_no_question_is_in_train_and_test(train):
    asked = {p.question for seed in range(3) for p in problems("train", 2000, seed)}
    assert len({p.question for p in train}) == 2000
    assert not asked & {p.question for seed in range(3) for p in problems("test", 500, seed)}


def test_held_out_domains_are_apart():
    assert {p.domain for p in problems("heldout", 100)} == {d.name for d in HELD_OUT}
    assert {p.domain for p in problems("test", 300)} == {d.name for d in TRAINED}
    assert not {d.name for d in HELD_OUT} & {d.name for d in TRAINED}


def test_problems_have_one_to_five_steps_and_whole_answers(train):
    assert {len(p.steps) for p in train} == {1, 2, 3, 4, 5}
    for problem in itertools.chain(train, problems("heldout", 300)):
        assert all(isinstance(step.value, int) and step.value > 0 for step in problem.steps)
        assert all(need < k for k, step in enumerate(problem.steps, 1) for need in step.needs)
        # Every step is used: each but the last is needed by a later one.
        needed = {need for step in problem.steps for need in step.needs}
        assert needed == set(range(1, len(problem.steps)))


def test_nothing_is_left_to_fill_in(train):
    for problem in itertools.chain(train, problems("heldout", 500)):
        text = problem.question + " ".join(step.ask for step in problem.steps)
        assert "{" not in text
        assert "}" not in text


def test_numbers_of_the_first_step_are_told(train):
    """A step without earlier steps can be worked out from what the text says."""
    problem = next(p for p in train if p.domain == "shopping" and len(p.steps) == 2)
    assert any(ch.isdigit() for ch in problem.question)
    assert problem.steps[-1].needs == (1,)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_subquestions_speak_of_nobody_whom_the_problem_does_not_name(split):
    for problem in problems(split, 1000):
        asked = {word for step in problem.steps for word in re.findall(r"[A-Z][a-z]+", step.ask[1:])}
        assert all(name in problem.question for name in asked), problem


def test_a_single_step_needs_no_decomposition(train):
    short = next(p for p in train if len(p.steps) == 1)
    long = next(p for p in train if len(p.steps) == 4)
    assert short.decomposition.status == "not_needed"
    assert long.decomposition.texts == [step.ask for step in long.steps]


def test_the_world_is_rich(train):
    """Two problems in a hundred share their wording at most, when names, things and numbers are taken out."""
    shapes = {tuple(w for w in p.question.split() if w.islower() and w.isalpha()) for p in train}
    assert len(shapes) > 0.9 * len(train)


def test_examples_and_scores():
    examples = load_examples(Selection(split="test", limit=5))
    assert len(examples) == 5
    example = Example("1", "?", answer="1200")
    assert score("First 3, then 4.\nThe answer is: $1,200.", example)
    assert score("The answer is: 1200.0", example)
    assert not score("The answer is: 1201", example)
    assert not score("The answer is: 1200 or 1201", example)
    assert not score("", example)


def test_an_unknown_split_is_an_error():
    with pytest.raises(InputError, match="no split 'dev'; it has train, test, heldout"):
        next(problems("dev", 1))
