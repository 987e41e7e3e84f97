"""The bias and std of hash functions, from what the teacher sees."""
