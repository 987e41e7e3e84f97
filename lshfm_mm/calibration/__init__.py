"""The bias of hash functions, from what the teacher sees."""
