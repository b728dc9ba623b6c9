"""Operations optimised for speed or memory. The test of each one compares it with a plain implementation."""
