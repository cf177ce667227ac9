"""One file for each layout of a data set, each with a function `read`."""
