"""Sources: what is particular to each known data set. One file a source."""
