"""The eight stages of the cycle, side by side; they meet only in artifacts and in the record."""
