"""Tables on the screen."""

from edgedc.bench.table import table


def test_a_table_aligns_numbers_right_and_words_left() -> None:
    text = table(["name", "share\n(95 %)", "count"], [["a", "9 %", 1200], ["long", None, 3], ["b", "12 %", 123.456]])
    assert text.splitlines() == [
        "       share",
        "name  (95 %)  count",
        "----  ------  -----",
        "a        9 %  1,200",
        "long       -      3",
        "b       12 %    123",
    ]


def test_unknown_and_small_and_large_figures_read_well() -> None:
    rows = [["a", None, 0.00123, 1234567], ["b", None, 98765.4, 0]]
    assert table(["x", "none", "float", "int"], rows).splitlines()[2:] == [
        "a     -  0.00123  1,234,567",
        "b     -   98,765          0",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(["x", "long name"], []) == "x  long name\n-  ---------"


def test_a_name_breaks_no_table_and_steers_no_terminal() -> None:
    assert table(["x", "y"], [["two\nlines", "a"], ["red\x1b[31m", "b"]]).splitlines()[2:] == [
        "two lines  a",
        "red [31m   b",
    ]
