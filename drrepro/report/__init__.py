"""Tables and figures, made of run records alone."""
