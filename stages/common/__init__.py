"""Small single-purpose modules that more than one stage imports."""
