"""What joyful is measured against: trainers of the same model, written otherwise."""
