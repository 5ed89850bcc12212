"""`rlcore plan`: what a recipe needs of a cluster, in memory and in time, before anything runs there."""
