"""Model cards: what a trained model is, on which data, how well it does and what it must not be used for."""
