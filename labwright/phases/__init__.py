"""The steps that the commands are made of, one module each."""
