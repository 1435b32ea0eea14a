"""What can be wrong: each cause is declared once, as a row with its words; causes are values."""
