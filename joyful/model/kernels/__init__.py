"""Operations that are replaced for speed or memory. Each has a plain twin in its test, which must agree with it."""
