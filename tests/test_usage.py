from edgedc.usage import Usage, estimate_tokens, total_usage


def test_a_sum_is_only_as_sure_as_its_weakest_part() -> None:
    parts = [Usage(1, 2, 1, "server"), Usage(3, 4, 0, "estimate"), Usage(5, 6, 0, "tokenizer")]
    assert total_usage(parts) == Usage(9, 12, 1, "estimate")
    assert total_usage(parts).tokens == 21
    assert (estimate_tokens(""), estimate_tokens("abcde")) == (0, 2)
